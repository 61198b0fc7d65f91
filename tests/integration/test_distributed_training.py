"""torchrun with two processes trains, evaluates and fails as it should.

Authors
 * The iusp_plugin authors 2026
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import speechbrain
import torch

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "DCASE2019_Task5"
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
    "--nproc_per_node=2",
)
GLOO = "--distributed_backend=gloo"
BATCH_NORM = (
    *("--batch_size=4", "--eval_batch_size=5"),
    "--grad_accumulation_factor=2",
)
STILL = ("--time_shift=False", "--precision=fp32", "--norm=group")
# Three steps an epoch of 24 clips, 21 steps in all.
STEPS = "--number_of_epochs=7"
METHODS = {
    "student": (),
    "kd": (),
    "iusp": (),
    "sp": ("--sp_gather=True",),
}


def torchrun(runs, name, folder, *more, yaml=None):
    """Start train.py by torchrun; returns the process."""
    own, *arguments = runs.arguments(name, folder, GLOO, *more)
    return subprocess.Popen(
        [*TORCHRUN, str(RECIPE / "train.py"), str(yaml or own), *arguments],
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


def logged(line):
    """Losses of a line of the log."""
    found = re.findall(r"(train \w+|valid label): ([-+.e\d]+)", line)
    return {k: float(v) for k, v in found if k != "train minutes"}


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


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_train_as_one(name, runs, plain_yamls, scripts):
    """After 21 steps of the same joint batches the weights are the same."""
    runs.made("teacher")
    folders = [runs.base / f"joint_{name}_{n}" for n in (1, 2)]
    flags = [
        [*STILL, *METHODS[name], STEPS, f"--batch_size={size}"]
        for size in (8, 4)
    ]
    yaml = plain_yamls / f"{name}.yaml"
    _, *arguments = runs.arguments(name, folders[0], *flags[0])
    scripts("train").run(*speechbrain.parse_arguments([str(yaml), *arguments]))
    status, said = finish(
        torchrun(runs, name, folders[1], *flags[1], yaml=yaml)
    )
    assert status == 0, said
    one, two = map(weights, folders)
    assert one.keys() == two.keys()
    distance = max(float((one[k] - two[k]).abs().max()) for k in one)
    print("largest difference of a weight:", distance)
    assert distance < 1e-5
    # Rank 0's share alone would print other losses.
    one, two = (
        [
            logged(line)
            for line in (folder / "train_log.txt").read_text().splitlines()
        ]
        for folder in folders
    )
    assert len(one) == len(two) == 7
    for first, second in zip(one, two, strict=True):
        assert second == pytest.approx(first, rel=1e-3)


@pytest.fixture(scope="module")
def batch_norm(runs):
    """Folder and words of a run by two processes, batch norm and all.

    Three batches a process: the last one is accumulated for a step that does
    not come. Three batches of validation: one process repeats its first.
    """
    runs.made("teacher")
    folder = runs.base / "two_batch_norm"
    status, said = finish(torchrun(runs, "iusp", folder, *BATCH_NORM))
    assert status == 0, said
    return folder, said


def test_batch_norm_on_a_cpu(batch_norm):
    """The line of the README runs as it is; nothing complains at the end."""
    folder, said = batch_norm
    for complaint in ("destroy_process_group", "Traceback", "Warning"):
        assert complaint not in said
    means = [v for k, v in weights(folder).items() if k.endswith("g_mean")]
    assert means and any(bool(mean.any()) for mean in means)


def test_evaluation_is_exact(batch_norm, runs, scripts, monkeypatch):
    """One process finds the figures of two, in each digit."""
    folder, _ = batch_norm
    (checkpoint,) = (folder / "save").iterdir()
    meta = (checkpoint / "CKPT.yaml").read_text()
    kept = float(re.search(r"micro_auprc: (.+)", meta)[1])
    splits = runs.scores(folder)["splits"]
    assert kept == splits["validate"]["coarse"]["micro_auprc"]
    module, losses = scripts("evaluate"), []
    end = module.TaggingBrain.on_stage_end

    def keep_loss(brain, *stage):
        end(brain, *stage)
        losses.append(brain.stats.mean_loss())

    monkeypatch.setattr(module.TaggingBrain, "on_stage_end", keep_loss)
    arguments = module.parse_arguments([str(folder), "--device=cpu"])
    assert module.evaluate(arguments)["splits"] == splits
    first, second = (
        (path / "predictions-validate.csv").read_bytes()
        for path in (folder, folder / "evaluation")
    )
    assert first == second
    log = logged((folder / "train_log.txt").read_text())
    assert log["valid label"] == float(f"{losses[0]:.4e}")


def test_fewer_batches_than_processes(runs, train):
    """A trained run scored again: one batch, two processes."""
    trained = runs.made("student")
    one, two = (runs.base / f"scored_by_{n}" for n in (1, 2))
    for folder in (one, two):
        shutil.copytree(trained / "save", folder / "save")
    flags = ("--test_only", "--eval_batch_size=12")
    train("student", one, *flags)
    status, said = finish(torchrun(runs, "student", two, *flags))
    assert status == 0, said
    assert runs.scores(two)["splits"] == runs.scores(one)["splits"]


def test_another_number_of_processes(batch_norm, train):
    """It is another joint batch: not the same run."""
    with pytest.raises(ValueError, match="processes: 2 there, 1 now"):
        train("iusp", batch_norm[0], *BATCH_NORM)


def test_a_joint_batch_larger_than_the_data(scripts, monkeypatch):
    """Each process would be left without a batch, and train nothing."""
    sounds = scripts("sounds")
    monkeypatch.setattr(sounds, "rank_and_world", lambda: (1, 2))
    datasets = {"train": range(24), "validate": range(1)}
    sounds.check_datasets(datasets, "data", 12)
    told = "batch_size=13 on each of 2 processes exceeds the 24 training clips"
    with pytest.raises(ValueError, match=told):
        sounds.check_datasets(datasets, "data", 13)


@pytest.mark.parametrize("n_items, seed", [(24, 1), (25, 1), (27, 2)])
def test_the_seed_gives_the_order(n_items, seed, scripts, monkeypatch):
    """Batch k of one process holds what two processes' batches k hold."""
    brain = scripts("processes").ParallelBrain
    monkeypatch.setenv("SB_GLOBAL_SEED", str(seed))

    def batches(rank, world, epoch):
        hparams = {"seed": seed, "sorting": "random"}
        own = brain({}, hparams=hparams, run_opts={"device": "cpu"})
        own.rank, own.distributed_launch = rank, world > 1
        loader = own.make_dataloader(
            list(range(n_items)),
            speechbrain.Stage.TRAIN,
            batch_size=8 // world,
            shuffle=True,
            drop_last=True,
        )
        own.train_sampler.set_epoch(epoch)
        return [batch.tolist() for batch in loader]

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    orders = []
    for epoch in (1, 2):
        joint = batches(0, 1, epoch)
        assert len(joint) == 3
        shares = [batches(rank, 2, epoch) for rank in (0, 1)]
        for whole, *parts in zip(joint, *shares, strict=True):
            assert sorted(whole) == sorted(sum(parts, []))
        orders.append(joint)
    assert orders[0] != orders[1]


def workers_of(process):
    """The numbers of torchrun's processes."""
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    return [int(number) for number in Path(children).read_text().split()]


def training(runs, folder, *flags):
    """A run by two processes that has finished its first epoch."""
    process = torchrun(
        *(runs, "student", folder, "--number_of_epochs=10000"),
        *("--batch_size=4", *flags),
    )
    log = folder / "train_log.txt"
    while not log.exists() or not log.stat().st_size:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    return process


def test_a_file_damaged_meanwhile_ends_the_job(runs):
    """One process meets it, the other waits for its gradients."""
    runs.made("student")
    data = runs.base / "own_data"
    shutil.copytree(runs.base / "DCASE2019_Task5_data", data)
    process = training(
        *(runs, runs.base / "bad_file", "--feature_store=False"),
        f"--embedded_folder={data}",
    )
    clip = sorted((data / "audio-dev" / "train").iterdir())[0]
    workers, start = workers_of(process), time.monotonic()
    clip.write_bytes(b"broken" + clip.read_bytes()[6:])
    status, said = finish(process, 60)
    print("seconds until the end:", time.monotonic() - start)
    assert status != 0
    _, _, last = said.partition("Root Cause (first observed failure)")
    assert f"{clip.name} cannot be read as audio" in last
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_killed_process_ends_the_job(runs):
    """The other one waits for it in vain, but not for long."""
    process = training(runs, runs.base / "killed")
    workers, start = workers_of(process), time.monotonic()
    os.kill(workers[-1], signal.SIGKILL)
    status, said = finish(process, 60)
    print("seconds until the end:", time.monotonic() - start)
    assert status != 0
    assert "Signal 9 (SIGKILL)" in said
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


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


def test_resumed_it_draws_what_it_would_have(runs, train):
    """Killed after the first epoch and started again: the same end."""
    flags = ("--number_of_epochs=3", "--batch_size=4")
    whole = runs.base / "uninterrupted"
    train("student", whole, *flags)
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
    train("student", folder, *flags)
    first, second = (weights(f) for f in (whole, folder))
    assert all(torch.equal(first[k], second[k]) for k in first)


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


@pytest.mark.parametrize(
    "name, flags",
    [
        ("iusp", ("--iusp_weight=0", "--method=plain")),
        ("student", ("--num_workers=1",)),
    ],
    ids=["terms_off", "workers"],
)
def test_what_changes_nothing(name, flags, request, runs, train):
    """Neither terms without weight nor loading elsewhere moves a digit."""
    folder = runs.base / request.node.callspec.id
    train(name, folder, *flags)
    first, second = (
        (path / "predictions-validate.csv").read_bytes()
        for path in (runs.made("student"), folder)
    )
    assert first == second
