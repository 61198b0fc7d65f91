"""SP and IUSP under torchrun: two processes are one with the joint batch.

Authors
 * The iusp_plugin authors 2026
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iusp_plugin.losses import sp_loss
from iusp_plugin.losses.gather import gather_rows, world_size

SCRIPT = Path(__file__).parent / "scripts" / "distributed_losses.py"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", str(SCRIPT), str(folder)]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [
        json.loads((folder / f"rank{i}.json").read_text(encoding="utf-8"))
        for i in (0, 1)
    ]


def cases(found, prefix):
    """The cases of a loss, with the tolerance of their dtype."""
    chosen = {k: v for k, v in found.items() if k.startswith(prefix)}
    assert chosen
    for name, deviations in chosen.items():
        yield name, deviations, 1e-10 if "float64" in name else 1e-5


def test_gathered_sp_is_one_process_with_the_joint_batch(ranks):
    for found in ranks:
        for name, deviations, tolerance in cases(found, "sp "):
            assert deviations["value"] < tolerance, name
            assert deviations["gradient"] < tolerance, name


def test_sp_without_gather_is_not(ranks):
    """Why ``gather`` exists: neither value nor gradient is close."""
    for found in ranks:
        for name, deviations, _ in cases(found, "local sp"):
            assert deviations["value"] > 0.05, name
            assert deviations["gradient"] > 0.05, name


def test_iusp_needs_no_gathering(ranks):
    """The mean over processes of per-clip losses is that of the clips."""
    for found in ranks:
        for name, deviations, tolerance in cases(found, "iusp"):
            assert deviations["gradient"] < tolerance, name


def test_batch_reduction_gives_own_shares(ranks):
    for found in ranks:
        assert found["shares"] < 1e-14


def test_validation_does_not_gather(ranks):
    assert ranks[0]["validation"] == ranks[1]["validation"] > 0


def test_batches_padded_to_different_lengths(ranks):
    for found, frames in zip(ranks, (7, 5), strict=True):
        ragged = found["ragged"]
        assert "flattened widths are [35, 25]" in ragged["error"]
        assert ragged["value"] < 1e-14
        assert ragged["shape"] == [5, frames, 5]


def test_one_process_gathers_itself():
    assert world_size() == 1
    rows = torch.randn(3, 4, requires_grad=True)
    joint, own = gather_rows(rows, torch.float64)
    assert joint.dtype == torch.float64
    assert own == slice(0, 3)
    teacher = torch.randn(3, 2)
    assert sp_loss(rows, teacher, gather=True) == sp_loss(rows, teacher)


def test_a_ready_made_similarity_cannot_be_gathered():
    with pytest.raises(ValueError, match="gather=True needs teacher_feats"):
        sp_loss(torch.ones(2, 3), teacher_similarity=torch.eye(2), gather=True)
