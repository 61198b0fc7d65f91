"""A study's report: one page that opens anywhere, and a Markdown table.

Authors
 * The iusp_plugin authors 2026
"""

import base64
import io
import json
import logging
import math
from pathlib import Path

import jinja2
from iusp_plugin.files import replacing
from iusp_plugin.run_folder import write_json
from study_costs import measure_costs
from study_pictures import Pictures
from study_results import FIGURES, LEVELS, Results, headline
from study_search import score
from study_similarity import draw_similarities
from study_statistics import CLAIMED_RATIO

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
# Tags whose clips are drawn: repetitive sounds, and single ones.
DRAWN_TAGS = ("machinery-impact", "dog", "non-machinery-impact")


def number(value, signed=False):
    """A figure with three decimals; a dash for none."""
    if value is None:
        return "-"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def interval(estimate, signed=False):
    """An estimate as mean and interval; the mean alone for one seed.

    Arguments
    ---------
    estimate : Estimate or None
        What to write.
    signed : bool
        Write plus signs.

    Returns
    -------
    dict
        Text, and "up" or "down" where a signed interval excludes zero.
    """
    if estimate is None:
        return {"text": "-", "kind": ""}
    text = number(estimate.mean, signed)
    if estimate.n > 1:
        ends = [number(x, signed) for x in (estimate.low, estimate.high)]
        text += f" [{', '.join(ends)}]"
    kinds = {1: "up", -1: "down", 0: ""}
    return {"text": text, "kind": kinds[estimate.sign] if signed else ""}


def spread(estimate):
    """An estimate as mean and standard deviation over seeds."""
    if estimate is None:
        return "-"
    if estimate.n == 1:
        return number(estimate.mean)
    return f"{estimate.mean:.3f} ± {estimate.sd:.3f}"


def percent(estimate):
    """A share as per cent, with its interval."""
    if estimate is None:
        return "-"
    text = f"{100 * estimate.mean:.0f} %"
    if estimate.n > 1:
        ends = (100 * estimate.low, 100 * estimate.high)
        text += " [{:.0f}, {:.0f}]".format(*ends)
    return text


def main_table(results):
    """Head and rows: every method and student with all its figures.

    Arguments
    ---------
    results : Results
        What was found.

    Returns
    -------
    tuple
        Column names, and rows of cells.
    """
    levels = [n for n in LEVELS if n == results.level or n == "fine"]
    head = ["network", "method", "seeds", f"{levels[0]} micro-AUPRC"]
    head += ["95 % interval", "gain over plain", "gap closed"]
    head += ["macro-AUPRC", "micro-F1"]
    if len(levels) > 1:
        head += ["fine micro-AUPRC", "macro-AUPRC", "micro-F1"]
    rows = []
    for label, record in results.teachers.items():
        found = record["splits"].get(results.split, {})
        cells = [
            number(found.get(level, {}).get(figure))
            for level in levels
            for figure in FIGURES
        ]
        name = f"cnn_teacher ({label})"
        rows.append([name, "labels", "1", cells[0], "-", "-", "-", *cells[1:]])
    previous = None
    for row in results.rows():
        figures = row["figures"]
        first = figures[results.level, "micro_auprc"]
        others = [
            spread(figures[level, figure])
            for level in levels
            for figure in FIGURES
        ]
        ends = "-"
        if first.n > 1:
            ends = f"{first.low:.3f} to {first.high:.3f}"
        rows.append(
            [
                row["student"] if row["student"] != previous else "",
                row["method"],
                str(len(row["seeds"])),
                others[0],
                ends,
                interval(row["gain"], signed=True),
                percent(row["closed"]),
                *others[1:],
            ]
        )
        previous = row["student"]
    return head, rows


def claim_table(results):
    """Head and rows: the paper's claim, student by student.

    Arguments
    ---------
    results : Results
        What was found.

    Returns
    -------
    tuple
        Column names, and rows of cells.
    """
    head = ["network", "setting", "seeds", "SP - plain", "IUSP - plain"]
    head += ["IUSP - SP", "d", "ratio of gains", "d > 0"]
    verdicts = {1: "yes", -1: "no, below zero", 0: "not decided"}
    rows = []
    for claim in results.claims():
        ratio = claim["ratio"]
        d = claim["d"]
        rows.append(
            [
                claim["student"],
                claim["setting"],
                str(d.n),
                *(
                    interval(claim[key], signed=True)
                    for key in ("sp", "iusp", "iusp_sp", "d")
                ),
                f"{ratio:.2f}" if ratio == ratio else "SP gains nothing",
                verdicts[d.sign],
            ]
        )
    return head, rows


def closest_table(results):
    """Head and rows: each student's best method beside its teacher.

    Arguments
    ---------
    results : Results
        What was found.

    Returns
    -------
    tuple
        Column names, and rows of cells.
    """
    head = ["network", "method", "seeds", "micro-AUPRC", "teacher"]
    head += ["below the teacher", "gap closed"]
    rows = [
        [
            row["student"],
            row["method"],
            str(len(row["seeds"])),
            spread(row["value"]),
            number(row["teacher"]),
            interval(row["below"])["text"],
            percent(row["closed"]),
        ]
        for row in results.closest()
    ]
    return head, rows


def cost_table(costs):
    """Head and rows: what each network costs.

    Arguments
    ---------
    costs : dict
        What ``measure_costs`` returned.

    Returns
    -------
    tuple
        Column names, and rows of cells.
    """
    head = ["network", "parameters", "MACs, 10 s", "peak activations"]
    head += ["CPU latency, 10 s"]
    rows = [
        [
            name,
            f"{cost['params']:,}",
            f"{cost['macs'] / 1e6:,.1f} M",
            f"{cost['peak_activation_bytes'] / 1e6:.2f} MB",
            f"{cost['latency_ms']:.1f} ms",
        ]
        for name, cost in costs["networks"].items()
    ]
    return head, rows


def search_table(results):
    """Head and rows: every trial of the search.

    Arguments
    ---------
    results : Results
        What was found.

    Returns
    -------
    tuple
        Column names, and rows of cells.
    """
    rows = []
    for term in results.study.terms:
        for record in results.trials[term]:
            setting = record["settings"][term]
            value = score(record)
            rest = {k: v for k, v in setting.items() if k != "weight"}
            rows.append(
                [
                    "" if record["trial"] else term,
                    str(record["trial"]),
                    f"{setting['weight']:.4g}",
                    ", ".join(
                        f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}"
                        for k, v in rest.items()
                    ),
                    number(value) if math.isfinite(value) else "failed",
                ]
            )
    head = ["term", "trial", "weight", "other", f"micro-AUPRC, {results.tuned}"]
    return head, rows


def runs_table(results):
    """Head and rows: every run.

    Arguments
    ---------
    results : Results
        What was found.

    Returns
    -------
    tuple
        Column names, and rows of cells.
    """
    head = ["network", "method", "seed", results.tuned, results.split]
    head += ["minutes", "command"]
    rows = []
    for student in results.students:
        for label in results.labels:
            runs = results.runs.get((label, student), {})
            for seed, record in sorted(runs.items()):
                splits = record["splits"]
                scores = [
                    number(headline(splits[name])["micro_auprc"])
                    for name in ("validate", results.split)
                ]
                rows.append(
                    [
                        student,
                        label,
                        str(seed),
                        *scores,
                        f"{record['minutes']:.1f}",
                        record["command"],
                    ]
                )
    return head, rows


def markdown(head, rows):
    """A table in Markdown.

    Arguments
    ---------
    head : list of str
        Column names.
    rows : list of list
        Cells: text, or a dict with text.

    Returns
    -------
    str
    """
    lines = [head, ["---"] * len(head)]
    for row in rows:
        lines.append(
            [cell["text"] if isinstance(cell, dict) else cell for cell in row]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def readme_tables(study):
    """The tables that stand in a README, from the records alone.

    Arguments
    ---------
    study : Study
        Knows where the records are.

    Returns
    -------
    dict of str to str
        "claim", "closest", "rows", "search" and, where they are measured,
        "costs".
    """
    results = Results(study)
    tables = {
        "claim": markdown(*claim_table(results)),
        "closest": markdown(*closest_table(results)),
        "rows": markdown(*main_table(results)),
        "search": markdown(*search_table(results)),
    }
    costs = read_costs(study)
    if costs:
        tables["costs"] = markdown(*cost_table(costs))
    return tables


def read_costs(study):
    """The costs kept beside the records; None before they are measured."""
    path = study.records_folder / "costs.json"
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8"))


def known_costs(study, students):
    """Costs of the teacher and the students, measured where missing.

    Arguments
    ---------
    study : Study
        Knows where they are kept.
    students : sequence of str
        Networks wanted.
    """
    costs = read_costs(study)
    names = ["cnn_teacher", *students]
    if costs is None or set(names) - costs["networks"].keys():
        costs = measure_costs(study, names)
        write_json(study.records_folder / "costs.json", costs)
    return costs


def source_of(picture):
    """A picture as an image's source, inside the page.

    Arguments
    ---------
    picture : matplotlib.figure.Figure or Path
        Drawn as SVG, or a PNG file.
    """
    if isinstance(picture, Path):
        kind, content = "png", picture.read_bytes()
    else:
        buffer = io.BytesIO()
        picture.savefig(buffer, format="svg", metadata={"Date": None})
        kind, content = "svg+xml", buffer.getvalue()
    text = base64.b64encode(content).decode()
    return f"data:image/{kind};base64,{text}"


def notes_of(study, results):
    """What a reader has to know about the figures.

    Arguments
    ---------
    study : Study
        What was declared.
    results : Results
        What was found.

    Returns
    -------
    list of str
    """
    halves = study.declared["shared"].get("validate_on") == "even"
    notes = []
    if study.declared["data_folder"] is None:
        notes.append(
            "Trained on SYNTHETIC soundscapes: these figures are no results."
        )
    if halves:
        notes.append(
            "Weights and epochs were chosen on the even-numbered validation "
            "clips (the tuning half), by micro-AUPRC."
        )
    shown = {
        "held_out": "the odd-numbered validation clips, which nothing was "
        "chosen on",
        "test": "the test split",
        "validate": "the validation clips that epochs were chosen on",
    }
    notes.append(
        f"Reported: {shown.get(results.split, results.split)}. Means and "
        "standard deviations are over seeds; brackets hold 95 % intervals of "
        "the mean (Student's t). Gains are paired by seed. The intervals "
        "tell how far other seeds would move the means, not other clips."
    )
    notes.append(
        f"All seeds share the teacher {study.teachers[0]!r}, so its own luck "
        "is not in the intervals; rows marked @ have another teacher. The "
        f"paper's claim is tested as d = (IUSP - plain) - {CLAIMED_RATIO} "
        "(SP - plain) > 0. The gap between plain student and teacher is taken "
        "as known: its own spread is not in the share that is closed."
    )
    if study.searched:
        notes.append(
            "Each loss had equally many trials, on one student and one seed: "
            "the declared start, others drawn by Optuna (the first five at "
            "random), then changes of the best, one at a time."
        )
    if results.undeclared:
        names = ", ".join(sorted(results.undeclared))
        notes.append(f"Records of methods that are not declared: {names}.")
    by_teacher = {}
    for runs in results.runs.values():
        for record in runs.values():
            if "teacher" in record:
                digests = by_teacher.setdefault(record["teacher"], set())
                digests.add(record["teacher_sha256"])
    mixed = [name for name, found in by_teacher.items() if len(found) > 1]
    if mixed:
        notes.append(
            f"Attention: the runs of teacher {', '.join(mixed)} were made "
            "with several trainings of it (their weights differ)."
        )
    return notes


def write_report(study):
    """Write report.html and report.md into the study's folder.

    Arguments
    ---------
    study : Study
        With at least one finished row.

    Returns
    -------
    Path or None
        The page; None where there is nothing to report yet.
    """
    results = Results(study)
    if not results.students:
        return None
    costs = known_costs(study, results.students)
    pictures = Pictures(results, costs)
    folder = study.output_folder
    try:
        similarities = draw_similarities(
            study, results, folder / "pictures", DRAWN_TAGS
        )
    except FileNotFoundError as error:
        logger.warning("No frame similarities in the report: %s", error)
        similarities = {}
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True
    ).get_template("study_report.html")
    sections = [
        ("The claim", claim_table(results), "", pictures.gains(), GAINS),
        ("The way to the teacher", closest_table(results), CLOSEST, None, ""),
        ("All figures", main_table(results), "", None, ""),
        (
            "Costs",
            cost_table(costs),
            f"Front end not counted, but in the latency: from waveform to "
            f"tags on one thread of {costs['machine']['cpu']}, float32.",
            pictures.costs_against_scores(),
            "Mean micro-AUPRC of each method against the network's size.",
        ),
        ("Classes", None, "", pictures.class_gains(), CLASSES),
        ("Learning curves", None, "", pictures.learning_curves(), CURVES),
        ("Gradients", None, GRADIENTS, pictures.gradients(), ""),
        ("Search", search_table(results), "", pictures.searches(), SEARCH),
        ("All runs", runs_table(results), "", None, ""),
    ]
    tables = [_section(*section) for section in sections]
    tables = [t for t in tables if t["rows"] or t["pictures"]]
    if similarities:
        drawn = [
            {"source": source_of(path), "caption": caption}
            for caption, path in similarities.items()
        ]
        section = _section("Frame similarities", None, SIMILARITY, None, "")
        tables.insert(-2, section | {"pictures": drawn})
    path = folder / "report.html"
    html = page.render(
        title=f"Distillation study: {study.name}",
        subtitle=subtitle(study, results),
        notes=notes_of(study, results),
        tables=tables,
    )
    for target, text in (
        (path, html),
        (
            folder / "report.md",
            "\n\n".join(readme_tables(study).values()) + "\n",
        ),
    ):
        with replacing(target) as part:
            part.write_text(text, encoding="utf-8")
    return path


GAINS = (
    "Gain over the plain student of the same seed, in coarse micro-AUPRC, "
    "with 95 % intervals; parameters below the names."
)
CLASSES = "Gain in each coarse tag's AUPRC, with 95 % intervals."
CURVES = "Mean over seeds after each epoch."
CLOSEST = (
    "Each network's best method, chosen by its mean on the clips that epochs "
    "were chosen on. All combinations are not tried on every network."
)
GRADIENTS = (
    "Of each term's weighted loss, after all its parameters, beside the label "
    "loss: mean over every tenth batch of an epoch, one seed."
)
SEARCH = "Each trial's best epoch against its weight, one seed."
SIMILARITY = (
    "Cosine similarity of the frames at each network's own tap, in validation "
    "clips that nothing was chosen on, where some are held out: the first "
    "clip with the tag and the fewest others."
)


def subtitle(study, results):
    """Data, counts and versions in a line."""
    runs = sum(len(found) for found in results.runs.values())
    trials = sum(len(found) for found in results.trials.values())
    minutes = sum(record["minutes"] for record in study.records().values())
    some = next(iter(next(iter(results.runs.values())).values()))
    versions = ", ".join(f"{k} {v}" for k, v in some["versions"].items())
    return (
        f"{runs} runs, {trials} trials of the search, {len(results.teachers)} "
        f"teachers; {minutes / 60:.1f} hours of training; {versions}"
    )


def _section(title, table, text, picture, caption):
    """One part of the page, as the template takes it."""
    head, rows = table or ([], [])
    pictures = []
    if picture is not None:
        pictures = [{"source": source_of(picture), "caption": caption}]
    words = [i for i, name in enumerate(head) if name in _WORDS]
    return {
        "title": title,
        "text": text,
        "head": head,
        "rows": rows,
        "words": words,
        "folded": title == "All runs",
        "pictures": pictures,
    }


_WORDS = ("network", "method", "setting", "d > 0", "other", "term", "command")
