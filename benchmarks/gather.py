#!/usr/bin/env python3
"""SP over the clips of each process, or of all: what differs, what it costs.

To run it, use the following command:
> torchrun --standalone --nproc_per_node=2 gather.py

Authors
 * The iusp_plugin authors 2026
"""

import json
import statistics
import time
from pathlib import Path

import torch
import torch.distributed as dist
from machine import describe
from report import markdown_table, table
from torch import Tensor

from iusp_plugin.files import replacing
from iusp_plugin.losses import sp_loss

RESULTS = Path(__file__).resolve().parent / "results" / "gather.json"
# Clips of each process, D of student and teacher: outputs, pooled maps, maps.
SHAPES = ((16, 31, 31), (16, 512, 2048), (16, 512 * 31, 4096 * 31))


def features(shape: tuple[int, int, int], rank: int) -> tuple[Tensor, Tensor]:
    """A process's features, not below zero, as a network's are."""
    clips, student, teacher = shape
    generator = torch.Generator().manual_seed(rank)
    sizes = (clips, student), (clips, teacher)
    made = [torch.randn(s, generator=generator).relu() for s in sizes]
    return made[0].requires_grad_(), made[1]


def gradient(loss: Tensor, student: Tensor) -> Tensor:
    """The gradient with respect to a process's features."""
    return torch.autograd.grad(loss, student)[0]


def seconds(student: Tensor, teacher: Tensor, gather: bool) -> float:
    """Median time of a loss and its gradient, in step with the others."""
    times = []
    for _ in range(15):
        dist.barrier()
        begin = time.perf_counter()
        gradient(sp_loss(student, teacher, gather=gather), student)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[3:])


def compare(shape: tuple[int, int, int]) -> dict[str, object]:
    """One row of the table."""
    student, teacher = features(shape, dist.get_rank())
    alone, joint = (sp_loss(student, teacher, gather=g) for g in (False, True))
    own_grad, joint_grad = gradient(alone, student), gradient(joint, student)
    difference = (own_grad - joint_grad).norm() / joint_grad.norm()
    return {
        "shape": shape,
        "alone": alone.item(),
        "joint": joint.item(),
        "difference": difference.item(),
        "alone_s": seconds(student, teacher, gather=False),
        "joint_s": seconds(student, teacher, gather=True),
    }


COLUMNS = [
    ("clips a process x student D x teacher D", "shape", "shape"),
    ("value alone", "alone", "value"),
    ("value gathered", "joint", "value"),
    ("relative difference of the gradients", "difference", "number"),
    ("alone, ms", "alone_s", "ms"),
    ("gathered, ms", "joint_s", "ms"),
]


def main() -> None:
    """Measure; the first process prints and writes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rows = [compare(shape) for shape in SHAPES]
    note = "Two processes of one thread, gloo; figures of the first process."
    if dist.get_rank() == 0:
        made = table("SP over the clips of all processes", note, COLUMNS, rows)
        print(markdown_table(made))
        record = {"machine": describe("cpu"), "table": made}
        RESULTS.parent.mkdir(exist_ok=True)
        with replacing(RESULTS) as part:
            text = json.dumps(record, indent=1, allow_nan=False)
            part.write_text(text + "\n", encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
