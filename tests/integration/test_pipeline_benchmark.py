"""The benchmark of the data pipeline measures what it says, and runs.

Authors
 * The iusp_plugin authors 2026
"""

import importlib
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from iusp_plugin.features import LogMel
from iusp_plugin.losses import iusp_loss, soft_target_loss


def test_the_reference_trains_on_the_same_losses(bench):
    """Written plainly, they have the values of ours."""
    module = bench("reference_training")
    torch.manual_seed(0)
    student, teacher = torch.rand(3, 7, 2, 4), torch.rand(3, 7, 5)
    ours = iusp_loss(student, teacher)
    torch.testing.assert_close(module.plain_iusp(student, teacher), ours)
    one, other = torch.randn(2, 3, 5)
    ours = soft_target_loss(one, other)
    torch.testing.assert_close(module.plain_kd(one, other), ours)


def test_npy_clips(bench, tmp_path):
    module = bench("reference_training")
    np.save(tmp_path / "0.npy", np.ones((4, 2), np.float32))
    feats, target = module.NpyClips(tmp_path, torch.eye(1))[0]
    assert feats.shape == (4, 2) and target == 1.0


def test_other_front_ends_agree(bench):
    """What is timed beside ours computes the same."""
    module = bench("front_end_table")
    front_end = LogMel()
    wav = torch.from_numpy(
        np.random.default_rng(0).uniform(-0.3, 0.3, 8000).astype(np.float32)
    )
    ours = front_end.log_mel(wav.unsqueeze(0)).squeeze(0)
    plain = module.torchaudio_log_mel(front_end)(wav)[: len(ours)]
    torch.testing.assert_close(plain, ours)
    if importlib.util.find_spec("librosa") is None:
        pytest.skip("librosa is not installed; make bench installs it")
    other = module.librosa_log_mel(front_end)(wav.numpy())
    assert np.abs(other - ours.numpy()).max() < module.TOLERANCE


def test_commands_hold_no_folders(bench):
    command = bench("command_line").command
    assert command(
        "pipeline.py", ["--data_folder=/data/ust", "--only", "B"]
    ) == ("python benchmarks/pipeline.py --data_folder=ust --only B")


def test_sections_add_up(bench):
    """Time is counted where it is spent, errors included."""

    class Thing:
        def work(self, fail=False):
            if fail:
                raise KeyError

    thing = Thing()
    sections = bench("epoch_tables").Sections({"work": (thing, "work")})
    thing.work()
    with pytest.raises(KeyError):
        thing.work(fail=True)
    assert sections.seconds["work"] > 0


def test_a_missing_folder_is_named(project_root):
    command = [sys.executable, str(project_root / "benchmarks/pipeline.py")]
    result = subprocess.run(
        [*command, "--data_folder=/not/there"], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "--data_folder=/not/there is not a folder" in result.stderr


def test_every_table_is_made(project_root, tmp_path):
    """The whole command at tiny sizes."""
    command = [sys.executable, str(project_root / "benchmarks/pipeline.py")]
    command += ["--quick", "--threads=1", f"--output={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "pipeline_quick.json").read_text()
    record = json.loads(text)
    assert list(record["tables"]) == list("ABCDEFG")
    assert str(tmp_path) not in text and str(project_root) not in text
    for table in record["tables"].values():
        assert table["rows"]
    seconds = {
        row["name"]: row["seconds"] for row in record["tables"]["E"]["rows"]
    }
    shares = [row["share"] for row in record["tables"]["E"]["rows"]]
    assert sum(shares) == pytest.approx(1.0) and min(seconds.values()) >= 0
    page = (tmp_path / "pipeline_quick.md").read_text()
    assert page.startswith("# How fast the data pipeline is")
    assert page.count("\n## ") == 7
