"""What a measurement was made with, and what the machine can do at best.

Authors
 * The iusp_plugin authors 2026
"""

import datetime
import math
import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from timing import Effort, interleave
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "iusp-plugin", "torchdistill")

# Products of n x n matrices, alone or (batch, n).
MATMULS = ((512,), (1024,), (2048,), (16, 256), (16, 512))
# Bytes of the array that is copied; the last is beyond every cache.
COPIES = (2**17, 2**19, 2**21, 2**23, 2**29)
QUICK_MATMULS = ((64,), (4, 32))
QUICK_COPIES = (2**17, 2**20)


def _cpu_model() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """What git answers about this checkout, or None without one."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> dict[str, object]:
    """The commit measured, and whether tracked files differ from it.

    Returns
    -------
    dict
        "commit", or None outside a checkout; "dirty", not counting
        earlier results.
    """
    others = ("--", ".", ":(exclude)benchmarks/results")
    changed = _git("status", "--porcelain", "--untracked-files=no", *others)
    return {"commit": _git("rev-parse", "HEAD"), "dirty": bool(changed)}


def describe(device: str) -> dict[str, object]:
    """Date, hardware, versions and commit; no names or paths of a machine.

    Arguments
    ---------
    device : str
        "cpu" or "cuda".

    Returns
    -------
    dict
        As written to the results.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    facts: dict[str, object] = {
        "date": now.isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
    }
    facts |= {package: _version(package) for package in PACKAGES}
    if device == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"] = torch.version.cuda
    return facts | commit()


def _best(call: Callable[[], object], effort: Effort, device: str) -> float:
    """Shortest seconds of a call."""
    return min(interleave({"it": call}, effort, device=device).seconds["it"])


def _products(a: Tensor, b: Tensor) -> dict[str, Callable[[], object]]:
    """The ways of torch to multiply float32 matrices, by library."""
    ways = {"matmul": lambda: torch.matmul(a, b)}
    on_cpu = a.device.type == "cpu" and torch.backends.mkldnn.is_available()
    if (
        on_cpu
        and a.dim() == 2
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        # What compiled linear layers call; torch.matmul calls MKL instead.
        linear = torch.ops.mkldnn._linear_pointwise
        ways["oneDNN"] = lambda: linear(a, b.mT, None, "none", [], "")
    return ways


def matmul_ceiling(device: str, quick: bool = False) -> dict[str, float]:
    """GFLOP/s of float32 products of square matrices.

    Arguments
    ---------
    device : str
        "cpu" or "cuda".
    quick : bool
        Try small ones only.

    Returns
    -------
    dict
        By library and size, and the best of them as "best".
    """
    effort = Effort(seconds=0.3, fewest=2 if quick else 5, most=30)
    found = {}
    for *batch, n in QUICK_MATMULS if quick else MATMULS:
        a, b = torch.randn(2, *batch, n, n, device=device)
        flops = 2 * math.prod(batch) * n**3
        size = " x ".join(str(s) for s in (*batch, n, n))
        for library, call in _products(a, b).items():
            rate = flops / _best(call, effort, device) / 1e9
            found[f"{library} {size}"] = rate
    return found | {"best": max(found.values())}


def copy_ceiling(device: str, quick: bool = False) -> dict[str, float]:
    """GB/s of copying one array to another, bytes read plus bytes written.

    Arguments
    ---------
    device : str
        "cpu" or "cuda".
    quick : bool
        Try small ones only.

    Returns
    -------
    dict
        By the size of one array, the best as "best" and that of the largest,
        which no cache holds, as "memory".
    """
    effort = Effort(seconds=0.3, fewest=2 if quick else 5, most=30)
    found = {}
    for size in QUICK_COPIES if quick else COPIES:
        source = torch.zeros(size // 4, device=device)
        target = torch.ones_like(source)

        def copy(source=source, target=target):
            target.copy_(source)

        rate = 2 * size / _best(copy, effort, device) / 1e9
        found[f"{size // 1024} KiB"] = rate
        memory = rate
    return found | {"best": max(found.values()), "memory": memory}
