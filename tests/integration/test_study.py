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
    first.communicate(timeout=60)
    both = [start(folder, "--workers=1") for _ in range(2)]
    outputs = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    return folder, outputs


def test_each_run_is_done_once(finished):
    """Two commands share the runs; a folder is complete or absent."""
    folder, outputs = finished
    found = records(folder)
    rows = [f"rows/{m}/cnn_20k/{s}.json" for m in METHODS for s in (1, 2)]
    trials = [f"search/{t}/{i}.json" for t in ("sp", "iusp") for i in (0, 1)]
    others = ["teacher/first.json", "settings.json", "costs.json"]
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
    assert all("10 of 10 done" in output for output in outputs)


METHODS = ("plain", "sp", "iusp")


def test_records_are_small_and_complete(finished):
    """Scores of both halves, the curve, the command, no machine's paths."""
    folder, _ = finished
    for name, record in records(folder).items():
        if not name.startswith(("rows", "search", "teacher")):
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
    assert found["settings.json"]["trials"] == 4
    for term in ("sp", "iusp"):
        trials = [found[f"search/{term}/{i}.json"] for i in (0, 1)]
        best = max(
            trials,
            key=lambda r: r["splits"]["validate"]["coarse"]["micro_auprc"],
        )
        assert settings[term] == best["settings"][term]
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
    assert search.counts() == (4, 4)
    assert search.next_runs() == []
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


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "link"):
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
    assert [kind[1] for kind in kinds].count("svg+xml") == 5
    # Frame similarities of the clips that have the tags to draw.
    assert 1 <= [kind[1] for kind in kinds].count("png") <= 3
    for source in page.sources:
        assert len(base64.b64decode(source.partition(",")[2])) > 3000
    words = " ".join(page.words)
    for needed in ("The claim", "d > 0", "cnn_20k", "tuning half", "Search"):
        assert needed in words


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
    assert iusp[5].startswith(f"{sum(gains['iusp']) / 2:+.3f} [")


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
    work.minutes["cnn_20k"] += [9.0, 11.0, 12.0]
    assert not work.may_start(run)


def test_failures_are_named_and_end_the_study(scripts, tmp_path, monkeypatch):
    """A failing run costs one run; three of them end the study."""
    monkeypatch.chdir(tmp_path)
    text = TINY.read_text().replace("trials: 2", "trials: 0")
    text = text.replace("    number_of_epochs: 2\n", "    number_of_epoch: 2\n")
    text = text.replace("seeds: [1, 2]", "seeds: [1, 2, 3, 4, 5]")
    text = text.replace("methods: [plain, sp, iusp]", "methods: [plain]")
    yaml = tmp_path / "wrong.yaml"
    yaml.write_text(text)
    process = start(tmp_path, "--workers=1", study=yaml)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Override 'number_of_epoch' not found" in output
    assert "Three runs have failed; nothing more is started." in output
    assert output.count("failed: exit status 1") == 3


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
    words = run.command("train.py", "python", "X")
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
    ours = [run for run in rows if "@" not in run.name]
    assert len(ours) == 6 * 8 * 10
    assert all(
        set(term["start"]) == set(term["search"])
        for term in study.terms.values()
    )


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("search:\n    trials", "serach:\n    trials", "did you mean|Near"),
        ("students: [cnn_20k]", "students: [cnn_20]", "cnn_20k"),
        ("methods: [plain,", "methods: [plan,", "plain"),
        ("plain: []", "plain: [kd]", "term 'kd'"),
        ("seeds: [1, 2]", "seeds: [1, 2], teacher: third", "first"),
        ("report_split: auto\n", "", "lacks report_split"),
    ],
)
def test_mistakes_in_a_declaration(old, new, message, scripts, tmp_path):
    """Found before anything runs, with what was probably meant."""
    text = TINY.read_text()
    if old.startswith("search"):
        old, new = "search: {trials", "serach: {trials"
        message = "serach"
    assert old in text
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        scripts("study_plan").Study(path)


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
