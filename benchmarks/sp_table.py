"""Table of SP: the plain way, a library, and ours.

Authors
 * The iusp_plugin authors 2026
"""

from contenders import (
    features,
    plain_sp,
    step,
    torchdistill_sp,
    torchdistill_version,
)
from report import progress, table
from settings import Settings
from timing import interleave

from iusp_plugin.losses import sp_loss


def _sp_row(shape: tuple[int, int, int], settings: Settings) -> dict:
    """Three ways to the loss over clips at one shape."""
    clips, *sizes = shape
    student, teacher = features((1, clips, *sizes), settings.device)
    student = student.detach()[0].requires_grad_()
    pair = student, teacher[0]
    steps = {"plain": step(plain_sp, *pair), "ours": step(sp_loss, *pair)}
    if torchdistill_version():
        steps["torchdistill"] = step(torchdistill_sp(), *pair)
    times = interleave(steps, settings.effort(3.0), device=settings.device)
    values = {f"{name}_value": float(call()[0]) for name, call in steps.items()}
    row = {"shape": shape, **{name: times.median(name) for name in steps}}
    row |= values | {"ratio": times.ratio("plain", "ours")}
    if "torchdistill" in steps:
        row["library_ratio"] = times.ratio("torchdistill", "ours")
        wrong = values["torchdistill_value"]
        row["factor"] = values["plain_value"] / wrong
    return row | {"repetitions": times.repetitions()}


def sp(settings: Settings) -> dict:
    """Table G: the loss over clips.

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
        _sp_row(shape, settings)
        for shape in progress("G", settings.sp_shapes())
    ]
    number = torchdistill_version()
    name = f"torchdistill {number}" if number else "torchdistill (absent)"
    columns = [
        ("clips x student D x teacher D", "shape", "shape"),
        ("plain, ms", "plain", "ms"),
        (f"{name}, ms", "torchdistill", "ms"),
        ("ours, ms", "ours", "ms"),
        ("plain / ours", "ratio", "ratio"),
        ("torchdistill / ours", "library_ratio", "ratio"),
        ("plain value", "plain_value", "value"),
        ("our value", "ours_value", "value"),
        ("torchdistill's value", "torchdistill_value", "value"),
        ("plain / torchdistill's value", "factor", "number"),
    ]
    note = (
        "torchdistill's SPKDLoss calls `normalize(z z^T, 1)`, whose second "
        "argument is p: its rows have an L1 norm of one, where the paper's "
        "have an L2 norm of one. Its value is of another loss."
    )
    closing = "" if number else "torchdistill is not installed."
    return table("G. SP: loss and gradient", note, columns, rows, closing)
