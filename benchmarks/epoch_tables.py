"""What an epoch of distillation costs, and where its time goes.

Authors
 * The iusp_plugin authors 2026
"""

import time
from collections.abc import Callable

from recipe_runs import Epoch, Workshop
from reference_training import reference_epoch
from report import at_least, at_most, table
from timing import Effort, interleave

BOTH = {"kd_weight": 1.0}
WIDTHS = {32: "1.2 M", 64: "5 M"}
COLUMNS = [
    ("epoch", "name", "text"),
    ("s", "seconds", "number"),
    ("against", "against", "text"),
    ("ratio", "ratio", "ratio"),
    ("bar", "bar", "bar"),
    ("teacher's share", "teacher", "percent"),
    ("student's share", "student", "percent"),
]


def _row(name: str, seconds: float, **more) -> dict:
    """One contender."""
    return {"name": name, "seconds": seconds, **more}


def light(workshop: Workshop, repetitions: int) -> dict:
    """Table B: epochs without a live teacher.

    Arguments
    ---------
    workshop : Workshop
        Data and teachers.
    repetitions : int
        Of every epoch.

    Returns
    -------
    dict
        As ``report.table``.
    """
    teacher = workshop.teacher(32)
    workshop.make_cache(**BOTH, **teacher)
    plain = workshop.brain("student")
    cached = workshop.brain("iusp", **BOTH, **teacher, use_teacher_cache=True)
    contenders = {
        "plain, batches in memory": plain.in_memory(),
        "plain": plain.train,
        "kd + iusp, cached": cached.train,
    }
    effort = Effort(0.0, repetitions, repetitions)
    times = interleave(contenders, effort)
    rows = [_row(name, times.median(name)) for name in contenders]
    store = times.ratio("plain", "plain, batches in memory")
    distilled = times.ratio("kd + iusp, cached", "plain")
    rows[1] |= {"against": "in memory", "ratio": store}
    rows[1]["bar"] = at_most(store, 1.05)
    rows[2] |= {"against": "plain", "ratio": distilled}
    rows[2]["bar"] = at_most(distilled, 1.10)
    rows.append(_read_row(cached))
    return table(
        "B. Epochs from the feature store and the teacher cache",
        f"Student cnn_80k, {workshop.n_clips} clips, batches of "
        f"{workshop.batch_size}, the YAML's precision and shifts; {repetitions} "
        "repetitions, one after the other in random order.",
        COLUMNS[:5],
        rows,
    )


def _read_row(epoch: Epoch) -> dict:
    """Reading one clip's records, without making tensors of them."""
    cache = epoch.brain.teacher_cache
    clips = [name for batch in epoch.loader for name in batch.audio_filename]
    stores = list(cache.stores.values())

    def read() -> None:
        for clip in clips:
            for store in stores:
                store[clip]

    times = interleave({"read": read}, Effort(1.0))
    seconds = times.median("read") / len(clips)
    bar = at_most({"value": 1e3 * seconds}, 0.1)
    name = "reading a clip's records, warm, in ms"
    return _row(name, 1e3 * seconds, bar=bar)


def _live_rows(workshop: Workshop, width: int, repetitions: int) -> list[dict]:
    """Live, cached and plainly written distillation from one teacher."""
    teacher = workshop.teacher(width)
    plain = workshop.brain("student")
    live = workshop.brain("iusp", **BOTH, **teacher)
    other = workshop.brain("iusp", **BOTH, **teacher)
    workshop.make_cache(**BOTH, **teacher)
    cached = workshop.brain("iusp", **BOTH, **teacher, use_teacher_cache=True)
    npy = workshop.folder / f"npy_{width}"
    reference, spent = reference_epoch(other, npy)
    contenders = {
        "plain": plain.train,
        "teacher": live.teacher_alone(),
        "live": live.train,
        "cached": cached.train,
        "reference": reference,
    }
    times = interleave(contenders, Effort(0.0, repetitions, repetitions))
    both = [
        a + b
        for a, b in zip(
            times.seconds["plain"], times.seconds["teacher"], strict=True
        )
    ]
    times.seconds["plain + teacher"] = both
    overhead = times.ratio("live", "plain + teacher")
    gain = times.ratio("reference", "cached")
    seconds = {name: times.median(name) for name in times.seconds}
    share = seconds["teacher"] / seconds["live"]
    size = WIDTHS[width]
    bar = at_least(gain, 8.0) if width == 64 else None
    plainly = spent["teacher"] / spent["all"]
    return [
        _row(f"plain, beside a teacher of {size}", seconds["plain"]),
        _row(f"teacher's forward alone, {size}", seconds["teacher"]),
        _row(
            f"kd + iusp, live teacher of {size}",
            seconds["live"],
            against="plain + teacher",
            ratio=overhead,
            bar=at_most(overhead, 1.05),
            teacher=share,
            student=1 - share,
        ),
        _row(f"kd + iusp, cached, {size}", seconds["cached"]),
        _row(
            f"written plainly, teacher of {size}",
            seconds["reference"],
            against="cached",
            ratio=gain,
            bar=bar,
            teacher=plainly,
            student=1 - plainly,
        ),
    ]


def live(workshop: Workshop, repetitions: int, widths: tuple) -> dict:
    """Table C: epochs with a live teacher, and distillation written plainly.

    Arguments
    ---------
    workshop : Workshop
        Data and teachers.
    repetitions : int
        Of every epoch.
    widths : tuple of int
        Of the teachers.

    Returns
    -------
    dict
        As ``report.table``.
    """
    rows = [row for w in widths for row in _live_rows(workshop, w, repetitions)]
    return table(
        "C. Epochs with a live teacher",
        "As table B. Teachers of random weights: speed does not depend on "
        "them. 'Written plainly': the teacher in every step in float32, .npy "
        "files read clip by clip without workers, the formulas with "
        "autograd's gradient, student in float32.",
        COLUMNS,
        rows,
    )


class Sections:
    """Seconds spent in calls of some objects.

    Arguments
    ---------
    calls : dict
        Object and attribute by the section's name.
    """

    def __init__(self, calls: dict[str, tuple[object, str]]):
        self.seconds = dict.fromkeys(calls, 0.0)
        for name, (owner, attribute) in calls.items():
            setattr(owner, attribute, self._timed(name, owner, attribute))

    def _timed(self, name: str, owner: object, attribute: str) -> Callable:
        """The same call, its time added up."""
        call = getattr(owner, attribute)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[name] += time.perf_counter() - start

        return timed


def profile(workshop: Workshop, repetitions: int) -> dict:
    """Table E: where the time of a distilled epoch goes.

    Arguments
    ---------
    workshop : Workshop
        Data and teachers.
    repetitions : int
        Epochs that are added up.

    Returns
    -------
    dict
        As ``report.table``.
    """
    teacher = workshop.teacher(32)
    workshop.make_cache(**BOTH, **teacher)
    epoch = workshop.brain("iusp", **BOTH, **teacher, use_teacher_cache=True)
    epoch.train()
    brain = epoch.brain
    sections = Sections(
        {
            "shifts": (brain.hparams.clip_augment, "apply"),
            "teacher's cache": (brain, "_teacher_view"),
            "student's forward": (brain.modules["student"], "forward"),
            "distillation losses": (brain.hparams.distillation, "forward"),
            "optimizer": (brain, "optimizers_step"),
        }
    )
    start = time.perf_counter()
    loading = 0.0
    for _ in range(repetitions):
        loading += _train_timed(epoch)
    total = time.perf_counter() - start
    seconds = {"loading": loading, **sections.seconds}
    seconds["backward, and the rest"] = total - sum(seconds.values())
    rows = [
        {"name": n, "seconds": s / repetitions, "share": s / total}
        for n, s in seconds.items()
    ]
    return table(
        "E. Where the time of a distilled epoch goes",
        "kd + iusp from the cache, as in table B.",
        [
            ("part", "name", "text"),
            ("s", "seconds", "number"),
            ("share", "share", "percent"),
        ],
        rows,
    )


def _train_timed(epoch: Epoch) -> float:
    """One epoch; returns the seconds spent on waiting for batches."""
    waited, batches = 0.0, iter(epoch.loader)
    number = 0
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - start
        if batch is None:
            return waited
        number += 1
        epoch.brain.step = number
        epoch.brain.fit_batch(batch)
