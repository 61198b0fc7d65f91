"""The most memory that a call holds at once, beyond what it was given.

Authors
 * The iusp_plugin authors 2026
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def running_peak(changes: list[tuple[float, int]]) -> int:
    """Highest sum of allocations on the way.

    Arguments
    ---------
    changes : list of (time, bytes)
        Bytes are negative where memory is given back.

    Returns
    -------
    int
        Bytes, at least zero.
    """
    held = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        held += change
        peak = max(peak, held)
    return peak


def _allocations(call: Callable[[], object]) -> list[tuple[float, int]]:
    """The profiler's record of what torch's CPU allocator did in a call."""
    cpu = [ProfilerActivity.CPU]
    with profile(
        activities=cpu, profile_memory=True, acc_events=True
    ) as record:
        result = call()
    del result
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        record.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return [
        (event["ts"], event["args"]["Bytes"])
        for event in events
        if event["name"] == "[memory]"
    ]


def peak_memory(call: Callable[[], object], device: str = "cpu") -> int:
    """Peak of the bytes that a call allocates, its results among them.

    Workspace that a matrix library takes without asking torch is not seen.

    Arguments
    ---------
    call : callable
        Without arguments. Its inputs exist already and do not count.
    device : str
        "cpu" or "cuda".

    Returns
    -------
    int
        Bytes.
    """
    call()  # libraries take what they keep
    if device == "cpu":
        return running_peak(_allocations(call))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
