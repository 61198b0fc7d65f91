"""The joint batch, seen from one process: the others are played.

Two real processes are in ``tests/integration/test_distributed_losses.py``.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch

from iusp_plugin.losses import gather, sp_loss


def draw(seed, *shape, dtype=torch.float64):
    """Normal features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


class Group:
    """A process group of which only this process runs.

    Arguments
    ---------
    rank : int
        This process.
    rows : list of torch.Tensor
        What each process holds.
    grads : torch.Tensor or float
        Sum of the gradients that the others bring.
    frames : list of int, optional
        Frames that a row of each process holds, 1 if not given.
    ragged : list of bool, optional
        Whether each process has lengths.
    """

    def __init__(self, rank, rows, grads=0.0, frames=None, ragged=None):
        self.rank, self.rows, self.grads = rank, rows, grads
        self.frames = frames or [1] * len(rows)
        self.ragged = ragged or [False] * len(rows)
        self.sent = []

    def facts(self, i):
        """What process i says of its rows."""
        (n, width), kind = self.rows[i].shape, self.rows[i].dtype
        kind = gather.DTYPES.index(kind)
        return [n, width, width // self.frames[i], kind, int(self.ragged[i])]

    def all_gather(self, slots, own):
        """Rows or facts of them, as the call's dtype tells."""
        assert len(slots) == len(self.rows) and own.is_contiguous()
        self.sent.append(own)
        for i, (slot, rows) in enumerate(zip(slots, self.rows, strict=True)):
            assert slot.shape == own.shape and slot.dtype == own.dtype
            if own.dtype == torch.int64:
                slot.copy_(torch.tensor(self.facts(i)))
            else:
                slot.zero_()
                slot[: rows.shape[0], : rows.shape[1]] = rows.detach()
            if i == self.rank:
                assert torch.equal(slot, own)

    def all_reduce(self, grad):
        """The sum with the others' gradients, in place."""
        assert grad.is_contiguous()
        grad += self.grads


@pytest.fixture
def join(monkeypatch):
    """Makes this process one of a group."""

    def make(*args, **options):
        group = Group(*args, **options)
        for name, value in {
            "is_initialized": lambda: True,
            "get_world_size": lambda: len(group.rows),
            "get_rank": lambda: group.rank,
            "all_gather": group.all_gather,
            "all_reduce": group.all_reduce,
        }.items():
            monkeypatch.setattr(gather.dist, name, value)
        return group

    return make


def test_alone():
    assert gather.world_size() == 1
    rows = draw(0, 3, 4).half().requires_grad_()
    joint, own = gather.gather_rows(rows, torch.float32)
    assert torch.equal(joint, rows.float()) and own == slice(0, 3)
    joint.sum().backward()
    assert rows.grad.dtype == torch.float16 and (rows.grad == 1).all()


def test_a_torch_without_distribution(monkeypatch):
    monkeypatch.setattr(gather.dist, "is_available", lambda: False)
    monkeypatch.delattr(gather.dist, "is_initialized")
    assert gather.world_size() == 1


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_rows_in_rank_order(rank, join):
    """Processes may hold different numbers of rows."""
    rows = [draw(i, n, 4) for i, n in enumerate((2, 3, 1))]
    expected = torch.cat(rows)
    mine = rows[rank].clone().requires_grad_()
    others = draw(5, 6, 4)
    group = join(rank, rows, others)
    assert gather.world_size() == 3
    joint, own = gather.gather_rows(mine, torch.float64)
    assert torch.equal(joint, expected)
    assert torch.equal(joint[own], rows[rank])
    assert own == slice(*[(0, 2), (2, 5), (5, 6)][rank])
    weights = draw(6, 6, 4)
    # Such that the gradient arrives with its axes swapped in memory.
    (joint.T.contiguous() * weights.T.contiguous()).sum().backward()
    torch.testing.assert_close(mine.grad, (weights + others)[own])
    assert [tuple(sent.shape) for sent in group.sent] == [(5,), (3, 4)]


def test_sent_as_it_is_and_summed_as_it_is_computed(join):
    """float16 on the way, float32 in the joint batch and its gradient."""
    mine = draw(0, 2, 4).half().requires_grad_()
    others = torch.full((4, 4), 1e-9)
    group = join(1, [draw(1, 2, 4).half(), mine], others)
    joint, own = gather.gather_rows(mine, torch.float32)
    assert group.sent[1].dtype == torch.float16
    assert joint.dtype == torch.float32
    (joint * 1e-9).sum().backward(torch.tensor(1e6))
    assert mine.grad.dtype == torch.float16
    torch.testing.assert_close(
        mine.grad, torch.full((2, 4), 1e-3).half(), rtol=1e-2, atol=0
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_shorter_rows_are_padded(rank, join):
    """Three frames of two numbers here, five there."""
    rows = [draw(0, 2, 6), draw(1, 3, 10)]
    mine = rows[rank].clone().requires_grad_()
    frames = [3, 5]
    join(rank, rows, frames=frames, ragged=[True, True])
    joint, own = gather.gather_rows(
        mine, torch.float64, frames[rank], ragged=True
    )
    assert joint.shape == (5, 10)
    assert torch.equal(joint[:2, :6], rows[0]) and (joint[:2, 6:] == 0).all()
    assert torch.equal(joint[2:], rows[1])
    weights = draw(2, 5, 10)
    (joint * weights).sum().backward()
    assert torch.equal(mine.grad, weights[own, : mine.shape[1]])


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    "other, frames, ragged, match",
    [
        (
            draw(1, 3, 9),
            [1, 1],
            [False, False],
            r"flattened widths are \[6, 9\]",
        ),
        (
            draw(1, 3, 9),
            [2, 3],
            [True, False],
            r"flattened widths are \[6, 9\]",
        ),
        (
            draw(1, 3, 9),
            [2, 2],
            [True, True],
            r"widths of a frame are \[3, 4\]",
        ),
        (
            draw(1, 3, 6),
            [3, 2],
            [True, True],
            r"widths of a frame are \[2, 3\]",
        ),
        (draw(1, 3, 6).half(), [1, 1], [False, False], r"their dtypes are"),
    ],
)
def test_rows_that_differ_are_refused(rank, other, frames, ragged, match, join):
    """On each process alike, and before any rows are sent."""
    sides = [draw(0, 2, 6), other]
    group = join(rank, sides, frames=frames, ragged=ragged)
    with pytest.raises(ValueError, match=match):
        gather.gather_rows(
            sides[rank], torch.float64, frames[rank], ragged[rank]
        )
    assert len(group.sent) == 1


def test_second_derivatives_are_refused(join):
    mine = draw(0, 2, 4).requires_grad_()
    join(0, [mine, draw(1, 3, 4)])
    joint, _ = gather.gather_rows(mine, torch.float64)
    (grad,) = torch.autograd.grad(joint.square().sum(), mine, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_compiling_is_refused(join, monkeypatch):
    group = join(0, [draw(0, 2, 4), draw(1, 3, 4)])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(RuntimeError, match="gather=True cannot be compiled"):
        gather.gather_rows(draw(0, 2, 4), torch.float64)
    assert not group.sent


def play_teacher(group, students, teachers):
    """Students are gathered first, then teachers."""
    gathered = iter([students, students, teachers, teachers])
    original = group.all_gather

    def all_gather(slots, own):
        group.rows = next(gathered)
        original(slots, own)

    return all_gather


@pytest.mark.parametrize("similarity", ["row_l2", "cosine"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "batch"])
@pytest.mark.parametrize("rank", [0, 1])
def test_sp_of_the_joint_batch(similarity, reduction, rank, join, monkeypatch):
    students = [draw(0, 2, 3), draw(1, 3, 3)]
    teachers = [draw(2, 2, 4), draw(3, 3, 4)]
    group = join(rank, students)
    all_gather = play_teacher(group, students, teachers)
    monkeypatch.setattr(gather.dist, "all_gather", all_gather)
    leaf = students[rank].clone().requires_grad_()
    options = {"similarity": similarity, "reduction": reduction}
    loss = sp_loss(leaf, teachers[rank], gather=True, **options)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    joint = torch.cat(students).requires_grad_()
    own = [slice(0, 2), slice(2, 5)][rank]
    expected = sp_loss(joint, torch.cat(teachers), **options)
    if reduction == "batch":
        expected = expected[own]
    torch.testing.assert_close(loss, expected)
    (whole,) = torch.autograd.grad(expected.sum(), joint)
    torch.testing.assert_close(grad, whole[own])


def test_nothing_is_gathered_without_a_gradient(join):
    """Processes may hold different numbers of batches in validation."""
    student, teacher = draw(0, 3, 4), draw(1, 3, 5)
    group = join(0, [student, draw(2, 3, 4)])
    alone = sp_loss(student, teacher)
    assert torch.equal(sp_loss(student, teacher, gather=True), alone)
    with torch.no_grad():
        leaf = student.clone().requires_grad_()
        assert torch.equal(sp_loss(leaf, teacher, gather=True), alone)
    assert not group.sent
