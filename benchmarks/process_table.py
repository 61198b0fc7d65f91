"""Table F: two processes of one thread against one of two threads.

Authors
 * The iusp_plugin authors 2026
"""

import os
import re
import statistics
import subprocess
import sys

from recipe_runs import RECIPE, Workshop
from report import table
from timing import quartiles

EPOCHS = 3


def _minutes(workshop: Workshop, run: str, processes: int) -> list[float]:
    """Minutes of each training epoch but the first, from the run's log."""
    folder = workshop.folder / run
    options = workshop.overrides(
        output_folder=str(folder),
        batch_size=workshop.batch_size // processes,
        number_of_epochs=EPOCHS,
    )
    flags = [f"--{k}={v}" for k, v in options.items() if v is not None]
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone"]
        start += [f"--nproc_per_node={processes}"]
        flags += ["--distributed_backend=gloo"]
    yaml = str(RECIPE / "hparams" / "student.yaml")
    command = [*start, str(RECIPE / "train.py"), yaml, *flags]
    command += ["--device=cpu", "--noprogressbar"]
    threads = {"OMP_NUM_THREADS": str(2 // processes)}
    subprocess.run(
        command, env=os.environ | threads, check=True, capture_output=True
    )
    log = (folder / "train_log.txt").read_text()
    return [float(m) for m in re.findall(r"train minutes: ([-+.e\d]+)", log)][
        1:
    ]


def processes(workshop: Workshop, repetitions: int) -> dict:
    """Training by train.py itself, all training clips, no start-up.

    Arguments
    ---------
    workshop : Workshop
        Data.
    repetitions : int
        Of each.

    Returns
    -------
    dict
        As ``report.table``.
    """
    names = {1: "one process, two threads", 2: "two processes, one thread"}
    minutes: dict[int, list[float]] = {1: [], 2: []}
    for repetition in range(repetitions):
        for n in (1, 2) if repetition % 2 == 0 else (2, 1):
            run = f"processes_{n}_{repetition}"
            minutes[n] += _minutes(workshop, run, n)
    pairs = zip(minutes[1], minutes[2], strict=True)
    low, _, high = quartiles([a / b for a, b in pairs])
    value = statistics.median(minutes[1]) / statistics.median(minutes[2])
    rows = [
        {"name": name, "seconds": 60 * statistics.median(minutes[n])}
        for n, name in names.items()
    ]
    rows[1]["ratio"] = {"value": value, "low": low, "high": high}
    return table(
        "F. Processes and threads",
        "Training epochs of student.yaml (cnn_80k), joint batches of "
        f"{workshop.batch_size}, batch norm, gloo.",
        [
            ("way", "name", "text"),
            ("s an epoch", "seconds", "number"),
            ("times as fast", "ratio", "ratio"),
        ],
        rows,
    )
