#!/usr/bin/env python3
"""Write the tables of the README files from the scores files.

The small scores files of finished runs are kept in scores/<data>/, copied
there by hand or by ``--collect``; those of a study in studies/<data>/, written
there by study.py. Nothing else feeds the tables.

To run it, use the following commands:
> python tables.py
> python tables.py --collect RESULTS_FOLDER --data real_ust

Authors
 * The iusp_plugin authors 2026
"""

import argparse
import json
import re
import shutil
from pathlib import Path

from study_plan import Study
from study_results import Results
from study_tables import Tables, readme_tables

HERE = Path(__file__).resolve().parent
SCORES = HERE / "scores"
# The study's declaration by the folder of its records.
STUDIES = {"real_ust": "study.yaml"}
READMES = (HERE / "README.md", HERE.parents[1] / "README.md")
METHODS = ("teacher", "plain", "kd", "sp", "iusp")
FIGURES = ("micro_auprc", "macro_auprc", "micro_f1")


def read_scores(folder):
    """Records of one data set, ordered by network and method."""
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.json"))
    ]
    known = {name: rank for rank, name in enumerate(METHODS)}
    return sorted(
        records,
        key=lambda r: (
            r["method"] != "teacher",
            r["model"],
            known.get(r["method"], len(known)),
            r["method"],
            r["seed"],
        ),
    )


def markdown_table(records):
    """One row a run: coarse figures, then fine ones, of held-out clips if any."""
    lines = [
        "| network | method | seed | parameters | MACs | "
        "coarse micro-AUPRC | macro-AUPRC | micro-F1 | "
        "fine micro-AUPRC | macro-AUPRC | micro-F1 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records:
        splits = record["splits"]
        levels = splits.get("held_out", splits["validate"])
        figures = [
            f"{levels[level][name]:.3f}"
            for level in ("coarse", "fine")
            for name in FIGURES
        ]
        cells = [
            f"`{record['model']}`",
            record["method"],
            str(record["seed"]),
            f"{record['params']:,}",
            f"{record['macs'] / 1e6:.0f} M",
            *figures,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fill(text, tables):
    """Replace what stands between each table's two marks."""
    for name, table in tables.items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(
            pattern,
            lambda match, table=table: match[1] + table + "\n" + match[2],
            text,
            flags=re.S,
        )
    return text


def collect(results, data):
    """Copy the scores files of finished runs into scores/<data>/."""
    for path in sorted(Path(results).rglob("scores.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        parts = (record["method"], record["model"], f"{record['seed']}.json")
        target = SCORES.joinpath(data, *parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def all_tables():
    """Every table by its name: those of the scores, then of the studies."""
    tables = {
        folder.name: markdown_table(read_scores(folder))
        for folder in sorted(SCORES.iterdir())
    }
    for data, declaration in STUDIES.items():
        folder = HERE / "studies" / data
        study = Study(HERE / declaration, {"records_folder": str(folder)})
        for name, table in readme_tables(Tables(Results(study))).items():
            tables[f"study_{data}_{name}"] = table
    return tables


def main():
    """Collect if asked; then write every table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--collect", help="folder of finished runs")
    parser.add_argument("--data", help="name of the data they were made on")
    arguments = parser.parse_args()
    if bool(arguments.collect) != bool(arguments.data):
        parser.error("--collect and --data go together")
    if arguments.collect:
        collect(arguments.collect, arguments.data)
    tables = all_tables()
    for readme in READMES:
        text = readme.read_text(encoding="utf-8")
        readme.write_text(fill(text, tables), encoding="utf-8")


if __name__ == "__main__":
    main()
