"""torchrun with two processes trains, evaluates and fails as it should.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "DCASE2019_Task5"
SCRIPTS = Path(__file__).parent / "scripts"
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
    "--nproc_per_node=2",
)
GLOO = "--distributed_backend=gloo"
STILL = ("--time_shift=False", "--precision=fp32", "--norm=group")
# Three steps an epoch of 24 clips, 21 steps in all.
STEPS = "--number_of_epochs=7"
METHODS = {
    "student": (),
    "kd": (),
    "iusp": (),
    "sp": ("--sp_gather=True",),
}


def torchrun(runs, name, folder, *more, script="train.py"):
    """Start train.py by torchrun; returns the process."""
    arguments = runs.arguments(name, folder, GLOO, *more)
    return subprocess.Popen(
        [*TORCHRUN, str(RECIPE / script), *arguments],
        cwd=runs.base,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, limit=120):
    """Exit status and everything that was said."""
    said, _ = process.communicate(timeout=limit)
    return process.returncode, said


def weights(folder):
    """Tensors of a run's network."""
    state = torch.load(folder / "model.ckpt", weights_only=True)
    return state["model"]


@pytest.fixture(scope="module")
def plain_yamls(runs):
    """The YAMLs without dropout, in a folder of their own."""
    folder = runs.base / "without_dropout"
    folder.mkdir()
    for name in METHODS:
        text = (RECIPE / "hparams" / f"{name}.yaml").read_text()
        without = re.sub(
            r"(model: !apply.*\n    name: !ref <student>\n)",
            r"\1    dropout: 0.0\n",
            text,
        )
        assert without != text
        (folder / f"{name}.yaml").write_text(without)
    return folder


@pytest.fixture(scope="module", params=METHODS)
def pair(request, runs, plain_yamls):
    """Folders of one process with a batch of 8 and two with 4 each."""
    name, extra = request.param, METHODS[request.param]
    runs.made("teacher")
    folders = []
    for n, size in ((1, 8), (2, 4)):
        folder = runs.base / f"joint_{name}_{n}"
        more = [*STILL, *extra, STEPS, f"--batch_size={size}"]
        yaml, *arguments = runs.arguments(name, folder, *more)
        yaml = str(plain_yamls / Path(yaml).name)
        start = TORCHRUN if n == 2 else [sys.executable]
        arguments += [GLOO] if n == 2 else []
        result = subprocess.run(
            [*start, str(RECIPE / "train.py"), yaml, *arguments],
            cwd=runs.base,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        folders.append(folder)
    return folders


def test_two_processes_train_as_one(pair):
    """After 21 steps of the same joint batches the weights are the same."""
    one, two = (weights(folder) for folder in pair)
    assert one.keys() == two.keys()
    distance = max(
        float((one[name] - two[name]).abs().max())
        for name in one
        if isinstance(one[name], torch.Tensor)
    )
    print("largest difference of a weight:", distance)
    assert distance < 1e-5


def test_the_printed_losses_are_means(pair):
    """Rank 0's share alone would print something else."""
    one, two = (
        [
            dict(re.findall(r"(train \w+|valid label): ([-+.e\d]+)", line))
            for line in (f / "train_log.txt").read_text().splitlines()
        ]
        for f in pair
    )
    assert len(one) == len(two) == 7
    for first, second in zip(one, two, strict=True):
        for name in first.keys() - {"train minutes"}:
            assert float(second[name]) == pytest.approx(
                float(first[name]), rel=1e-3
            ), name


def test_evaluation_is_shared_and_exact(runs):
    """A trained run scored by two processes: the same figures, each digit."""
    trained = runs.made("student")
    for size in (5, 12):
        flags = ("--test_only", f"--eval_batch_size={size}")
        one, two = (runs.base / f"scored_by_{n}_{size}" for n in (1, 2))
        for folder in (one, two):
            shutil.copytree(trained / "save", folder / "save")
        runs.train("student", one, *flags)
        status, said = finish(torchrun(runs, "student", two, *flags))
        assert status == 0, said
        assert runs.scores(two)["splits"] == runs.scores(one)["splits"]
        first, second = (
            (folder / "predictions-validate.csv").read_bytes()
            for folder in (one, two)
        )
        assert first == second


def test_another_number_of_processes(runs):
    """It is another joint batch: not the same run."""
    status, said = finish(torchrun(runs, "student", runs.made("student")))
    assert status != 0 and "processes: 1 there, 2 now" in said


def test_batch_norm_on_a_cpu(runs):
    """The line of the README, as it is; nothing complains at the end."""
    runs.made("teacher")
    folder = runs.base / "two_batch_norm"
    status, said = finish(torchrun(runs, "iusp", folder, "--batch_size=4"))
    assert status == 0, said
    assert "destroy_process_group" not in said and "Traceback" not in said
    state = weights(folder)
    means = [v for k, v in state.items() if k.endswith("running_mean")]
    assert means and any(bool(m.any()) for m in means)
    with (folder / "predictions-validate.csv").open(newline="") as stream:
        names = [row["audio_filename"] for row in csv.DictReader(stream)]
    assert len(names) == len(set(names)) == 12


def test_a_bad_file_ends_the_job(runs):
    """The first process meets it; the last words name it."""
    runs.made("student")
    data = runs.base / "DCASE2019_Task5_data"
    clip = sorted((data / "audio-dev" / "train").iterdir())[0]
    content, stamp = clip.read_bytes(), clip.stat().st_mtime_ns
    start = time.monotonic()
    try:
        clip.write_bytes(b"broken" + content[6:])
        os.utime(clip, ns=(stamp, stamp))
        status, said = finish(
            torchrun(
                *(runs, "student", runs.base / "bad_file", "--skip_prep=True"),
                *("--feature_store=False", "--batch_size=4"),
            )
        )
    finally:
        clip.write_bytes(content)
        os.utime(clip, ns=(stamp, stamp))
    assert status != 0
    assert time.monotonic() - start < 60
    assert f"{clip.name} cannot be read as audio" in said
    assert "Root Cause (first observed failure)" in said


def test_a_failing_process_ends_the_job(runs):
    """One process meets a bad file, the other waits for its gradients."""
    start = time.monotonic()
    folder = runs.base / "one_fails"
    arguments = runs.arguments("student", folder, GLOO, "--batch_size=4")
    result = subprocess.run(
        [*TORCHRUN, str(SCRIPTS / "failing_rank.py"), *arguments],
        cwd=runs.base,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode != 0 and time.monotonic() - start < 60
    _, _, last = result.stdout.partition("Root Cause (first observed failure)")
    assert "ValueError: street.wav cannot be read as audio: damaged." in last
    assert "rank      : 1" in last


def test_a_killed_process_ends_the_job(runs):
    """The other one waits for it in vain, but not for long."""
    folder = runs.base / "killed"
    process = torchrun(
        *(runs, "student", folder, "--number_of_epochs=10000"),
        "--batch_size=4",
    )
    log = folder / "train_log.txt"
    while not log.exists():
        assert process.poll() is None
        time.sleep(0.05)
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    workers = Path(children).read_text().split()
    start = time.monotonic()
    os.kill(int(workers[-1]), signal.SIGKILL)
    status, said = finish(process, 60)
    assert status != 0 and time.monotonic() - start < 60
    assert "Signal 9 (SIGKILL)" in said
    for worker in workers:
        assert not Path(f"/proc/{worker}").exists()


def test_processes_draw_differently(scripts, monkeypatch):
    """Seed, epoch and process give the numbers; nothing else does."""
    processes = scripts("processes")
    drawn = {}
    for seed in (1, 2):
        for epoch in (1, 2):
            for rank in (0, 1):
                monkeypatch.setattr(
                    processes, "rank_and_world", lambda rank=rank: (rank, 2)
                )
                processes.seed_epoch(seed, epoch)
                drawn[seed, epoch, rank] = tuple(torch.rand(4).tolist())
                processes.seed_epoch(seed, epoch)
                assert drawn[seed, epoch, rank] == tuple(torch.rand(4).tolist())
    assert len(set(drawn.values())) == 8


@pytest.mark.parametrize("n_items", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_of_batches(scripts, n_items, world):
    """Together they are one process's batches, and equally many each."""
    share = scripts("processes").ShareOfBatches
    shares = [list(share(n_items, 2, rank, world)) for rank in range(world)]
    assert len({len(batches) for batches in shares}) == 1
    seen = {tuple(batch) for batches in shares for batch in batches}
    items = list(range(n_items))
    assert seen == {tuple(items[i : i + 2]) for i in range(0, n_items, 2)}
    assert [len(share(n_items, 2, r, world)) for r in range(world)] == [
        len(batches) for batches in shares
    ]


def test_resumed_it_draws_what_it_would_have(runs):
    """Killed after the first epoch and started again: the same end."""
    flags = ("--number_of_epochs=3", "--batch_size=4")
    whole = runs.base / "uninterrupted"
    runs.train("student", whole, *flags)
    folder = runs.base / "resumed"
    arguments = runs.arguments("student", folder, *flags)
    process = subprocess.Popen(
        [sys.executable, str(RECIPE / "train.py"), *arguments],
        cwd=runs.base,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list(folder.glob("save/CKPT*/model.ckpt")):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (folder / "scores.json").exists()
    runs.train("student", folder, *flags)
    first, second = (weights(f) for f in (whole, folder))
    assert all(
        torch.equal(first[k], second[k])
        for k in first
        if isinstance(first[k], torch.Tensor)
    )


def test_a_half_written_checkpoint_is_discarded(runs):
    """The host writes its metadata first: a kill leaves this behind."""
    trained = runs.made("student")
    folder = runs.base / "torn"
    shutil.copytree(trained / "save", folder / "save")
    (checkpoint,) = (folder / "save").iterdir()
    damages = {
        "model.ckpt": lambda path: path.write_bytes(path.read_bytes()[:-100]),
        "optimizer.ckpt": lambda path: path.unlink(),
        "front_end.ckpt": lambda path: path.write_bytes(b""),
    }
    for day, (file, damage) in enumerate(damages.items(), 1):
        torn = folder / "save" / f"CKPT+2099-01-0{day}+00-00-00+00"
        shutil.copytree(checkpoint, torn)
        damage(torn / file)
    result = runs.train("student", folder)
    assert result.stdout.count("was left half written") == 3
    assert os.listdir(folder / "save") == [checkpoint.name]
    assert runs.scores(folder)["splits"] == runs.scores(trained)["splits"]


def test_without_weight_it_is_the_plain_student(runs):
    """A distilled YAML whose terms are off trains the plain student."""
    runs.train("iusp", "weightless", "--iusp_weight=0", "--method=plain")
    plain = runs.made("student") / "predictions-validate.csv"
    weightless = runs.base / "weightless" / "predictions-validate.csv"
    assert weightless.read_bytes() == plain.read_bytes()
