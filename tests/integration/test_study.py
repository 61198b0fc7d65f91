"""Studies: declared, run by real processes, gone on with, reported.

Authors
 * The iusp_plugin authors 2026
"""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hyperpyyaml import load_hyperpyyaml

HERE = Path(__file__).resolve().parent
RECIPE = HERE.parents[1] / "recipes" / "DCASE2019_Task5"
TINY = HERE / "tiny_study.yaml"
STUDIES = sorted(RECIPE.glob("study*.yaml"))


def start(folder, *options, study=TINY):
    """Start study.py in a folder, as a user would."""
    return subprocess.Popen(
        [sys.executable, str(RECIPE / "study.py"), str(study), *options],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def records(folder):
    """Content of the records by name."""
    folder = folder / "study" / "records"
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())
        for path in sorted(folder.rglob("*.json"))
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that was killed once, then done by two commands together."""
    folder = tmp_path_factory.mktemp("study")
    first = start(folder, "--workers=2")
    # Killed in the middle of the first trial of the search.
    logs = folder / "study" / "logs" / "search"
    deadline = time.time() + 240
    while time.time() < deadline and not list(logs.rglob("*.log")):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=300)
    both = [start(folder, "--workers=2") for _ in range(2)]
    outputs = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    return folder, outputs


def test_each_run_is_done_once(finished):
    """Two commands share the runs; a folder is complete or absent."""
    folder, outputs = finished
    found = records(folder)
    rows = [f"rows/{m}/cnn_20k/{s}.json" for m in METHODS for s in (1, 2)]
    trials = [f"search/{t}/{i}.json" for t in ("sp", "iusp") for i in range(3)]
    others = ["teacher/first.json", "settings.json", "costs.json"]
    others.append("gradients/iusp/cnn_20k/0.json")
    assert sorted(found) == sorted(rows + trials + others)
    for name in rows:
        lines = [o.count(f"{name[:-5]}: micro-AUPRC") for o in outputs]
        assert sum(lines) == 1
        log = folder / "study" / "logs" / f"{name[:-5]}.log"
        assert log.read_text().count("Going into epoch 1\n") == 1
    for name in rows + trials:
        run = folder / "study" / "runs" / name[:-5]
        assert (run / "model.ckpt").is_file()
    assert not list((folder / "study" / "running").rglob("*.yaml"))
    # Who deletes a teacher's cache deletes what says that it is complete.
    marks = list((folder / "study" / "runs").rglob("stored-*.json"))
    assert {mark.parent.name for mark in marks} == {"cache"}
    assert all("13 of 13 done" in output for output in outputs)


METHODS = ("plain", "sp", "iusp")


def test_records_are_small_and_complete(finished):
    """Scores of both halves, the curve, the command, no machine's paths."""
    folder, _ = finished
    for name, record in records(folder).items():
        if not name.startswith(("rows", "search", "teacher", "gradients")):
            continue
        assert set(record["splits"]) == {"validate", "held_out"}
        assert record["minutes"] > 0 and record["threads"] >= 1
        text = json.dumps(record)
        assert str(folder) not in text
        assert len(text) < 10_000
        if not name.startswith("teacher"):
            assert [e["epoch"] for e in record["curve"]] == [1, 2]
        if record["method"] != "plain":
            assert len(record["teacher_sha256"]) == 64


def test_settings_come_from_the_best_trial(finished):
    """On the tuning half; the first trial is the declared start."""
    folder, _ = finished
    found = records(folder)
    settings = found["settings.json"]["settings"]
    assert found["settings.json"]["trials"] == {"sp": 3, "iusp": 3}
    changes = {"sp": {"pooling": "mean"}, "iusp": {"schedule": "first_half"}}
    for term in ("sp", "iusp"):
        trials = [found[f"search/{term}/{i}.json"] for i in range(3)]

        def best(some, term=term):
            def score(record):
                levels = record["splits"]["validate"]
                return levels["coarse"]["micro_auprc"]

            return max(some, key=score)["settings"][term]

        # The last one changes the best of those before.
        changed = {**best(trials[:2]), **changes[term]}
        assert trials[2]["settings"][term] == changed
        assert settings[term] == best(trials)
        row = found[f"rows/{term}/cnn_20k/1.json"]
        assert row["settings"] == {term: settings[term]}
        assert f"--{term}_weight={settings[term]['weight']}" in row["command"]
    weights = [found[f"search/sp/{i}.json"]["settings"]["sp"] for i in (0, 1)]
    assert weights[0]["weight"] == 10.0 != weights[1]["weight"]


def test_the_same_command_does_nothing_more(finished):
    """Also without the search's file, the runs and the teacher's weights."""
    folder, _ = finished
    before = records(folder)
    study = folder / "study"
    (study / "search.db").unlink()
    (study / "runs").rename(study / "elsewhere")
    try:
        again = start(folder)
        output, _ = again.communicate(timeout=120)
        assert again.returncode == 0, output
        assert "training" not in output
        assert records(folder) == before
    finally:
        (study / "elsewhere").rename(study / "runs")
    # The pictures that need weights were left out; now they are there again.
    again = start(folder, "--report_only")
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0 and "done" not in output, output


def test_a_lost_search_is_made_anew_from_the_records(
    finished, scripts, monkeypatch
):
    """With the trials' settings and scores to the last digit."""
    folder, _ = finished
    monkeypatch.chdir(folder)
    study = scripts("study_plan").Study(TINY)
    search_module = scripts("study_search")
    launcher = scripts("study_queue").Launcher(folder / "study")
    (folder / "study" / "search.db").unlink(missing_ok=True)
    search = search_module.Search(study, launcher)
    assert search.next_runs() == []
    for term in ("sp", "iusp"):
        drawn = search._open(term).trials
        assert [t.value for t in drawn] == [
            search_module.score(r) for r in search._records(term)[:2]
        ]
    kept = json.loads(study.settings_path.read_text())["settings"]
    assert search.settings() == kept


def test_other_settings_are_refused(finished, tmp_path):
    """A record made with other options is not passed off as done."""
    folder, _ = finished
    text = TINY.read_text().replace(
        "number_of_epochs: 2", "number_of_epochs: 3"
    )
    other = tmp_path / "other.yaml"
    other.write_text(text)
    process = start(folder, study=other)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "was made with other settings" in output
    assert "--number_of_epochs=3" in output


def test_gradients_are_measured_and_change_nothing(finished, scripts, tmp_path):
    """The run is train.py's; each epoch says what the terms pulled at."""
    folder, _ = finished
    record = records(folder)["gradients/iusp/cnn_20k/0.json"]
    assert record["command"].startswith("python gradients.py hparams/iusp.yaml")
    assert [entry["epoch"] for entry in record["gradients"]] == [1, 2]
    for entry in record["gradients"]:
        label, iusp = entry["losses"]["label"], entry["losses"]["iusp"]
        assert label["ratio"] == pytest.approx(1.0)
        assert label["cosine"] == pytest.approx(1.0)
        assert -1 < iusp["cosine"] < 1
        assert iusp["norm"] >= 0
    first, second = (e["losses"]["iusp"] for e in record["gradients"])
    assert first["norm"] > 0
    if record["settings"]["iusp"]["schedule"] == "first_half":
        assert second == {"norm": 0.0, "ratio": 0.0, "cosine": 0.0}
    run = folder / "study" / "runs" / "gradients" / "iusp" / "cnn_20k" / "0"
    words = record["command"].replace("gradients.py", "train.py").split()[2:]
    words = [str(RECIPE / words[0]), *words[1:]]
    teacher = folder / "study" / "runs" / "teacher" / "first"
    words += [f"--teacher_folder={teacher}", f"--cache_folder={folder}/cache"]
    words.append(f"--output_folder={tmp_path / 'again'}")
    subprocess.run(
        [sys.executable, str(RECIPE / "train.py"), *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": str(record["threads"])},
        check=True,
        capture_output=True,
    )
    same = (tmp_path / "again" / "model.ckpt").read_bytes()
    assert (run / "model.ckpt").read_bytes() == same


def test_another_data_folder_is_refused(finished, scripts, tmp_path):
    """Figures of one data set are not passed off as those of another."""
    folder, _ = finished
    queue, plan = scripts("study_queue"), scripts("study_plan")
    where = {"records_folder": str(tmp_path / "records")}
    for name, text in (("a", "one"), ("b", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "annotations-dev.csv").write_text(text)
    one, two = (
        plan.Study(TINY, where | {"data_folder": str(tmp_path / name)})
        for name in ("a", "b")
    )
    run = one.student_run("plain", "cnn_20k", 1, {})
    made = folder / "study" / "runs" / run.name
    record = queue.make_record(made, run) | {"data": one.data_digest()}
    path = one.record_path(run)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    assert queue.is_done(one, run)
    with pytest.raises(ValueError, match="other settings(.|\n)*data"):
        queue.is_done(two, run)


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        attrs = dict(attrs)
        self.sources += [attrs[k] for k in ("src", "href") if k in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_report_needs_nothing_else(finished):
    """One page: well formed, pictures inside, no address in it."""
    folder, _ = finished
    text = (folder / "study" / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    kinds = [
        re.match(r"data:image/(png|svg\+xml);base64,", s) for s in page.sources
    ]
    assert all(kinds)
    # Gains, costs, classes, curves, gradients, search: files as well.
    assert [kind[1] for kind in kinds].count("svg+xml") == 6
    pictures = (folder / "study" / "pictures").glob("*.svg")
    assert {path.stem for path in pictures} == {
        *("the-claim", "costs", "classes", "learning-curves"),
        *("gradients", "search"),
    }
    # Frame similarities of the clips that have the tags to draw.
    assert 1 <= [kind[1] for kind in kinds].count("png") <= 3
    for source in page.sources:
        assert len(base64.b64decode(source.partition(",")[2])) > 3000
    words = " ".join(page.words)
    for needed in ("The claim", "d > 0", "cnn_20k", "tuning half", "Search"):
        assert needed in words
    assert "label loss, tuning half" in words


def test_report_says_what_the_records_say(finished, scripts, monkeypatch):
    """Means, gains and d of the tables, recomputed here."""
    folder, _ = finished
    monkeypatch.chdir(folder)
    found = records(folder)
    held = {
        method: [
            found[f"rows/{method}/cnn_20k/{seed}.json"]["splits"]["held_out"][
                "coarse"
            ]["micro_auprc"]
            for seed in (1, 2)
        ]
        for method in METHODS
    }
    text = (folder / "study" / "report.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    gains = {
        method: [a - b for a, b in zip(values, held["plain"], strict=True)]
        for method, values in held.items()
    }
    claim = next(row for row in rows if row[:3] == ["cnn_20k", "first", "2"])
    d = [i - 1.27 * s for i, s in zip(gains["iusp"], gains["sp"], strict=True)]
    assert claim[6].startswith(f"{sum(d) / 2:+.3f} [")
    assert claim[3].startswith(f"{sum(gains['sp']) / 2:+.3f} [")
    iusp = next(row for row in rows if row[1] == "iusp")
    assert iusp[3].startswith(f"{sum(held['iusp']) / 2:.3f} ± ")
    assert iusp[4].startswith(f"{sum(gains['iusp']) / 2:+.3f} [")


def test_stopped_while_workers_start(scripts, tmp_path, monkeypatch):
    """Those that are at work already end; the command does not wait on."""
    monkeypatch.chdir(tmp_path)
    module = scripts("study")
    study = scripts("study_plan").Study(TINY)
    launcher = scripts("study_queue").Launcher(study.output_folder)
    work = module.Work(study, launcher, workers=2)
    ended = []
    work.serve = lambda *_: ended.append(launcher.stopped.wait(30))

    class Pool(module.ThreadPoolExecutor):
        def submit(self, function, worker, *more):
            if worker == 1:
                raise SystemExit(143)  # what SIGTERM does
            return super().submit(function, worker, *more)

    monkeypatch.setattr(module, "ThreadPoolExecutor", Pool)
    with pytest.raises(SystemExit):
        work.share(list)
    assert ended == [True]


def test_time_is_up(scripts, tmp_path, monkeypatch):
    """Without time left nothing is started, and that is no failure."""
    monkeypatch.chdir(tmp_path)
    study = scripts("study_plan").Study(TINY)
    work = scripts("study").run_study(study, workers=1, max_minutes=-1.0)
    assert not work.failures
    assert not list(tmp_path.rglob("*.log"))
    # A run that would take longer than what is left waits for another time.
    queue = scripts("study_queue")
    launcher = queue.Launcher(study.output_folder)
    work = scripts("study").Work(study, launcher, max_minutes=10.0)
    run = study.student_run("plain", "cnn_20k", 1, {})
    assert work.may_start(run)
    work._note_time(run.facts | {"minutes": 9.0, "threads": 1})
    assert work.may_start(run)
    for minutes in (11.0, 12.0):
        work._note_time(run.facts | {"minutes": minutes, "threads": 1})
    assert not work.may_start(run)
    # So does another teacher, which has all the cores as the first one had.
    teacher = study.teacher_run("first")
    assert work.may_start(teacher)
    cores = work.threads(teacher.facts)
    work._note_time(teacher.facts | {"minutes": 31.0, "threads": cores})
    assert not work.may_start(teacher)


def test_failures_are_named_and_end_the_study(scripts, tmp_path, monkeypatch):
    """A failing run costs one run; three of them end the study."""
    monkeypatch.chdir(tmp_path)
    text = TINY.read_text().replace("trials: 2", "trials: 0")
    text = text.replace("    batch_size: 8\n", "    batch_size: 999\n")
    text = text.replace("seeds: [1, 2]", "seeds: [1, 2, 3, 4, 5]")
    text = text.replace("methods: [plain, sp, iusp]", "methods: [plain]")
    text = re.sub(r"    - .*gradients: True}\n", "", text)
    yaml = tmp_path / "wrong.yaml"
    yaml.write_text(text)
    process = start(tmp_path, "--workers=1", study=yaml)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "batch_size=999 exceeds the 24 training clips" in output
    assert "Three runs have failed; nothing more is started." in output
    assert output.count("failed: exit status 1") == 3


def test_ended_in_the_main_thread(scripts, tmp_path):
    """A teacher's process ends with the command that started it."""
    launcher = scripts("study_queue").Launcher(tmp_path)

    def end(*_):
        sys.exit(143)

    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(SystemExit):
            launcher.call(["sh", "-c", "echo $$; exec sleep 60"], "teacher")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    pid = int((tmp_path / "logs" / "teacher.log").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


class Failing:
    """Makes a launcher's runs fail where a name says so."""

    def __init__(self, queue, monkeypatch, names):
        self.asked = []

        def train(launcher, study, run, worker, threads, held):
            self.asked.append(run.name)
            folder = launcher.folder / "running" / run.name
            folder.mkdir(parents=True, exist_ok=True)
            facts = {"minutes": 0.0, "threads": 1, "command": run.shown()}
            path = folder / "study.json"
            if path.is_file():
                facts |= json.loads(path.read_text())
            path.write_text(json.dumps(facts))
            if any(name in run.name for name in names):
                raise queue.RunFailedError(f"{run.name} cannot be trained")
            scores = {"splits": made_up_splits(0.5)}
            (folder / "scores.json").write_text(json.dumps(scores))
            (folder / "train_log.txt").write_text("")
            (folder / "model.ckpt").write_text("")
            target = study.folder(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)

        monkeypatch.setattr(queue.Launcher, "_train", train)
        monkeypatch.setattr(
            queue.Launcher, "call", lambda self, words, *_: None
        )


def test_a_trial_that_cannot_be_trained_counts(scripts, tmp_path, monkeypatch):
    """Once is an accident; at the second time it is the setting."""
    monkeypatch.chdir(tmp_path)
    study = scripts("study_plan").Study(TINY)
    script = scripts("study")
    Failing(scripts("study_queue"), monkeypatch, ["search/sp/1"])
    work = script.run_study(study, workers=1)
    assert list(work.failures) == ["search/sp/1"]
    assert script.read_settings(study) is None
    work = script.run_study(study, workers=1)
    assert not work.failures
    path = tmp_path / "study" / "records" / "search" / "sp" / "1.json"
    record = json.loads(path.read_text())
    assert "cannot be trained" in record["failed"] and not record["splits"]
    assert script.read_settings(study)["sp"]["weight"] == 10.0
    results = scripts("study_results").Results(study)
    _, rows = scripts("study_tables").Tables(results).search()
    assert [row[-1] for row in rows].count("failed") == 1
    # Also where the search's file was lost.
    (tmp_path / "study" / "search.db").unlink()
    again = scripts("study_search").Search(study, work.launcher)
    assert again.next_runs() == []


def test_a_teacher_that_fails_leaves_the_others(scripts, tmp_path, monkeypatch):
    """Its rows are left out; those after them are done."""
    monkeypatch.chdir(tmp_path)
    text = TINY.read_text().replace("trials: 2", "trials: 0")
    text = text.replace(
        "    first: {", "    other: {seed: 2, width: 4}\n    first: {"
    )
    text = text.replace(
        "    other: {seed: 2, width: 4}\n    first:", "    first:"
    ).replace("\ntaps:", "    other: {seed: 2, width: 4}\n\ntaps:", 1)
    row = "    - {students: [cnn_20k], methods: [sp], seeds: [1], teacher: other}\n"
    text = text.replace("rows:\n", "rows:\n" + row)
    path = tmp_path / "two.yaml"
    path.write_text(text)
    study = scripts("study_plan").Study(path)
    assert study.teachers == ["first", "other"]
    Failing(scripts("study_queue"), monkeypatch, ["teacher/other"])
    work = scripts("study").run_study(study, workers=1)
    assert list(work.failures) == ["teacher/other"]
    names = set(study.records())
    assert "rows/sp@other/cnn_20k/1" not in names
    assert {f"rows/{m}/cnn_20k/{s}" for m in METHODS for s in (1, 2)} < names


def test_a_run_that_another_did_meanwhile_is_not_reported(
    scripts, tmp_path, monkeypatch, caplog
):
    """Listed as left by two commands, done by one: one line says so."""
    monkeypatch.chdir(tmp_path)
    study = scripts("study_plan").Study(TINY)
    script = scripts("study")
    failing = Failing(scripts("study_queue"), monkeypatch, [])
    launcher = scripts("study_queue").Launcher(tmp_path / "study")
    run = study.student_run("plain", "cnn_20k", 1, {})
    caplog.set_level("INFO")
    for _ in range(2):
        assert script.Work(study, launcher).attempt(run, 0, None)
    assert failing.asked == [run.name]
    assert caplog.text.count(f"{run.name}: micro-AUPRC") == 1


def test_the_gpus_that_the_user_chose(scripts, monkeypatch):
    """By their names, not by numbers from 0."""
    study = scripts("study")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert study.visible_gpus() == ["5", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert study.visible_gpus() == ["0", "1"]


def test_an_absent_data_folder_is_refused_at_once(scripts, tmp_path):
    """Unless it will be downloaded."""
    plan, study = scripts("study_plan"), scripts("study")
    absent = str(tmp_path / "no")
    declared = plan.Study(TINY, {"data_folder": absent})
    with pytest.raises(FileNotFoundError, match="no data folder .*no"):
        study.run_study(declared, workers=1)
    with pytest.raises(ValueError, match="at least 1, got -1"):
        study.run_study(declared, workers=-1)
    sonyc = plan.Study(RECIPE / "study_sonyc.yaml", {"data_folder": absent})
    study.check_data_folder(sonyc)


def test_the_error_of_a_log(scripts, tmp_path):
    """From the last line that names one; the last line without one."""
    last_error = scripts("study_queue").last_error
    log = tmp_path / "a.log"
    log.write_text(
        "Epoch 1\nValueError: old\nEpoch 2\nOSError: new\n  more\n\n"
    )
    assert last_error(log) == "OSError: new\n  more"
    log.write_text("Epoch 1\nKilled\n")
    assert last_error(log) == "Killed"
    log.write_text("")
    assert last_error(log) == ""


def test_losses_that_are_not_declared_are_off(scripts, tmp_path):
    """The YAML's own weights are not left on."""
    text = TINY.read_text()
    start, end = text.index("    iusp:\n"), text.index("search: {trials")
    text = text[:start] + text[end:]
    text = re.sub(r"    iusp.*\n", "", text)
    text = re.sub(r"    - .*gradients: True}\n", "", text)
    text = text.replace("[plain, sp, iusp]", "[plain, sp]")
    path = tmp_path / "sp.yaml"
    path.write_text(text)
    study = scripts("study_plan").Study(path)
    run = study.rows(study.start_settings())[1]
    options = dict(run.options)
    del options["eval_precision"]  # the host's
    with open(RECIPE / run.yaml) as stream:
        hparams = load_hyperpyyaml(stream, options)
    assert list(hparams["distillation"].terms) == ["sp"]
    for options in study.cache_commands("first").values():
        assert options["iusp_weight"] == 0.0 and options["sp_weight"] == 1.0


def test_soft_targets_alone_are_stored(scripts, tmp_path):
    """A study of KD needs no tap, but the teacher's logits."""
    text = TINY.read_text()
    start, end = text.index("    sp:\n"), text.index("search: {trials")
    kd = "    kd:\n        start: {weight: 1.0}\n        search: {weight: [0.1, 10.0]}\n"
    text = text[:start] + kd + text[end:]
    text = text.replace("    sp: [sp]\n    iusp: [iusp]\n", "    kd: [kd]\n")
    text = re.sub(r"    iusp_two.*\n", "", text)
    text = re.sub(r"    - .*gradients: True}\n", "", text)
    text = text.replace("[plain, sp, iusp]", "[plain, kd]")
    path = tmp_path / "kd.yaml"
    path.write_text(text)
    study = scripts("study_plan").Study(path)
    ((name, options),) = study.cache_commands("first").items()
    assert name == "logits" and options["kd_weight"] == 1.0
    assert options["sp_weight"] == options["iusp_weight"] == 0.0


def test_the_start_holds_where_nothing_is_searched(scripts, tmp_path):
    """A trial keeps what its start says of keys that are not searched."""
    text = TINY.read_text()
    text = text.replace(
        "search: {weight: [3.0, 300.0], tap: [middle, last]}",
        "search: {weight: [3.0, 300.0]}",
    )
    path = tmp_path / "less.yaml"
    path.write_text(text)
    where = {"output_folder": str(tmp_path / "out")}
    study = scripts("study_plan").Study(path, where)
    launcher = scripts("study_queue").Launcher(study.output_folder)
    runs = scripts("study_search").Search(study, launcher).next_runs()
    settings = [run.facts["settings"] for run in runs]
    assert {"sp": {"weight": 10.0, "tap": "last"}} in settings


def test_a_lock_lives_as_long_as_its_holders(scripts, tmp_path):
    """A child that inherited it keeps it; nobody else's crash does."""
    queue = scripts("study_queue")
    path = tmp_path / "a" / "b.lock"
    with queue.claim(path) as held:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[held])
        with queue.claim(path) as other:
            assert other is None
    with queue.claim(path) as other:
        assert other is None
    child.kill()
    child.wait()
    with queue.claim(path) as other:
        assert other is not None


def test_a_stopped_launcher_ends_its_processes(scripts, tmp_path):
    """At once, and starts no more."""
    queue = scripts("study_queue")
    launcher = queue.Launcher(tmp_path)
    begun = time.time()
    timer = threading.Timer(0.5, launcher.stop)
    timer.start()
    with pytest.raises(queue.RunFailedError, match="log"):
        launcher.call(["sleep", "60"], "slow")
    with pytest.raises(queue.RunFailedError):
        launcher.call(["sleep", "60"], "slow")
    assert time.time() - begun < 30


def test_each_worker_has_its_gpu(scripts, tmp_path):
    """By number; a run without a worker sees all of them."""
    launcher = scripts("study_queue").Launcher(tmp_path, 3, ["0", "1"])
    show = "import os; print(*[os.environ.get(k) for k in KEYS])"
    show = show.replace("KEYS", "('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS')")
    seen = []
    for worker, threads in ((0, None), (1, None), (2, 5)):
        launcher.call([sys.executable, "-c", show], "env", worker, threads)
    seen = (tmp_path / "logs" / "env.log").read_text().splitlines()
    assert seen == ["0 3", "1 3", "0 5"]


def test_several_processes_train_a_teacher(scripts, tmp_path):
    """By torchrun, on all GPUs."""
    plan = scripts("study_plan")
    text = TINY.read_text().replace("width: 4,", "width: 4, processes: 3,")
    path = tmp_path / "several.yaml"
    path.write_text(text)
    run = plan.Study(path).teacher_run("first")
    words = run.command("python", "X")
    assert words[:5] == [
        *("python", "-m", "torch.distributed.run", "--standalone"),
        "--nproc_per_node=3",
    ]
    assert not any("processes" in word for word in words[5:])


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_declared_studies_can_be_run(path, scripts):
    """Every option of every run is one of its YAML's."""
    study = scripts("study_plan").Study(path)
    rows = study.rows(study.start_settings())
    assert len({run.name for run in rows}) == len(rows)
    teachers = [study.teacher_run(label) for label in study.teachers]
    trials = [
        study.trial_run(term, 0, study.terms[term]["start"])
        for term in study.searched
    ]
    seen = {}
    for run in [*rows, *teachers, *trials]:
        seen.setdefault((run.yaml, tuple(run.options)), run)
        assert "output_folder" not in run.options
    for run in seen.values():
        text = (RECIPE / run.yaml).read_text()
        keys = set(re.findall(r"^(\w+):", text, flags=re.M))
        assert set(run.options) - keys <= {"eval_precision"}


def test_the_whole_study(scripts):
    """Six students, all eight combinations, ten seeds."""
    study = scripts("study_plan").Study(RECIPE / "study.yaml")
    rows = study.rows(study.start_settings())
    combined = [m for m, t in study.methods.items() if not any(t.values())]
    ours = [
        run
        for run in rows
        if run.facts["method"] in combined
        and run.facts["stage"] == "row"
        and run.facts.get("teacher", "first") == "first"
        and "variant" not in run.facts
    ]
    assert len(combined) == 8
    assert len(ours) == 6 * 8 * 10
    assert {study.trials(term) for term in study.terms} == {9}
    assert all(
        set(term["start"]) == set(term["search"])
        for term in study.terms.values()
    )


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("search:\n    trials", "searchh:\n    trials", "did you mean|Near"),
        ("students: [cnn_20k]", "students: [cnn_20]", "cnn_20k"),
        ("methods: [plain,", "methods: [plan,", "plain"),
        ("plain: []", "plain: [kd]", "term 'kd'"),
        ("{tap: two}", "{tap: tow}", "'iusp_two' has the tap 'tow'.*two"),
        ("two: [block3, block4]", "tow: block3", "cnn_20k has the tap 'tow'"),
        ("seeds: [1, 2]", "seeds: [1, 2], teacher: third", "first"),
        ("report_split: auto\n", "", "lacks report_split"),
        ("report_split: auto", "report_split: tset", "tset.*test"),
        ("number_of_epochs: 2\n", "number_of_epoch: 2\n", "number_of_epochs"),
        ("student: cnn_20k, seed", "student: cnn_20, seed", "cnn_20k"),
        ("student: cnn_20k, seed: 0", "student: cnn_20k", "search lacks seed"),
        ("schedule: constant}", "schedule: constnat}", "constant"),
        ("tap: [middle, last]}", "tap: [middle, lasst]}", "lasst.*last"),
        ("start: {weight: 10.0,", "start: {weightt: 10.0,", "weight"),
        ("    plain: []\n", "", "plain"),
        ("plain: []", "plain: [sp]", "0 methods without terms"),
        ("    sp:\n", "    ps:\n", "term 'ps'.*sp"),
        ("gradients: True", "gradient: True", "'gradient'.*gradients"),
        ("seeds: [1, 2]", "seeds: [1, 2], variant: long", "longer"),
        ("refine: [{pooling: mean}]", "refine: []", "'sp': 0, 'iusp': 1"),
    ],
)
def test_mistakes_in_a_declaration(old, new, message, scripts, tmp_path):
    """Found before anything runs, with what was probably meant."""
    text = TINY.read_text()
    if old.startswith("search"):
        old, new = "search: {trials", "searchh: {trials"
        message = "searchh"
    assert old in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        scripts("study_plan").Study(path)


def test_a_network_without_a_tap(scripts, tmp_path):
    """Where a row needs it, it is named; where none does, it is not missed."""
    plan = scripts("study_plan")
    text = TINY.read_text().replace(", two: [block3, block4]}", "}")
    path = tmp_path / "study.yaml"
    path.write_text(text)
    assert set(plan.Study(path).cache_commands("first")) == {
        *("conv_block3", "conv_block4"),
        *("conv_block3-mean", "conv_block4-mean"),
    }
    path.write_text(text.replace("methods: [plain,", "methods: [iusp_two,"))
    with pytest.raises(ValueError, match="'iusp_two' of cnn_20k.*'two'"):
        plan.Study(path)


@pytest.mark.parametrize(
    "splits, wanted, found",
    [
        (["validate", "held_out", "test"], "auto", "test"),
        (["validate", "held_out"], "auto", "held_out"),
        (["validate"], "auto", "validate"),
        (["validate", "held_out"], "held_out", "held_out"),
        (["validate"], "test", None),
    ],
)
def test_reported_split(splits, wanted, found, scripts):
    """A test split where there is one; what is wanted has to be there."""
    study = scripts("study_plan").Study(TINY)
    study.declared["report_split"] = wanted
    records = {"rows/a": {"stage": "row", "splits": dict.fromkeys(splits)}}
    reported_split = scripts("study_results").reported_split
    if found is None:
        with pytest.raises(ValueError, match="rows/a has only validate"):
            reported_split(study, records)
    else:
        assert reported_split(study, records) == found


def test_what_a_row_says_reaches_the_command(scripts):
    """Variants, other teachers, taps in pairs and lists of them."""
    study = scripts("study_plan").Study(RECIPE / "study.yaml")
    settings = study.start_settings()
    runs = {run.name: run for run in study.rows(settings)}
    terms = {term: settings[term] for term in ("kd", "iusp")}
    longer, plain = (
        study.student_run(method, "cnn_80k", 1, chosen, variant="long")
        for method, chosen in (("kd_iusp", terms), ("plain", {}))
    )
    assert longer.name == "rows/kd_iusp+long/cnn_80k/1"
    assert "--number_of_epochs=48" in longer.shown()
    assert "--number_of_epochs=16" not in longer.shown()
    assert longer.facts["variant"] == "long"
    assert "teacher" not in plain.facts
    other = runs["rows/sp@second/cnn_80k/1"]
    assert other.options["teacher_folder"].endswith("teacher/second")
    two = runs["rows/iusp_two/cnn_80k/1"]
    assert two.options["iusp_student_tap"] == ["block3", "block4"]
    assert two.options["iusp_teacher_tap"] == ["conv_block3", "conv_block4"]
    early = {"iusp": {"weight": 1.0, "tap": "early"}}
    run = study.student_run("iusp", "cnn_lstm_small", 1, early)
    assert run.options["iusp_student_tap"] == "conv"
    assert run.options["iusp_teacher_tap"] == "conv_block3"


def test_what_the_runs_may_ask_for_is_stored(scripts):
    """Each tap, and SP's means where a trial may pool."""
    study = scripts("study_plan").Study(RECIPE / "study.yaml")
    names = [f"conv_block{i}" for i in (2, 3, 4)]
    wanted = {*names, *(f"{name}-mean" for name in names)}
    commands = study.cache_commands("first")
    assert set(commands) == wanted
    assert commands["conv_block3-mean"]["sp_pooling"] == "mean"
    assert "sp_pooling" not in commands["conv_block3"]
    assert all(options["kd_weight"] == 1.0 for options in commands.values())


def made_up(scripts, values, **facts):
    """Results of records with given scores: (method, seed, ...) -> score."""
    results = scripts("study_results")
    study = scripts("study_plan").Study(TINY)
    records = {
        "teacher/first": {
            "stage": "teacher",
            "teacher": "first",
            "splits": made_up_splits(0.7),
        }
    }
    for (method, seed, *variant), value in values.items():
        record = {"stage": "row", "student": "cnn_20k", "seed": seed}
        record |= {"method": method, "splits": made_up_splits(value)}
        if variant:
            record["variant"] = variant[0]
        if method != "plain":
            record["teacher"] = "first"
        records[f"rows/{method}/{seed}/{variant}"] = record
    return results.Results(study, records)


def made_up_splits(value):
    """The same figure on both halves."""
    figures = dict.fromkeys(("micro_auprc", "macro_auprc", "micro_f1"), value)
    return {
        split: {"coarse": dict(figures)} for split in ("validate", "held_out")
    }


def test_variants_are_compared_with_their_own_plain_runs(scripts):
    """Gain, claim and gap of the longer runs beside the longer plain one."""
    results = made_up(
        scripts,
        {
            ("plain", 1): 0.5,
            ("sp", 1): 0.55,
            ("iusp", 1): 0.6,
            ("plain", 1, "longer"): 0.6,
            ("sp", 1, "longer"): 0.58,
            ("iusp", 1, "longer"): 0.65,
        },
    )
    assert results.labels == [
        *("plain", "sp", "iusp"),
        *("plain+longer", "sp+longer", "iusp+longer"),
    ]
    rows = {row["method"]: row for row in results.rows()}
    assert rows["iusp"]["gain"].mean == pytest.approx(0.1)
    assert rows["iusp+longer"]["gain"].mean == pytest.approx(0.05)
    assert rows["iusp+longer"]["closed"].mean == pytest.approx(0.5)
    assert rows["plain+longer"]["gain"] is None
    first, longer = results.claims()
    assert first["setting"] == "first" and longer["setting"] == "+longer"
    assert first["d"].mean == pytest.approx(0.1 - 1.27 * 0.05)
    assert longer["d"].mean == pytest.approx(0.05 + 1.27 * 0.02)
    assert first["ratio"] == pytest.approx(2.0)
    assert longer["ratio"] != longer["ratio"]  # SP gains nothing


def test_methods_beside_the_plain_sp_and_iusp_students(scripts):
    """Of the same seeds, without a variant; a dash where there are none."""
    results = made_up(
        scripts,
        {
            ("plain", 1): 0.5,
            ("plain", 2): 0.4,
            ("iusp", 1): 0.6,
            ("iusp", 1, "longer"): 0.65,
            ("plain", 2, "longer"): 0.55,
        },
    )
    plain, iusp = results.beside()
    assert plain["method"] == "plain+longer"
    assert iusp["method"] == "iusp+longer"
    assert plain["plain"].mean == pytest.approx(0.15)
    assert plain["iusp"] is None
    assert iusp["iusp"].mean == pytest.approx(0.05)
    assert "sp" not in iusp
    head, rows = scripts("study_tables").Tables(results).beside()
    assert head[2:] == ["minus plain", "minus iusp"]
    assert [cell["text"] for cell in rows[0][2:]] == ["+0.150", "-"]


def test_how_far_the_labels_are_fitted(scripts):
    """The last epoch's label loss on both sides, over the seeds."""
    results = made_up(scripts, {("plain", 1): 0.5, ("plain", 2): 0.5})
    for seed, record in results.runs["plain", "cnn_20k"].items():
        record["curve"] = [
            {"train label": loss, "valid label": loss + 0.1 * seed}
            for loss in (0.4, 0.2)
        ]
    (row,) = results.fits()
    assert row["train"].mean == pytest.approx(0.2)
    assert row["valid"].mean == pytest.approx(0.35)
    head, rows = scripts("study_tables").Tables(results).fits()
    assert head[3:] == [
        "label loss, training clips",
        "label loss, tuning half",
    ]
    assert rows[0][:3] == ["cnn_20k", "plain", "2"]
    assert rows[0][3].startswith("0.200 ± 0.000")


def test_gradients_early_and_later(scripts):
    """Means over the first quarter of the epochs, and over the others."""
    results = made_up(scripts, {("plain", 1): 0.5})
    ratios = [0.8, 0.1, 0.2, 0.3]
    results.gradients["iusp", "cnn_20k"] = {
        "gradients": [
            {"losses": {"label": {}, "iusp": {"ratio": r, "cosine": -r}}}
            for r in ratios
        ]
    }
    (row,) = results.gradient_means()
    assert row["term"] == "iusp"
    assert row["ratio"] == pytest.approx([0.8, 0.2])
    assert row["cosine"] == pytest.approx([-0.8, -0.2])
    _, rows = scripts("study_tables").Tables(results).gradients()
    assert rows[0][3:] == ["0.80", "0.20", "-0.80", "-0.20"]


def test_methods_can_be_told_apart(scripts):
    """No two have the same marker and colour, however many there are."""
    results = made_up(scripts, {("plain", 1): 0.5})
    results.study.methods = {f"m{i}": {} for i in range(72)}
    pictures = scripts("study_pictures").Pictures(results, {"networks": {}})
    assert (
        len({tuple(style.values()) for style in pictures.style.values()}) == 72
    )


def test_the_claim_is_of_the_same_seeds_throughout(scripts):
    """A seed that one method lacks counts in no column of the row."""
    results = made_up(
        scripts,
        {("plain", 1): 0.5, ("plain", 2): 0.5, ("plain", 3): 0.5}
        | {("sp", 1): 0.6, ("sp", 2): 0.6, ("sp", 3): 0.9}
        | {("iusp", 1): 0.7, ("iusp", 2): 0.7},
    )
    (claim,) = results.claims()
    assert {claim[key].n for key in ("sp", "iusp", "iusp_sp", "d")} == {2}
    assert claim["sp"].mean == pytest.approx(0.1)


def test_gains_are_drawn_of_one_setting_and_alike_each_time(scripts, tmp_path):
    """Not of a variant, which has the same marker; the file is the same."""
    results = made_up(
        scripts,
        {("plain", 1): 0.5, ("iusp", 1): 0.6, ("plain", 1, "longer"): 0.5}
        | {("iusp", 1, "longer"): 0.9},
    )
    costs = {"networks": {"cnn_20k": {"params": 20_000}}}
    found = []
    for i in range(2):
        figure = scripts("study_pictures").Pictures(results, costs).gains()
        (axis,) = figure.axes
        (drawn,) = axis.containers
        assert drawn[0].get_ydata() == pytest.approx([0.1])
        path = tmp_path / str(i) / "gains.svg"
        path.parent.mkdir()
        scripts("study_report").save_svg(figure, path)
        found.append(path.read_bytes())
    assert found[0] == found[1]


def test_panels_hold_the_methods_that_all_students_have(scripts):
    """Of the first teacher, and in no variant."""
    results = made_up(
        scripts,
        {("plain", 1): 0.5, ("iusp", 1): 0.6, ("iusp", 1, "longer"): 0.7},
    )
    pictures = scripts("study_pictures").Pictures(results, {"networks": {}})
    assert pictures.compared() == ["plain", "iusp"]
    results.students.append("cnn_80k")
    results.runs["plain", "cnn_80k"] = results.runs["plain", "cnn_20k"]
    assert pictures.compared() == ["plain"]


def test_the_best_method_is_chosen_on_the_tuning_half(scripts):
    """And its figures are those of the other half."""
    results = made_up(
        scripts, {("plain", 1): 0.5, ("sp", 1): 0.6, ("iusp", 1): 0.55}
    )
    sp = results.runs["sp", "cnn_20k"][1]["splits"]
    sp["held_out"]["coarse"]["micro_auprc"] = 0.52
    (row,) = results.closest()
    assert row["method"] == "sp"
    assert row["value"].mean == pytest.approx(0.52)
    assert row["below"].mean == pytest.approx(0.18)
    assert row["closed"].mean == pytest.approx(0.1)


def test_schedules_reach_the_terms(scripts):
    """A searched schedule, tap and weight are those of the loaded loss."""
    study = scripts("study_plan").Study(RECIPE / "study.yaml")
    setting = {"weight": 7.5, "tap": "middle", "schedule": "decay"}
    run = study.student_run("iusp", "cnn_80k", 3, {"iusp": setting})
    with open(RECIPE / run.yaml) as stream:
        hparams = load_hyperpyyaml(stream, run.options)
    (term,) = hparams["distillation"].terms.values()
    assert term.weight_at(0.5) == 3.75
    assert term.pairs == [("block3", "conv_block3")]
