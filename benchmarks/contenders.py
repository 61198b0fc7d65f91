"""The ways that are compared, the features they are given, and the truth.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[..., Tensor]


def plain_iusp(s: Tensor, t: Tensor) -> Tensor:
    """IUSP in the two lines that anybody would write, by autograd.

    Arguments
    ---------
    s, t : torch.Tensor
        Features of student and teacher, (batch, time, D).

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    a, b = F.normalize(s @ s.mT, dim=2), F.normalize(t @ t.mT, dim=2)
    return ((a - b) ** 2).mean()


def looped_iusp(s: Tensor, t: Tensor) -> Tensor:
    """The same clip by clip, whose matrices are more often in a cache.

    Arguments
    ---------
    s, t : torch.Tensor
        Features of student and teacher, (batch, time, D).

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    pairs = zip(s.split(1), t.split(1), strict=True)
    return torch.stack([plain_iusp(a, b) for a, b in pairs]).mean()


def plain_sp(s: Tensor, t: Tensor) -> Tensor:
    """SP in the same two lines, one row a clip.

    Arguments
    ---------
    s, t : torch.Tensor
        (batch, ...).

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    return plain_iusp(s.flatten(1)[None], t.flatten(1)[None])


def torchdistill_version() -> str | None:
    """Version of the installed torchdistill, or None."""
    try:
        return version("torchdistill")
    except PackageNotFoundError:
        return None


def torchdistill_sp() -> Loss:
    """torchdistill's SP loss as a function of student and teacher.

    Returns
    -------
    callable
        ``loss(s, t)``.
    """
    from torchdistill.losses.mid_level import SPKDLoss

    module = SPKDLoss("tap", "tap", reduction="batchmean")

    def loss(s: Tensor, t: Tensor) -> Tensor:
        return module({"tap": {"output": s}}, {"tap": {"output": t}})

    return loss


def features(
    shape: tuple[int, int, int, int], device: str = "cpu", seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Features as a network's: not below zero, half of them zero.

    Arguments
    ---------
    shape : tuple of int
        (batch, time, D of the student, D of the teacher).
    device : str
        "cpu" or "cuda".
    seed : int
        Same seed, same features.

    Returns
    -------
    student, teacher : torch.Tensor
        (batch, time, D) in float32; the student asks for a gradient.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, frames, *sizes = shape
    student, teacher = (
        torch.randn(batch, frames, size, generator=generator).relu_()
        for size in sizes
    )
    return student.to(device).requires_grad_(), teacher.to(device)


def random_lengths(batch: int, device: str = "cpu", seed: int = 0) -> Tensor:
    """Relative lengths between a half and one; the first is one.

    Arguments
    ---------
    batch : int
        Number of clips.
    device : str
        "cpu" or "cuda".
    seed : int
        Same seed, same lengths.

    Returns
    -------
    torch.Tensor
        (batch,).
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = 0.5 + 0.5 * torch.rand(batch, generator=generator)
    lengths[0] = 1.0
    return lengths.to(device)


def step(
    loss: Loss, student: Tensor, *arguments, **options
) -> Callable[[], tuple[Tensor, Tensor]]:
    """What is timed: the loss and the student's gradient.

    Arguments
    ---------
    loss : callable
        The loss function.
    student : torch.Tensor
        Its first argument.
    *arguments
        Its other arguments.
    **options
        Its options.

    Returns
    -------
    callable
        Without arguments; returns value and gradient.
    """

    def forward_backward() -> tuple[Tensor, Tensor]:
        value = loss(student, *arguments, **options)
        (gradient,) = torch.autograd.grad(value, student)
        return value.detach(), gradient

    return forward_backward


def truth(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient of the plain way in float64, clip by clip.

    Arguments
    ---------
    student, teacher : torch.Tensor
        (batch, time, D).

    Returns
    -------
    value, gradient : torch.Tensor
        In float64.
    """
    values, gradients = [], []
    for s, t in zip(student.detach(), teacher, strict=True):
        clip = s[None].double().requires_grad_()
        value, gradient = step(plain_iusp, clip, t[None].double())()
        values.append(value)
        gradients.append(gradient)
    count = len(values)
    return torch.stack(values).mean(), torch.cat(gradients) / count


def relative_difference(found: Tensor, true: Tensor) -> float:
    """Norm of the difference by the norm of the truth.

    Arguments
    ---------
    found : torch.Tensor
        Any precision.
    true : torch.Tensor
        In float64.

    Returns
    -------
    float
        Zero if they are equal.
    """
    return float((found.double() - true).norm() / true.norm())
