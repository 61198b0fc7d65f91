"""The engine of SP and IUSP: what is kept, and what is never made.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iusp_plugin.losses import distance, iusp_loss

SIMILARITIES = ("row_l2", "cosine")
FORMS = ("gram", "covariance")
EVERY_FORM = pytest.mark.parametrize(
    "similarity, form", [(s, f) for s in SIMILARITIES for f in FORMS]
)


def draw(seed, *shape, dtype=torch.float64):
    """Normal features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


@EVERY_FORM
@pytest.mark.parametrize("chunk", [1, 2**19])
def test_the_graph_keeps_no_matrix(similarity, form, chunk, monkeypatch):
    """But the student, its gradient, and what the teacher was given as."""
    monkeypatch.setattr(distance, "CHUNK_ELEMENTS", chunk)
    leaf, teacher = draw(0, 2, 30, 4).requires_grad_(), draw(1, 2, 30, 5)
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = iusp_loss(leaf, teacher, similarity=similarity, form=form)
    assert len(saved) == 1 and saved[0].data_ptr() == leaf.data_ptr()
    node = loss.grad_fn
    assert node.gradient.shape == leaf.shape
    assert isinstance(node.weights, float)
    assert [part.data_ptr() for part in node.comparison.teacher] == [
        teacher.data_ptr()
    ]


class Sizes(TorchDispatchMode):
    """The largest tensor that any operation returns, in elements."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in tree_leaves(result):
            if isinstance(part, torch.Tensor):
                self.largest = max(self.largest, part.numel())
        return result


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.7])])
def test_covariances_need_no_matrix_of_frames(similarity, lengths):
    t = 600
    student = draw(0, 2, t, 16, 16, dtype=torch.float32).requires_grad_()
    teacher = draw(1, 2, t, 16, dtype=torch.float32)
    largest = {}
    for form in FORMS:
        with Sizes() as sizes:
            loss = iusp_loss(
                student, teacher, lengths, similarity=similarity, form=form
            )
            loss.backward(retain_graph=True)
            loss.backward(retain_graph=True)
            torch.autograd.grad(loss, student, create_graph=True)
        largest[form] = sizes.largest
    assert largest["covariance"] == student.numel() < t * t
    assert largest["gram"] >= t * t


def test_a_clip_of_ten_minutes():
    """A matrix of its frames would have 14 GB."""
    t, width = 60_000, 8
    student = draw(0, 1, t, width, dtype=torch.float32).requires_grad_()
    teacher = draw(1, 1, t, width, dtype=torch.float32)
    teacher[..., :4] += student.detach()[..., :4]
    with Sizes() as sizes:
        loss = iusp_loss(student, teacher, scaled=True)
        loss.backward()
    assert sizes.largest == t * width
    s, u = student.detach()[0].double(), teacher[0].double()
    ours = ((s @ (s.T @ s)) * s).sum(dim=1)
    theirs = ((u @ (u.T @ u)) * u).sum(dim=1)
    both = ((u @ (u.T @ s)) * s).sum(dim=1)
    exact = (2 - 2 * both / (ours * theirs).sqrt()).sum() / t
    assert 0.1 < exact < 1.9
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=0)
    assert student.grad.isfinite().all() and student.grad.abs().sum() > 0
