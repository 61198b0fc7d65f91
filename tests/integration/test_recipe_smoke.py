"""The rows of tests/recipes run, and leave behind what they promise.

Each row is one real run of train.py by a process of its own.

Authors
 * The iusp_plugin authors 2026
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROWS = ("teacher", "student", "kd", "sp", "iusp")
COMBINED = "kd_iusp"

# A log's line: "epoch: 1, lr: ... - train loss: ..., ... - valid ...".
TERMS = {
    "teacher": {"label"},
    "student": {"label"},
    "kd": {"label", "kd"},
    "sp": {"label", "sp"},
    "iusp": {"label", "iusp"},
    COMBINED: {"label", "kd", "iusp"},
}


@pytest.fixture(scope="module", params=[*ROWS, COMBINED])
def finished(request, runs):
    """Name and folder of each finished run."""
    if request.param in ROWS:
        return request.param, runs.made(request.param)
    runs.made("teacher")
    folder = runs.base / COMBINED
    runs.train("iusp", folder, "--kd_weight=2.0", f"--method={COMBINED}")
    return COMBINED, folder


def _train_line(folder: Path) -> dict[str, float]:
    """Figures of the last line of the text log."""
    line = (folder / "train_log.txt").read_text().splitlines()[-1]
    pairs = re.findall(r"(?:^|[ ,-] ?)([a-z0-9_ ]+): ([-+.e\d]+)", line)
    named, stage = {}, ""
    for name, value in pairs:
        words = name.split()
        stage = words[0] if len(words) == 2 else stage
        named[f"{stage} {words[-1]}".strip()] = float(value)
    return named


def test_files_and_bounds(finished, runs):
    """The row's own checks, as the host's runner makes them."""
    name, folder = finished
    checks = runs.rows[name if name in ROWS else "iusp"]["test_debug_checks"]
    files = re.search(r"file_exists=\[(.+?)\]", checks)[1].split(",")
    assert len(files) > 5
    for file in files:
        assert (folder / file.strip()).is_file(), file
    performance = re.search(r"performance_check=\[(.+?)\]", checks)[1]
    file, variable, bound, epoch = map(str.strip, performance.split(","))
    line = (folder / file).read_text().splitlines()[0]
    assert epoch in line
    value = float(re.search(rf"{variable}: ([-+.e\d]+)", line)[1])
    limit = float(bound.removeprefix("<="))
    assert 0 < value <= limit + 2.0 * (name == COMBINED)


def test_scores_record(finished):
    """scores.json says what was run, with what, and how it scored."""
    name, folder = finished
    record = json.loads((folder / "scores.json").read_text())
    assert list(record) == [
        "model",
        "method",
        "seed",
        "params",
        "macs",
        "command",
        "processes",
        "versions",
        "splits",
    ]
    assert record["model"] == (
        "cnn_teacher" if name == "teacher" else "cnn_20k"
    )
    assert record["method"] == {"student": "plain"}.get(name, name)
    assert record["seed"] == 1986
    assert 0 < record["params"] < record["macs"]
    assert record["command"].startswith("python ")
    assert "--embedded_train=24" in record["command"]
    assert {"python", "torch", "speechbrain"} <= record["versions"].keys()
    assert list(record["splits"]) == ["validate"]
    assert list(record["splits"]["validate"]) == ["coarse", "fine"]
    for scores in record["splits"]["validate"].values():
        assert list(scores) == [
            "micro_auprc",
            "micro_f1",
            "macro_auprc",
            "classwise_auprc",
        ]
        assert 0 < scores["micro_auprc"] < 1


def test_predictions_score_as_reported(finished, runs, tmp_path):
    """The official command on the official file gives the same figures."""
    _, folder = finished
    out = tmp_path / "scores.json"
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "iusp_plugin.metrics.dcase2019_task5",
            f"--predictions={folder / 'predictions-validate.csv'}",
            f"--annotations={runs.base}/DCASE2019_Task5_data/annotations-dev.csv",
            "--split=validate",
            f"--json={out}",
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    record = json.loads((folder / "scores.json").read_text())
    assert json.loads(out.read_text()) == record["splits"]["validate"]


def test_log_names_every_term(finished):
    """Each loss has its column, and the total is their weighted sum."""
    name, folder = finished
    figures = _train_line(folder)
    told = {key.removeprefix("train ") for key in figures if "train" in key}
    assert told == TERMS[name] | {"loss", "minutes"}
    settings = json.loads((folder / "run.json").read_text())
    total = sum(
        settings[f"{term}_weight"] * figures[f"train {term}"]
        for term in TERMS[name]
    )
    assert figures["train loss"] == pytest.approx(total, rel=2e-3)
    scores = json.loads((folder / "scores.json").read_text())["splits"]
    for key in ("micro_auprc", "macro_auprc", "micro_f1"):
        told = figures[f"valid {key}"]
        assert told == pytest.approx(
            scores["validate"]["coarse"][key], rel=1e-3
        )


def test_the_run_says_what_it_does(finished):
    """log.txt: network, its cost, the clips, the seed, the command."""
    name, folder = finished
    log = (folder / "log.txt").read_text()
    record = json.loads((folder / "scores.json").read_text())
    assert f"{record['params']:,} parameters" in log
    assert f"{record['macs'] / 1e6:.1f} M MACs" in log
    assert "clips {'train': 24, 'validate': 12}" in log
    assert f"seed {record['seed']}" in log
    assert record["command"] in log
    weights = {term for term in TERMS[name] if f"'{term}': " in log}
    assert weights == TERMS[name] - {"label"}


def test_checkpoint_metadata_are_plain(finished):
    """Numpy scalars there would make the folder unreadable later."""
    _, folder = finished
    (meta,) = (folder / "save").glob("CKPT*/CKPT.yaml")
    content = yaml.safe_load(meta.read_text())
    assert type(content["micro_auprc"]) is float
    assert type(content["epoch"]) is int
    stored = {path.name for path in meta.parent.iterdir()}
    assert {"model.ckpt", "front_end.ckpt", "counter.ckpt"} <= stored
    assert not any("teacher" in name for name in stored)


def test_terms_train_differently(runs):
    """No two methods give the same student."""
    predictions = {
        (runs.made(name) / "predictions-validate.csv").read_text()
        for name in ("student", "kd", "sp", "iusp")
    }
    assert len(predictions) == 4


def test_started_again_it_trains_no_more(runs):
    """A finished run resumes, finds nothing to do, and scores the same."""
    folder = runs.made("student")
    log = (folder / "train_log.txt").read_text()
    before = runs.scores(folder)["splits"]
    result = runs.train("student", folder)
    assert "Going into epoch" not in result.stdout
    assert (folder / "train_log.txt").read_text() == log
    assert runs.scores(folder)["splits"] == before


def test_seeds_and_processes(runs):
    """The same command in another folder gives the same predictions."""
    folder = runs.made("iusp")
    runs.train("iusp", "iusp_again")
    first, second = (
        (path / "predictions-validate.csv").read_text()
        for path in (folder, runs.base / "iusp_again")
    )
    assert first == second
