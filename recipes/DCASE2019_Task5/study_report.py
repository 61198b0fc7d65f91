"""A study's report: one page that opens anywhere, and a Markdown table.

Authors
 * The iusp_plugin authors 2026
"""

import base64
import logging
from pathlib import Path

import jinja2
import matplotlib
from iusp_plugin.files import replacing
from iusp_plugin.run_folder import write_json
from study_costs import measure_costs
from study_pictures import Pictures
from study_results import Results
from study_similarity import draw_similarities
from study_statistics import CLAIMED_RATIO
from study_tables import Tables, cost_table, read_costs, readme_tables

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
# Tags whose clips are drawn: repetitive sounds, and single ones.
DRAWN_TAGS = ("machinery-impact", "dog", "non-machinery-impact")


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


def source_of(path):
    """A picture's file as an image's source, inside the page.

    Arguments
    ---------
    path : Path
        An SVG or a PNG file.
    """
    kind = {".svg": "svg+xml", ".png": "png"}[path.suffix]
    text = base64.b64encode(path.read_bytes()).decode()
    return f"data:image/{kind};base64,{text}"


def save_svg(figure, path):
    """Write a figure; the same one gives the same file.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        What is drawn.
    path : Path
        The file to be.
    """
    with (
        matplotlib.rc_context({"svg.hashsalt": path.stem}),
        replacing(path) as part,
    ):
        figure.savefig(part, format="svg", metadata={"Date": None})


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
    """Write report.html, report.md and pictures into the study's folder.

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
    pictures, tables = Pictures(results, costs), Tables(results)
    folder = study.output_folder
    drawn_in = folder / "pictures"
    drawn_in.mkdir(parents=True, exist_ok=True)
    try:
        similarities = draw_similarities(study, results, drawn_in, DRAWN_TAGS)
    except FileNotFoundError as error:
        logger.warning("No frame similarities in the report: %s", error)
        similarities = {}
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True
    ).get_template("study_report.html")
    contents = [
        ("The claim", tables.claim(), "", pictures.gains(), GAINS),
        ("The way to the teacher", tables.closest(), CLOSEST, None, ""),
        ("All figures", tables.rows(), "", None, ""),
        ("Method beside method", tables.beside(), BESIDE, None, ""),
        (
            "Costs",
            cost_table(costs),
            f"Front end not counted, but in the latency: from waveform to "
            f"tags on one thread of {costs['machine']['cpu']}, float32.",
            pictures.costs_against_scores(),
            "Mean micro-AUPRC of each method against the network's size.",
        ),
        ("Classes", None, "", pictures.class_gains(), CLASSES),
        (
            "Learning curves",
            tables.fits(),
            FITS,
            pictures.learning_curves(),
            CURVES,
        ),
        ("Gradients", tables.gradients(), GRADIENTS, pictures.gradients(), ""),
        ("Search", tables.search(), "", pictures.searches(), SEARCH),
        ("All runs", tables.runs(), "", None, ""),
    ]
    sections = [_section(drawn_in, *content) for content in contents]
    sections = [s for s in sections if s["rows"] or s["pictures"]]
    if similarities:
        drawn = [
            {"source": source_of(path), "caption": caption}
            for caption, path in similarities.items()
        ]
        title = "Frame similarities"
        section = _section(drawn_in, title, None, SIMILARITY, None, "")
        sections.insert(-2, section | {"pictures": drawn})
    path = folder / "report.html"
    html = page.render(
        title=f"Distillation study: {study.name}",
        subtitle=subtitle(study, results),
        notes=notes_of(study, results),
        sections=sections,
    )
    for target, text in (
        (path, html),
        (
            folder / "report.md",
            "\n\n".join(readme_tables(tables).values()) + "\n",
        ),
    ):
        with replacing(target) as part:
            part.write_text(text, encoding="utf-8")
    return path


GAINS = (
    "Gain over the plain student of the same seed, in coarse micro-AUPRC, "
    "with 95 % intervals; parameters below the names. Of the first teacher "
    "and without a variant."
)
CLASSES = (
    "Gain in each coarse tag's AUPRC, with 95 % intervals, of the methods that "
    "all networks have."
)
CURVES = (
    "Mean over seeds after each epoch, of the methods that all networks have."
)
FITS = (
    "Label loss of the last epoch, with augmentation on the training clips. "
    "Where it is no lower there than on other clips, the network has not "
    "fitted its labels yet. Other targets have other losses."
)
CLOSEST = (
    "Each network's best method, chosen by its mean on the clips that epochs "
    "were chosen on. All combinations are not tried on every network."
)
BESIDE = (
    "Differences in coarse micro-AUPRC, paired by seed, from the plain, the SP "
    "and the IUSP student of the first teacher and without a variant."
)
GRADIENTS = (
    "Of each term's weighted loss, after all its parameters, beside the label "
    "loss's: length as a share of it, and cosine; mean over every tenth batch "
    "of an epoch, one seed."
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


def _section(folder, title, table, text, figure, caption):
    """One part of the page, as the template takes it; its figure is saved."""
    head, rows = table or ([], [])
    pictures = []
    if figure is not None:
        path = folder / f"{title.lower().replace(' ', '-')}.svg"
        save_svg(figure, path)
        pictures = [{"source": source_of(path), "caption": caption}]
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
