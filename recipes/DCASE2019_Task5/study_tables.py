"""The tables of a study: for its page, and in Markdown.

Authors
 * The iusp_plugin authors 2026
"""

import json
import math

from study_results import FIGURES, LEVELS, headline
from study_search import score


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
    """An estimate as mean, standard deviation over seeds, and interval."""
    if estimate is None:
        return "-"
    if estimate.n == 1:
        return number(estimate.mean)
    ends = f"[{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.mean:.3f} ± {estimate.sd:.3f} {ends}"


def percent(estimate):
    """A share as per cent, with its interval."""
    if estimate is None:
        return "-"
    text = f"{100 * estimate.mean:.0f} %"
    if estimate.n > 1:
        ends = (100 * estimate.low, 100 * estimate.high)
        text += " [{:.0f}, {:.0f}]".format(*ends)
    return text


def named_once(rows):
    """Rows of which the first cell is empty where the last one had the same."""
    shown, previous = [], None
    for first, *others in rows:
        shown.append(["" if first == previous else first, *others])
        previous = first
    return shown


class Tables:
    """The tables of a study: each gives column names, and rows of cells.

    Arguments
    ---------
    results : Results
        What was found.
    """

    def __init__(self, results):
        self.results = results

    def rows(self):
        """Every method and student with all its figures."""
        results = self.results
        levels = [n for n in LEVELS if n == results.level or n == "fine"]
        head = ["network", "method", "seeds", f"{levels[0]} micro-AUPRC"]
        head += ["gain over plain", "gap closed", "macro-AUPRC", "micro-F1"]
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
            rows.append([name, "labels", "1", cells[0], "-", "-", *cells[1:]])
        own = []
        for row in results.rows():
            figures = row["figures"]
            others = [
                spread(figures[level, figure])
                for level in levels
                for figure in FIGURES
            ]
            own.append(
                [
                    row["student"],
                    row["method"],
                    str(len(row["seeds"])),
                    others[0],
                    interval(row["gain"], signed=True),
                    percent(row["closed"]),
                    *others[1:],
                ]
            )
        return head, rows + named_once(own)

    def claim(self):
        """The paper's claim, student by student."""
        results = self.results
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

    def closest(self):
        """Each student's best method beside its teacher."""
        results = self.results
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

    def beside(self):
        """Other methods beside plain, SP and IUSP."""
        results = self.results
        rows = results.beside()
        bases = list(rows[0])[2:] if rows else []
        head = ["network", "method", *(f"minus {base}" for base in bases)]
        cells = []
        for row in rows:
            values = [interval(row[base], signed=True) for base in bases]
            cells.append([row["student"], row["method"], *values])
        return head, named_once(cells)

    def fits(self):
        """Label loss of the last epoch, on training and on other clips."""
        results = self.results
        head = ["network", "method", "seeds", "label loss, training clips"]
        head += [f"label loss, {results.tuned}"]
        cells = []
        for row in results.fits():
            names = [row["student"], row["method"], str(row["train"].n)]
            values = [spread(row[split]) for split in ("train", "valid")]
            cells.append(names + values)
        return head, named_once(cells)

    def gradients(self):
        """Each term's gradient beside the labels'."""
        results = self.results
        head = ["network", "method", "term"]
        for name in ("length", "cosine"):
            head += [f"{name}, first quarter", f"{name}, later"]
        rows = [
            [
                *(row[key] for key in ("student", "method", "term")),
                *(
                    f"{value:.2f}"
                    for key in ("ratio", "cosine")
                    for value in row[key]
                ),
            ]
            for row in results.gradient_means()
        ]
        return head, rows

    def search(self):
        """Every trial of the search."""
        results = self.results
        rows = []
        for term in results.study.terms:
            for record in results.trials[term]:
                setting = record["settings"][term]
                value = score(record)
                rest = {k: v for k, v in setting.items() if k != "weight"}
                rows.append(
                    [
                        term,
                        str(record["trial"]),
                        f"{setting['weight']:.4g}",
                        ", ".join(
                            f"{k} {v:.3g}"
                            if isinstance(v, float)
                            else f"{k} {v}"
                            for k, v in rest.items()
                        ),
                        number(value) if math.isfinite(value) else "failed",
                    ]
                )
        head = [
            "term",
            "trial",
            "weight",
            "other",
            f"micro-AUPRC, {results.tuned}",
        ]
        return head, named_once(rows)

    def runs(self):
        """Every run."""
        results = self.results
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


def readme_tables(tables):
    """The tables that stand in a README, from the records alone.

    Arguments
    ---------
    tables : Tables
        Of the study's results.

    Returns
    -------
    dict of str to str
        "claim", "closest", "rows", "beside", "fits", "gradients", "search"
        and, where they are measured, "costs".
    """
    texts = {
        "claim": markdown(*tables.claim()),
        "closest": markdown(*tables.closest()),
        "rows": markdown(*tables.rows()),
        "beside": markdown(*tables.beside()),
        "fits": markdown(*tables.fits()),
        "gradients": markdown(*tables.gradients()),
        "search": markdown(*tables.search()),
    }
    costs = read_costs(tables.results.study)
    if costs:
        texts["costs"] = markdown(*cost_table(costs))
    return texts


def read_costs(study):
    """The costs kept beside the records; None before they are measured."""
    path = study.records_folder / "costs.json"
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8"))
