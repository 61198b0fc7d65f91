"""What the recipe's options do, in this process.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import json
import re

import pytest

FIGURES = ("micro_auprc", "macro_auprc", "micro_f1")


def _figures(record, level="coarse"):
    """The headline figures of a record."""
    scores = record["splits"]["validate"][level]
    return [scores[name] for name in FIGURES]


@pytest.mark.parametrize("student", ["cnn_lstm_small", "mobilenetv2_narrow"])
def test_other_students_are_distilled(student, runs, train):
    """Recurrent and depthwise students take all terms at once."""
    runs.made("teacher")
    weights = ("--kd_weight=1.0", "--sp_weight=1.0", f"--student={student}")
    record = train("iusp", student, *weights)
    assert record["model"] == student
    log = (runs.base / student / "train_log.txt").read_text()
    for term in ("label", "kd", "sp", "iusp"):
        assert f"train {term}: " in log


@pytest.mark.parametrize("level, n_outputs", [("coarse", 8), ("fine", 23)])
def test_one_level(level, n_outputs, runs, train):
    """A student of one level has fewer outputs and is scored on it."""
    record = train("student", level, f"--level={level}")
    assert list(record["splits"]["validate"]) == (
        ["coarse"] if level == "coarse" else ["fine"]
    )
    settings = json.loads((runs.base / level / "run.json").read_text())
    assert settings["n_classes"] == n_outputs
    both = runs.scores(runs.made("student"))
    # 48 features an output, and its bias.
    assert both["params"] - record["params"] == (31 - n_outputs) * 49


def test_features_on_the_fly_score_alike(runs, train):
    """The feature store is a store: it changes time, not figures."""
    runs.made("teacher")
    stored = runs.scores(runs.made("iusp"))
    record = train("iusp", "on_the_fly", "--feature_store=False")
    assert _figures(record) == pytest.approx(_figures(stored), abs=1e-3)


def test_gradient_accumulation(runs, train):
    """Two batches a step train otherwise, and belong to the run."""
    record = train("student", "accumulated", "--grad_accumulation_factor=2")
    plain = runs.scores(runs.made("student"))
    assert _figures(record) != _figures(plain)
    with pytest.raises(ValueError, match="grad_accumulation_factor: 2 there"):
        train("student", "accumulated")


def test_patience_stops_and_stays_stopped(runs, train, scripts, monkeypatch):
    """Without progress the run ends early, and does not go on afterwards."""
    brain, falling = scripts("train").TaggingBrain, iter((0.5, 0.4, 0.3, 0.2))
    headline = brain._headline

    def fall(self, scores):
        return headline(self, scores) | {"micro_auprc": next(falling)}

    monkeypatch.setattr(brain, "_headline", fall)
    flags = ("--patience=1", "--number_of_epochs=4")
    record = train("student", "patience", *flags)
    log = (runs.base / "patience" / "train_log.txt").read_text()
    assert [line[:8] for line in log.splitlines()] == ["epoch: 1", "epoch: 2"]
    assert train("student", "patience", *flags)["splits"] == record["splits"]
    assert (runs.base / "patience" / "train_log.txt").read_text() == log


def test_an_interrupted_run_goes_on(runs, train, scripts, monkeypatch):
    """Epochs done are not done again, and the log has each of them once."""
    flags = ("--number_of_epochs=2",)
    brain, stops = scripts("train").TaggingBrain, [2]
    start = brain.on_stage_start

    def stop(self, stage, epoch=None):
        if epoch in stops:
            raise KeyboardInterrupt
        start(self, stage, epoch)

    monkeypatch.setattr(brain, "on_stage_start", stop)
    with pytest.raises(KeyboardInterrupt):
        train("student", "interrupted", *flags)
    log = runs.base / "interrupted" / "train_log.txt"
    assert len(log.read_text().splitlines()) == 1
    assert not (runs.base / "interrupted" / "scores.json").exists()
    stops.clear()
    train("student", "interrupted", *flags)
    lines = log.read_text().splitlines()
    assert [line[:8] for line in lines] == ["epoch: 1", "epoch: 2"]


def test_tensorboard(runs, train):
    """Events are written where the YAML says, if asked for."""
    train("student", "board", "--use_tensorboard=True")
    assert list((runs.base / "board" / "tensorboard").rglob("events.*"))
    assert not (runs.made("student") / "tensorboard").exists()


def test_augmentation_and_precision(runs, train):
    """Every augmentation on, in both precisions, trains."""
    flags = ("--mix_probability=1.0", "--colour_db=6.0", "--n_time_masks=2")
    flags += ("--n_freq_masks=2", "--kd_weight=1.0", "--sp_weight=1.0")
    runs.made("teacher")
    figures = [
        _figures(train("iusp", f"all_{name}", *flags, f"--precision={name}"))
        for name in ("fp32", "bf16")
    ]
    plain = _figures(runs.scores(runs.made("iusp")))
    assert plain not in figures
    log = (runs.base / "all_fp32" / "log.txt").read_text()
    assert "epochs, precision fp32" in log


def test_debug_does_not_pass_for_a_run(runs, train):
    """Two batches are no training: the folder says so."""
    runs.train("student", "debug", "--debug")
    assert not list((runs.base / "debug" / "save").glob("CKPT*"))
    with pytest.raises(ValueError, match=r"debug: True there, '\(absent\)'"):
        train("student", "debug")


def test_only_testing(runs, train):
    """--test_only scores the best checkpoint, and needs one."""
    with pytest.raises(FileNotFoundError, match="no checkpoint in .*; train"):
        train("student", "untrained", "--test_only")
    folder = runs.made("student")
    before = runs.scores(folder)["splits"]
    log = (folder / "train_log.txt").read_text()
    assert train("student", folder, "--test_only")["splits"] == before
    assert (folder / "train_log.txt").read_text() == log


def test_a_term_of_weight_zero_needs_no_teacher(runs, train):
    """Without terms a distilled YAML trains on labels alone."""
    flags = ("--kd_weight=0.0", "--teacher_folder=nowhere")
    record = train("kd", "no_terms", *flags)
    assert record["params"] == runs.scores(runs.made("student"))["params"]
    log = (runs.base / "no_terms" / "train_log.txt").read_text()
    assert "train label: " in log and "train kd: " not in log


def test_half_of_the_validation_clips_is_held_out(runs, train):
    """By file name; epochs are chosen on one half, both are scored."""
    record = train("student", "halves", "--validate_on=even")
    assert list(record["splits"]) == ["validate", "held_out"]
    names = {}
    for split in ("validate", "held_out"):
        path = runs.base / "halves" / f"predictions-{split}.csv"
        with path.open(newline="") as stream:
            rows = csv.DictReader(stream)
            names[split] = {row["audio_filename"] for row in rows}
    whole = sorted(names["validate"] | names["held_out"])
    assert names["validate"] == set(whole[0::2])
    assert names["held_out"] == set(whole[1::2])
    log = (runs.base / "halves" / "train_log.txt").read_text()
    best = max(float(x) for x in re.findall(r"micro_auprc: ([\d.e+-]+)", log))
    found = record["splits"]["validate"]["coarse"]["micro_auprc"]
    assert found == pytest.approx(best, abs=1e-4)


def test_unknown_half(runs, train):
    """One clear error."""
    with pytest.raises(ValueError, match="all or even, got 'odd'"):
        train("student", "odd", "--validate_on=odd")


def test_a_schedule_ends_a_term(runs, train):
    """In the second half the term is computed and weighs nothing."""
    runs.made("teacher")
    train("iusp", "ends", "--iusp_schedule=first_half")
    log = (runs.base / "ends" / "train_log.txt").read_text()
    lines = [line for line in log.splitlines() if line.startswith("epoch")]
    for i, line in enumerate(lines):
        found = dict(re.findall(r"train (\w+): ([\d.e+-]+)", line))
        loss, label, iusp = (
            float(found[name]) for name in ("loss", "label", "iusp")
        )
        weight = 100.0 if i < len(lines) / 2 else 0.0
        assert iusp > 0
        assert loss == pytest.approx(label + weight * iusp, rel=1e-3)
