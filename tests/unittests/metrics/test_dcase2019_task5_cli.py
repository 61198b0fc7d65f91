"""The command iusp-evaluate: output, warnings, one line for every error.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import importlib.metadata
import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from iusp_plugin.dataio.taxonomy import COARSE_TAGS
from iusp_plugin.metrics import dcase2019_task5 as task5
from tests.reference import task5_loops
from tests.reference.task5_small import (
    EXPECTED,
    FILENAMES,
    levels,
    small_set,
    write_annotations,
)

MODULE = "iusp_plugin.metrics.dcase2019_task5"


def run(predictions, annotations, *more):
    """The finished command."""
    command = [sys.executable, "-m", MODULE, "--predictions", predictions]
    return subprocess.run(
        [*command, "--annotations", annotations, *more],
        capture_output=True,
        text=True,
    )


def one_error(result):
    """The only line on stderr of a command that failed as it should."""
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("iusp-evaluate: error: ")
    return line


@pytest.fixture
def small(tmp_path):
    """Prediction and annotation file of the small set."""
    parts = levels(small_set()[1])
    predictions = tmp_path / "predictions.csv"
    task5.write_predictions(
        predictions, FILENAMES, parts["fine"], parts["coarse"]
    )
    annotations = tmp_path / "annotations.csv"
    write_annotations(annotations)
    return predictions, annotations


def read_rows(path):
    """Rows of a CSV file, as dicts."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path, rows):
    """Dicts to a CSV file."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def spoilers():
    """Recipes that must fail: id, what to do, what the error says."""

    def duplicate(rows):
        return [*rows, rows[0]]

    def extra(rows):
        return [*rows, {**rows[0], "audio_filename": "99_999999.wav"}]

    def unnamed(rows):
        return [
            {k: v for k, v in row.items() if k != "audio_filename"}
            for row in rows
        ]

    def cells(text):
        new = {"1-1_small-sounding-engine": text, "1_engine": text}
        return lambda rows: [{**rows[0], **new}, *rows[1:]]

    first = r"00_\d{6}.wav"
    return {
        "e1": (lambda rows: rows[1:], rf"lack 1 files \({first}\): add"),
        "e2": (extra, r"1 files \(99_999999.wav\): remove"),
        "e3": (duplicate, rf"p.csv, line \d+: '{first}' has a row"),
        "e4": (unnamed, "p.csv has no column 'audio_filename'"),
        "e5": (cells(""), rf"{first}, column 1_engine: no number"),
        "e6": (cells("1.5"), rf"{first}, column 1_engine: 1.5 is above 1"),
        "text": (
            cells("high"),
            r"line 2 .*column 1_engine: 'high' is no number",
        ),
    }


@pytest.mark.parametrize("recipe", spoilers())
@pytest.mark.parametrize("level", ["both", "coarse"])
def test_bad_predictions_fail_with_one_line(small, tmp_path, recipe, level):
    predictions, annotations = small
    spoil, message = spoilers()[recipe]
    write_rows(tmp_path / "p.csv", spoil(read_rows(predictions)))
    out = tmp_path / "scores.json"
    result = run(
        tmp_path / "p.csv", annotations, "--json", out, "--level", level
    )
    assert re.search(message, one_error(result))
    assert not out.exists()


@pytest.mark.parametrize("recipe", ["e1", "e2", "e3", "e4", "e5", "e6"])
def test_published_errors_fail(reference_task5, tmp_path, recipe):
    spoil, _ = spoilers()[recipe]
    rows = read_rows(reference_task5 / "predictions/d3_constant.csv")
    write_rows(tmp_path / "p.csv", spoil(rows))
    annotations = reference_task5 / "annotations-dev.csv"
    one_error(run(tmp_path / "p.csv", annotations))


def published(reference_task5, recipe):
    """Expected values of a published recipe."""
    path = reference_task5 / "expected_errors.json"
    for case in json.loads(path.read_text())["cases"]:
        if case["id"].startswith(recipe):
            return case["expected"]
    raise KeyError(recipe)


def assert_published(found, expected):
    """The published metrics are met."""
    assert expected.pop("status") == "ok"
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-9, rel=0)


def test_published_e7_class_without_positives(reference_task5, tmp_path):
    truth_rows = [
        row
        for row in read_rows(reference_task5 / "annotations-dev.csv")
        if row["annotator_id"] == "0" and float(row["8_dog_presence"]) == 0
    ]
    assert len(truth_rows) == 437
    kept = {row["audio_filename"] for row in truth_rows}
    rows = read_rows(reference_task5 / "predictions/d3_constant.csv")
    rows = [row for row in rows if row["audio_filename"] in kept]
    write_rows(tmp_path / "a.csv", truth_rows)
    write_rows(tmp_path / "p.csv", rows)
    out = tmp_path / "scores.json"
    result = run(tmp_path / "p.csv", tmp_path / "a.csv", "--json", out)
    assert result.returncode == 0
    [line] = result.stderr.splitlines()
    assert "warning: coarse category 8_dog: " in line
    scores = json.loads(out.read_text())
    assert_published(scores["fine"], published(reference_task5, "e7")["fine"])
    truth = task5.read_truth(tmp_path / "a.csv").coarse.tolist()
    constant = [[0.5] * 8 for _ in truth]
    expected = task5_loops.scores(truth, constant, "coarse")
    assert expected["classwise_auprc"]["8"] == 0.0
    assert scores["coarse"]["classwise_auprc"] == pytest.approx(
        expected["classwise_auprc"], abs=1e-12
    )
    assert scores["coarse"]["macro_auprc"] == pytest.approx(
        expected["macro_auprc"], abs=1e-12
    )


@pytest.mark.parametrize(
    ("recipe", "warning"),
    [
        ("e8", "negative values, which are never predicted present, in: 8-1"),
        ("e9", "lacks 29 tag columns, filled with zeros: 1-1_small"),
    ],
)
def test_published_accepted_oddities(
    reference_task5, tmp_path, recipe, warning
):
    rows = read_rows(reference_task5 / "predictions/d3_constant.csv")
    if recipe == "e8":
        dog = {"8-1_dog-barking-whining": "-1.0", "8_dog": "-1.0"}
        rows = [{**row, **dog} for row in rows]
    else:
        wanted = ["audio_filename", *COARSE_TAGS]
        rows = [{k: row[k] for k in wanted} for row in rows]
    write_rows(tmp_path / "p.csv", rows)
    out = tmp_path / "scores.json"
    annotations = reference_task5 / "annotations-dev.csv"
    result = run(tmp_path / "p.csv", annotations, "--json", out)
    assert result.returncode == 0
    [line] = result.stderr.splitlines()
    assert line.startswith("iusp-evaluate: warning: ")
    assert warning in line
    scores = json.loads(out.read_text())
    for level, expected in published(reference_task5, recipe).items():
        assert_published(scores[level], expected)


def test_table_json_and_silence(small, tmp_path):
    out = tmp_path / "scores.json"
    result = run(*small, "--json", out)
    assert (result.returncode, result.stderr) == (0, "")
    scores = json.loads(out.read_text())
    assert list(scores) == ["coarse", "fine"]
    for level, found in scores.items():
        micro, f1, classwise = EXPECTED[level, "official"]
        assert found == {
            "micro_auprc": pytest.approx(micro, abs=1e-12),
            "micro_f1": pytest.approx(f1, abs=1e-12),
            "macro_auprc": pytest.approx(np.mean(classwise), abs=1e-12),
            "classwise_auprc": {
                str(c): pytest.approx(value, abs=1e-12)
                for c, value in enumerate(classwise, 1)
            },
        }
    lines = result.stdout.splitlines()
    assert lines[0] == "40 files, ties official"
    assert lines[1].split() == ["coarse", "fine"]
    assert lines[2].split() == ["micro-AUPRC", "0.614593", "0.704736"]
    assert lines[-1].split() == ["AUPRC", "8_dog", "0.319583", "0.629167"]
    assert len({len(line) for line in lines[1:]}) == 1
    assert len(lines) == 2 + 3 + 8


def test_level_ties_and_split(small, tmp_path):
    out = tmp_path / "scores.json"
    more = ["--level", "fine", "--ties", "stable", "--split", "validate"]
    result = run(*small, "--json", out, *more)
    assert result.returncode == 0
    scores = json.loads(out.read_text())
    assert list(scores) == ["fine"]
    assert scores["fine"]["micro_auprc"] == pytest.approx(
        EXPECTED["fine", "stable"][0], abs=1e-12
    )
    message = one_error(run(*small, "--split", "test"))
    assert "split='test'; splits that have some: validate" in message


def test_byte_order_mark_and_crlf_change_nothing(small, tmp_path):
    expected = run(*small).stdout
    marked = []
    for path in small:
        text = path.read_bytes().replace(b"\r\n", b"\n")
        other = tmp_path / f"marked_{path.name}"
        other.write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
        marked.append(other)
    result = run(*marked)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == expected


def test_files_that_are_not_there(small, tmp_path):
    predictions, annotations = small
    message = one_error(run(tmp_path / "none.csv", annotations))
    assert "none.csv: No such file or directory; check the path." in message
    message = one_error(run(tmp_path, annotations))
    assert "Is a directory" in message
    out = tmp_path / "nowhere" / "scores.json"
    message = one_error(run(predictions, annotations, "--json", out))
    assert "No such file or directory" in message


def test_unknown_choice_is_a_usage_error(small):
    result = run(*small, "--level", "coarse_")
    assert result.returncode == 2
    assert "invalid choice: 'coarse_'" in result.stderr


def test_entry_point_is_main():
    [entry] = importlib.metadata.entry_points(
        group="console_scripts", name="iusp-evaluate"
    )
    assert entry.load() is task5.main


def test_main_in_process(small, capsys):
    predictions, annotations = map(str, small)
    args = ["--predictions", predictions, "--annotations", annotations]
    assert task5.main(args) == 0
    assert "micro-AUPRC" in capsys.readouterr().out
    assert task5.main([*args, "--split", "x"]) == 2
    assert "error: " in capsys.readouterr().err


def test_command_imports_neither_torch_nor_pandas_nor_sklearn(small):
    predictions, annotations = map(str, small)
    code = (
        f"import sys; from {MODULE} import main; "
        f"main(['--predictions', {predictions!r}, "
        f"'--annotations', {annotations!r}]); "
        "heavy = {'torch', 'pandas', 'sklearn', 'speechbrain', 'scipy'}; "
        "print('heavy', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert result.stdout.splitlines()[-1] == "heavy []"


def test_whole_process_takes_less_than_two_seconds(reference_task5):
    start = time.perf_counter()
    result = run(
        reference_task5 / "predictions/d1_uniform.csv",
        reference_task5 / "annotations-dev.csv",
    )
    assert result.returncode == 0
    assert time.perf_counter() - start < 2.0
