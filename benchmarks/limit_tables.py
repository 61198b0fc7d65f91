"""Tables of memory, of long clips, and of how near the machine's limits are.

Authors
 * The iusp_plugin authors 2026
"""

from contenders import features, plain_iusp, step
from memory import peak_memory
from report import at_most, progress, table
from roofline import work
from settings import MEMORY_BARS, Settings, Shape
from timing import interleave

from iusp_plugin.losses import iusp_loss
from iusp_plugin.losses.costs import choose_form

SHAPE = ("batch x frames x student D x teacher D", "shape", "shape")


def _memory_row(shape: Shape, settings: Settings) -> dict:
    """Peak memory of both ways at one shape."""
    student, teacher = features(shape, settings.device)
    plain, ours = (
        peak_memory(step(loss, student, teacher), settings.device)
        for loss in (plain_iusp, iusp_loss)
    )
    return {
        "shape": shape,
        "gradient": student.numel() * student.element_size(),
        "plain": plain,
        "ours": ours,
        "times": plain / ours,
        "bar": at_most({"value": ours}, MEMORY_BARS.get(shape)),
    }


def memory(settings: Settings) -> dict:
    """Table E: the most memory held at once.

    Arguments
    ---------
    settings : Settings
        The run's.

    Returns
    -------
    dict
        As ``report.table``.
    """
    shapes = progress("E", settings.bars())
    rows = [_memory_row(shape, settings) for shape in shapes]
    columns = [
        SHAPE,
        ("gradient itself, MB", "gradient", "MB"),
        ("plain, MB", "plain", "MB"),
        ("ours, MB", "ours", "MB"),
        ("plain / ours", "times", "number"),
        ("bar, MB", "bar", "MB bar"),
    ]
    note = (
        "The highest sum of what torch's allocator gave out and did not take "
        "back during loss and gradient, the gradient included, the inputs "
        "not. 1 MB is 10^6 bytes."
    )
    return table("E. IUSP: peak memory", note, columns, rows)


def _long_row(shape: Shape, settings: Settings) -> dict:
    """Time and memory of one long clip."""
    call = step(iusp_loss, *features(shape, settings.device))
    effort = settings.effort(2.0)
    times = interleave({"ours": call}, effort, device=settings.device)
    return {
        "shape": shape,
        "form": choose_form(*shape),
        "ours": times.median("ours"),
        "peak": peak_memory(call, settings.device),
        "repetitions": times.repetitions(),
    }


def long(settings: Settings) -> dict:
    """Table F: one long clip, ours alone; see ``memory``."""
    shapes = progress("F", settings.long())
    rows = [_long_row(shape, settings) for shape in shapes]
    columns = [
        SHAPE,
        ("form", "form", "text"),
        ("ms", "ours", "ms"),
        ("peak memory, MB", "peak", "MB"),
    ]
    note = "The plain way would hold matrices of 14 GB each at 60000 frames."
    return table("F. IUSP: a long clip", note, columns, rows)


def _roofline_row(shape: Shape, settings: Settings, ceilings: dict) -> dict:
    """Rates reached at one shape beside the machine's best."""
    call = step(iusp_loss, *features(shape, settings.device))
    effort = settings.effort(2.0)
    times = interleave({"ours": call}, effort, device=settings.device)
    seconds = times.median("ours")
    form = choose_form(*shape)
    needed = work(shape, form)
    peaks = {
        "flops": ceilings["matmul"]["best"],
        "memory": ceilings["copy"]["memory"],
        "cache": ceilings["copy"]["best"],
    }
    row = {"shape": shape, "form": form, "ours": seconds}
    for name, amount in needed.items():
        row[name] = amount
        row[f"{name}_rate"] = amount / seconds / 1e9
        row[f"{name}_share"] = amount / seconds / 1e9 / peaks[name]
    limit = max(needed, key=lambda name: row[f"{name}_share"])
    return row | {"limit": limit, "repetitions": times.repetitions()}


def roofline(settings: Settings, ceilings: dict) -> dict:
    """Table H: rates reached, as shares of the machine's own.

    Arguments
    ---------
    settings : Settings
        The run's.
    ceilings : dict
        "matmul" and "copy", as ``machine`` measures them.

    Returns
    -------
    dict
        As ``report.table``.
    """
    shapes = progress("H", settings.bars())
    rows = [_roofline_row(shape, settings, ceilings) for shape in shapes]
    columns = [SHAPE, ("form", "form", "text"), ("ms", "ours", "ms")]
    units = {"flops": "GFLOP/s", "memory": "memory GB/s", "cache": "cache GB/s"}
    for name, unit in units.items():
        columns.append((unit, f"{name}_rate", "number"))
        columns.append(("share", f"{name}_share", "percent"))
    columns.append(("nearest limit", "limit", "text"))
    note = (
        "GFLOP/s: products of matrices and steps between. Memory: features "
        "in and gradient out, once. Cache: what each operator of the form "
        "reads and writes. Shares are of the ceilings above: the best "
        "product, the largest copy, the best copy. Counts are in roofline.py."
    )
    return table("H. IUSP: how near the limits", note, columns, rows)
