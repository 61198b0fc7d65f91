"""Tables of time: IUSP in every form against the plain way.

Authors
 * The iusp_plugin authors 2026
"""

import statistics

import torch
from contenders import (
    features,
    looped_iusp,
    plain_iusp,
    random_lengths,
    relative_difference,
    step,
    truth,
)
from report import at_least, at_most, progress, significant, table
from settings import MASKED_BAR, MATRIX_BARS, RANDOM_BAR, Settings, Shape, tf32
from timing import interleave

from iusp_plugin.losses import (
    CosineSimilarity,
    cosine_similarity,
    iusp_loss,
    similarity_factors,
    similarity_matrix,
)
from iusp_plugin.losses.costs import choose_form

FORMS = ("gram", "covariance")
SHAPE = ("batch x frames x student D x teacher D", "shape", "shape")


def _errors(steps: dict, student, teacher) -> dict[str, float]:
    """Relative differences of value and gradient from the truth."""
    value, gradient = truth(student, teacher)
    found = {}
    for name, call in steps.items():
        own_value, own_gradient = call()
        found[f"{name}_value"] = relative_difference(own_value, value)
        found[f"{name}_grad"] = relative_difference(own_gradient, gradient)
    return found


def _bar_row(shape: Shape, bar, precision: str, settings: Settings) -> dict:
    """Every way to the loss at one shape."""
    student, teacher = features(shape, settings.device)
    pair = student, teacher
    if precision == "bf16 inputs":
        pair = student.detach().bfloat16().requires_grad_(), teacher.bfloat16()
    steps = {
        "plain": step(plain_iusp, *pair),
        "loop": step(looped_iusp, *pair),
        "ours": step(iusp_loss, *pair),
    }
    steps |= {form: step(iusp_loss, *pair, form=form) for form in FORMS}
    with tf32(precision == "TF32"):
        times = interleave(
            steps,
            settings.effort(6.0),
            optional=FORMS,
            device=settings.device,
        )
        checked = {name: steps[name] for name in ("plain", "ours")}
        errors = _errors(checked, *pair)
    ratio = times.ratio("plain", "ours")
    return {
        "shape": shape,
        "precision": precision,
        "form": choose_form(*shape),
        **{name: times.median(name) for name in steps},
        "ratio": ratio,
        "bar": at_least(ratio, bar if precision == "float32" else None),
        **errors,
        "repetitions": times.repetitions(),
    }


def bars(settings: Settings) -> dict:
    """Table A: the shapes that have to be faster than the plain way.

    Arguments
    ---------
    settings : Settings
        The run's.

    Returns
    -------
    dict
        As ``report.table``.
    """
    rows = [
        _bar_row(shape, bar, precision, settings)
        for shape, bar in progress("A", settings.bars().items())
        for precision in settings.precisions()
    ]
    columns = [SHAPE, ("form", "form", "text")]
    if settings.device == "cuda":
        columns.append(("precision", "precision", "text"))
    columns += [
        (f"{name}, ms", name, "ms")
        for name in ("plain", "loop", "ours", *FORMS)
    ]
    columns += [("plain / ours", "ratio", "ratio"), ("bar", "bar", "bar")]
    columns += [
        (f"{name}: {what}", f"{name}_{what}", "error")
        for what in ("value", "grad")
        for name in ("plain", "ours")
    ]
    return table(
        "A. IUSP: loss and gradient",
        "A forced form that takes more than 20 times as long as the fastest "
        "was timed once. The last four columns are relative differences from "
        "the plain way in float64.",
        columns,
        rows,
    )


def _masked_row(shape: Shape, settings: Settings) -> dict:
    """With and without lengths at one shape."""
    student, teacher = features(shape, settings.device)
    lengths = random_lengths(shape[0], settings.device)
    steps = {
        "without": step(iusp_loss, student, teacher),
        "random": step(iusp_loss, student, teacher, lengths),
        "ones": step(iusp_loss, student, teacher, torch.ones_like(lengths)),
    }
    times = interleave(steps, settings.effort(3.0), device=settings.device)
    ratio = times.ratio("random", "without")
    return {
        "shape": shape,
        **{name: times.median(name) for name in steps},
        "ratio": ratio,
        "bar": at_most(ratio, None if settings.quick else MASKED_BAR),
        "ones_ratio": times.ratio("ones", "without"),
        "repetitions": times.repetitions(),
    }


def masked(settings: Settings) -> dict:
    """Table B: what lengths cost; see ``bars``."""
    rows = [
        _masked_row(shape, settings) for shape in progress("B", settings.bars())
    ]
    columns = [
        SHAPE,
        ("without lengths, ms", "without", "ms"),
        ("random lengths, ms", "random", "ms"),
        ("lengths of one, ms", "ones", "ms"),
        ("random / without", "ratio", "ratio"),
        ("bar", "bar", "bar"),
        ("ones / without", "ones_ratio", "ratio"),
    ]
    note = "Random lengths lie between a half and one."
    return table("B. IUSP with lengths", note, columns, rows)


def _given(teacher: torch.Tensor) -> dict:
    """The teacher's similarity in every form that can be kept."""
    with torch.no_grad():
        cosine = cosine_similarity(teacher)
        return {
            "matrix": similarity_matrix(teacher),
            "cosine": cosine,
            "cosine16": CosineSimilarity(cosine.cosine.half(), cosine.norms),
            "factors": similarity_factors(teacher),
        }


def _given_row(shape: Shape, settings: Settings) -> dict:
    """The plain way against each form of the teacher at one shape."""
    student, teacher = features(shape, settings.device)
    steps = {"plain": step(plain_iusp, student, teacher)}
    for name, form in _given(teacher).items():
        steps[name] = step(iusp_loss, student, teacher_similarity=form)
    times = interleave(steps, settings.effort(4.0), device=settings.device)
    ratios = {
        f"{name}_ratio": times.ratio("plain", name)
        for name in steps
        if name != "plain"
    }
    return {
        "shape": shape,
        **{name: times.median(name) for name in steps},
        **ratios,
        "bar": at_least(ratios["matrix_ratio"], MATRIX_BARS.get(shape)),
        "repetitions": times.repetitions(),
    }


def given(settings: Settings) -> dict:
    """Table C: the teacher's similarity ready made; see ``bars``."""
    rows = [
        _given_row(shape, settings) for shape in progress("C", settings.bars())
    ]
    columns = [SHAPE, ("plain, ms", "plain", "ms")]
    for name in ("matrix", "cosine", "cosine16", "factors"):
        columns.append((f"{name}, ms", name, "ms"))
        columns.append((f"plain / {name}", f"{name}_ratio", "ratio"))
        if name == "matrix":
            columns.append(("bar", "bar", "bar"))
    note = (
        "The plain way makes the teacher's matrix from its features each "
        "time. cosine16: the cosines kept in float16."
    )
    return table("C. IUSP, the teacher given", note, columns, rows)


def _random_row(shape: Shape, settings: Settings) -> dict:
    """Ours and the plain way at one shape."""
    student, teacher = features(shape, settings.device)
    steps = {
        "plain": step(plain_iusp, student, teacher),
        "ours": step(iusp_loss, student, teacher),
    }
    times = interleave(steps, settings.effort(1.5), device=settings.device)
    ratio = times.ratio("plain", "ours")
    return {
        "shape": shape,
        "form": choose_form(*shape),
        **{name: times.median(name) for name in steps},
        "ratio": ratio,
        "bar": at_least(ratio, None if settings.quick else RANDOM_BAR),
        "repetitions": times.repetitions(),
    }


def drawn(settings: Settings) -> dict:
    """Table D: shapes drawn at random; see ``bars``."""
    rows = [
        _random_row(shape, settings)
        for shape in progress("D", settings.random_shapes())
    ]
    ratios = [row["ratio"]["value"] for row in rows]
    middle = statistics.median(ratios)
    closing = (
        f"Of {len(rows)}: minimum {significant(min(ratios))}, median "
        f"{significant(middle)}, maximum {significant(max(ratios))}."
    )
    columns = [
        SHAPE,
        ("form", "form", "text"),
        ("plain, ms", "plain", "ms"),
        ("ours, ms", "ours", "ms"),
        ("plain / ours", "ratio", "ratio"),
        ("bar", "bar", "bar"),
    ]
    note = "Drawn log-uniformly with a fixed seed; none left out afterwards."
    title = "D. IUSP at random shapes"
    return table(title, note, columns, rows, closing)
