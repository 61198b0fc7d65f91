"""One training step of two processes beside the joint batch's.

Run by torchrun; every process writes what it found as JSON. The network is
small and real, wrapped by DistributedDataParallel over gloo.

Authors
 * The iusp_plugin authors 2026
"""

import gc
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from iusp_plugin.losses import iusp_loss, sp_loss

SIZES = (3, 2)  # clips of each process: an uneven last batch
T, WIDTH = 7, 5


def network(dtype):
    """Frames (batch, T, WIDTH) to features (batch, T, 4)."""
    torch.manual_seed(0)
    layers = nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 4)
    return nn.Sequential(*layers).to(dtype)


def data(dtype):
    """Clips, teacher features and lengths of the joint batch."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(sum(SIZES), T, WIDTH, generator=generator, dtype=dtype)
    teacher = torch.randn(sum(SIZES), T, 6, generator=generator, dtype=dtype)
    return clips, teacher, torch.tensor([1.0, 5 / 7, 6 / 7, 1.0, 3 / 7])


def step(model, loss, clips, *others):
    """Value and gradients of one backward."""
    model.zero_grad()
    value = loss(model(clips), *others)
    value.backward()
    grads = [p.grad.flatten() for p in model.parameters()]
    return value.item(), torch.cat(grads)


def weighted_iusp(student, teacher, lengths):
    """A process's share of the joint batch's mean, times their number.

    DDP takes the mean over processes, so with unequal batches the clips weigh
    equally only if each process's sum is divided by the mean batch size.
    """
    total = iusp_loss(student, teacher, lengths, "sum")
    return total * dist.get_world_size() / sum(SIZES)


def gathered_sp(student, teacher, lengths, **options):
    """SP over the clips of all processes."""
    return sp_loss(student, teacher, lengths, gather=True, **options)


def compare(local_loss, joint_loss, dtype):
    """Relative deviations of this process's value and gradient."""
    clips, teacher, lengths = data(dtype)
    value, grad = step(network(dtype), joint_loss, clips, teacher, lengths)
    first = sum(SIZES[: dist.get_rank()])
    own = slice(first, first + SIZES[dist.get_rank()])
    model = nn.parallel.DistributedDataParallel(network(dtype))
    parts = clips[own], teacher[own], lengths[own]
    found, found_grad = step(model, local_loss, *parts)
    return {
        "value": abs(found - value) / abs(value),
        "gradient": float((found_grad - grad).norm() / grad.norm()),
    }


def main(folder):
    """Every case by name, written as rank<n>.json."""
    dist.init_process_group("gloo")
    found = {}
    for dtype in (torch.float32, torch.float64):
        name = str(dtype).rpartition(".")[2]
        for options in ({}, {"similarity": "cosine"}, {"reduction": "sum"}):
            key = f"sp {name} {options}"

            def joint(*args, options=options):
                return sp_loss(*args, **options)

            def local(*args, options=options):
                return gathered_sp(*args, **options)

            found[key] = compare(local, joint, dtype)
        found[f"local sp {name}"] = compare(sp_loss, sp_loss, dtype)
        found[f"iusp {name}"] = compare(weighted_iusp, iusp_loss, dtype)
    found["shares"] = shares()
    found["validation"] = validation()
    found["ragged"] = ragged()
    path = Path(folder) / f"rank{dist.get_rank()}.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    # DDP's reducers go before the group that they use, on all processes.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def shares():
    """One share a clip of this process, equal to those of the joint batch."""
    clips, teacher, _ = data(torch.float64)
    joint = sp_loss(clips, teacher, reduction="batch")
    first = sum(SIZES[: dist.get_rank()])
    own = slice(first, first + SIZES[dist.get_rank()])
    leaf = clips[own].clone().requires_grad_()
    found = sp_loss(leaf, teacher[own], reduction="batch", gather=True)
    return float((found.detach() - joint[own]).abs().max())


def validation():
    """Without gradient, processes may call it a different number of times."""
    clips, teacher, _ = data(torch.float64)
    losses = [0.0]
    with torch.no_grad():
        for _ in range(1 + dist.get_rank()):
            losses.append(sp_loss(clips, teacher, gather=True).item())
    return losses[-1]


def ragged():
    """Batches padded to different lengths: refused without lengths."""
    rank = dist.get_rank()
    clips, teacher, _ = data(torch.float64)
    frames = T - 2 * rank  # the second process's clips are shorter
    leaf = clips[:, :frames].clone().requires_grad_()
    target = teacher[:, :frames]
    try:
        sp_loss(leaf, target, gather=True)
        error = ""
    except ValueError as refused:
        error = str(refused)
    value = sp_loss(leaf, target, torch.ones(sum(SIZES)), gather=True)
    value.backward()
    short = clips.clone(), teacher.clone()
    for feats in short:
        feats[:, T - 2 :] = 0.0
    both = [torch.cat(x) for x in zip((clips, teacher), short, strict=True)]
    return {
        "error": error,
        "value": abs(value.item() - sp_loss(*both).item()),
        "shape": list(leaf.grad.shape),
    }


if __name__ == "__main__":
    main(sys.argv[1])
