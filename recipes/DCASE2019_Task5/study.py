#!/usr/bin/env python3
"""Run a study: a teacher, a search of the weights, methods x students x seeds.

To run it, use the following commands:
> python study.py study_quick.yaml --data_folder=FOLDER
> python study.py study.yaml --data_folder=FOLDER --max_minutes=120
The same command goes on where the last one stopped. Several of them, on one
machine or on several that share output_folder, share the work.

Authors
 * The iusp_plugin authors 2026
"""

import argparse
import logging
import math
import os
import signal
import statistics
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from iusp_plugin.run_folder import write_json
from study_plan import Study
from study_queue import Launcher, RunFailedError, claim, is_done
from study_report import write_report
from study_results import headline
from study_search import Search, declared_search, read_settings

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
# Seconds until one looks again whether others have finished what is needed.
PATIENCE_S = 20


class Work:
    """What is left of a study, handed to workers.

    Arguments
    ---------
    study : Study
        What is declared.
    launcher : Launcher
        Does it.
    workers : int
        How many runs at a time.
    max_minutes : float, optional
        No run starts later, nor one that is expected to end later.
    """

    def __init__(self, study, launcher, workers=1, max_minutes=None):
        self.study = study
        self.launcher = launcher
        self.workers = workers
        self.started = time.time()
        self.max_minutes = max_minutes
        self.failures = {}
        self.changed = threading.Condition()
        self.active = set()
        self.minutes = defaultdict(list)
        for record in study.records().values():
            self._note_time(record)

    def _note_time(self, record):
        """Remember how long runs of a kind take."""
        if record["threads"] == self.threads(record):
            self.minutes[_kind(record)].append(record["minutes"])

    def threads(self, facts):
        """How many a run has: a teacher all the cores, others a worker's."""
        teacher = facts["stage"] == "teacher"
        return available_cores() if teacher else self.launcher.threads

    def minutes_left(self):
        """Until max_minutes; infinite without it."""
        if self.max_minutes is None:
            return float("inf")
        return self.max_minutes - (time.time() - self.started) / 60

    def expected_minutes(self, run):
        """Median of the runs of its kind; None if there are none yet."""
        known = self.minutes.get(_kind(run.facts))
        return statistics.median(known) if known else None

    def may_start(self, run):
        """Whether there is time left for a run, and no reason to stop."""
        if self.launcher.stopped.is_set() or run.name in self.failures:
            return False
        return (self.expected_minutes(run) or 0) <= self.minutes_left()

    def make_teacher(self, label):
        """Train a teacher and store what it says, with all the cores.

        Arguments
        ---------
        label : str
            Which teacher.

        Returns
        -------
        bool
            Whether it is there.
        """
        run = self.study.teacher_run(label)
        cores = self.threads(run.facts)
        while not is_done(self.study, run):
            if not self.may_start(run):
                return False
            logger.info("%s: training", run.name)
            try:
                record, made = self.launcher.train(
                    self.study, run, threads=cores
                )
            except RunFailedError as error:
                self.fail(run.name, error)
                return False
            if record is None:
                logger.info("%s: another worker trains it; waiting", run.name)
                time.sleep(PATIENCE_S)
            elif made:
                self.report(run, record)
        for place, options in self.study.cache_commands(label).items():
            name = f"cache/{label}-{place}"
            # The default is that of the YAMLs.
            default = Path(options["teacher_folder"]) / "cache"
            cache = Path(options.get("teacher_cache", default))
            # In the cache, so that it goes with it.
            marker = cache / f"stored-{place}.json"
            with claim(self.launcher.lock(name), wait=True) as held:
                if marker.is_file():
                    continue
                words = [sys.executable, str(HERE / "cache_teacher.py")]
                words += [str(HERE / "hparams" / "iusp.yaml")]
                words += [f"--{k}={v}" for k, v in options.items()]
                logger.info("%s: storing what the teacher says", name)
                try:
                    self.launcher.call(words, name, None, cores, [held])
                except RunFailedError as error:
                    self.fail(name, error)
                    return False
                write_json(marker, options)
        return True

    def settings(self):
        """What the search has found; None while it is not finished."""
        if not self.study.searched:
            return self.study.start_settings()
        return read_settings(self.study)

    def search(self):
        """Do the trials; returns the settings, or None if time ran out."""
        search = Search(self.study, self.launcher)
        self.share(search.next_runs, search.tell)
        settings = search.settings()
        if settings is not None:
            trials = {t: self.study.trials(t) for t in self.study.searched}
            facts = {"trials": trials, "settings": settings}
            facts["declared"] = declared_search(self.study)
            write_json(self.study.settings_path, facts)
            logger.info("search: trials %s, settings %s", trials, settings)
        return settings

    def share(self, next_runs, tell=None):
        """Let the workers do what there is, until nothing is left to claim.

        Arguments
        ---------
        next_runs : callable
            Gives the runs that may be started now.
        tell : callable, optional
            Is told each run and its record.
        """
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                tasks = [
                    pool.submit(self.serve, worker, next_runs, tell)
                    for worker in range(self.workers)
                ]
                for task in tasks:
                    task.result()
            except BaseException:
                self.launcher.stop()
                raise

    def serve(self, worker, next_runs, tell):
        """One worker: claim a run, do it, look for the next.

        Arguments
        ---------
        worker : int
            Its number.
        next_runs, tell : callable
            As of ``share``.
        """
        while True:
            with self.changed:
                runs = [run for run in next_runs() if self.may_start(run)]
                idle = [run for run in runs if run.name not in self.active]
            if not runs:
                return
            if not any(self.attempt(run, worker, tell) for run in idle):
                if self.launcher.stopped.is_set():
                    return
                with self.changed:
                    self.changed.wait(PATIENCE_S)

    def attempt(self, run, worker, tell):
        """Do a run unless somebody is at it; returns whether it is done.

        Arguments
        ---------
        run : Run
            Which one.
        worker : int
            Number of the worker.
        tell : callable, optional
            Is told the run and its record.
        """
        with self.changed:
            if run.name in self.active or not self.may_start(run):
                return False
            self.active.add(run.name)
        try:
            record, made = self.launcher.train(self.study, run, worker)
            if record is None:
                return False
            if tell:
                with self.changed:
                    tell(run, record)
        except RunFailedError as error:
            self.fail(run.name, error)
            return False
        finally:
            with self.changed:
                self.active.discard(run.name)
                self.changed.notify_all()
        # Another command may have done it since it was listed, and said so.
        if made:
            self.report(run, record)
        return True

    def left(self, runs):
        """Those that are not done."""
        return [run for run in runs if not is_done(self.study, run)]

    def fail(self, name, error):
        """Note that a run failed; it is not tried again in this session."""
        if self.launcher.stopped.is_set():
            return
        self.failures[name] = str(error)
        logger.error("%s failed: %s", name, error)
        if len(self.failures) >= 3:
            logger.error("Three runs have failed; nothing more is started.")
            self.launcher.stopped.set()

    def report(self, run, record):
        """One line a finished run: its figures, and how far the study is."""
        self._note_time(record)
        text = ", ".join(
            f"{name} {headline(levels)['micro_auprc']:.4f}"
            for name, levels in record["splits"].items()
        )
        if "failed" in record:
            text = f"none, it failed twice: {record['failed']}"
        logger.info(
            "%s: micro-AUPRC %s; %.1f min; %s",
            *(run.name, text, record["minutes"], self.progress()),
        )

    def progress(self):
        """What is done, running and left, and the time that it takes."""
        declared = self.study.rows(self.study.start_settings())
        trials = sum(map(self.study.trials, self.study.searched))
        records = self.study.records()
        done = sum(name.startswith("search/") for name in records)
        left = [run for run in declared if run.name not in records]
        minutes = [self.expected_minutes(run) for run in left]
        known = [value for value in minutes if value is not None]
        mean = sum(known) / len(known) if known else math.nan
        total = sum(mean if m is None else m for m in minutes)
        if trials > done:
            total += (trials - done) * mean
        n_runs, n_left = len(declared) + trials, len(left) + trials - done
        return (
            f"{n_runs - n_left} of {n_runs} done, "
            f"{len(self.active)} running here, {n_left} left, "
            f"{left_text(total / self.workers)} to go beside teachers"
        )


def _kind(facts):
    """What runs have to have in common to take equally long."""
    keys = ("student", "variant")
    return (*(facts.get(key) for key in keys), facts["stage"] == "gradients")


def left_text(minutes):
    """Minutes as people say them; not a number before the first run."""
    if math.isnan(minutes):
        return "an unknown time"
    if minutes < 90:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"


def available_cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus():
    """Names of the GPUs that this process may use."""
    count = torch.cuda.device_count()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = chosen.split(",") if chosen else [str(i) for i in range(count)]
    return names[:count]


def check_data_folder(study):
    """Say what will be trained on; raise if it cannot be there.

    Arguments
    ---------
    study : Study
        What is declared.

    Raises
    ------
    FileNotFoundError
        If the folder is absent and nothing will be downloaded.
    """
    folder = study.declared["data_folder"]
    if folder is None:
        logger.warning(
            "No data_folder: SYNTHETIC soundscapes, figures on them are no "
            "results. Pass --data_folder=... for real data."
        )
    elif not Path(folder).is_dir() and not study.declared["shared"].get(
        "download"
    ):
        raise FileNotFoundError(
            f"There is no data folder {folder}. Pass --data_folder=..., or "
            "declare download: True under shared."
        )


def run_study(study, workers=None, max_minutes=None):
    """Do what is left of a study.

    Arguments
    ---------
    study : Study
        What is declared.
    workers : int, optional
        Runs at a time; a GPU each, or a core each.
    max_minutes : float, optional
        Stop between runs after this time.

    Returns
    -------
    Work
        With the failures.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is at least 1, got {workers}.")
    check_data_folder(study)
    gpus = visible_gpus()
    workers = workers or len(gpus) or available_cores()
    threads = max(1, available_cores() // workers)
    launcher = Launcher(study.output_folder, threads, gpus)
    work = Work(study, launcher, workers, max_minutes)
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        logger.info(
            "%s: %d workers of %d threads; %s",
            *(study.output_folder, workers, threads, work.progress()),
        )
        do_all(work)
    except BaseException:
        launcher.stop()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    logger.info("%s: %s", study.output_folder, work.progress())
    return work


def do_all(work):
    """Teacher, search, rows; each as far as time allows, if it is needed."""
    study = work.study
    first = study.teachers[0]
    settings = work.settings()
    if settings is None:
        if not work.make_teacher(first):
            return
        settings = work.search()
        if settings is None:
            return

    def teacher_of(run):
        return run.facts.get("teacher", first)

    # In their order; where a teacher is needed, it is made. Without it, or if
    # time is up for some runs, there may be others.
    for teacher, block in groupby(study.rows(settings), teacher_of):
        block = list(block)
        if any("teacher" in run.facts for run in work.left(block)):
            if not work.make_teacher(teacher):
                logger.info("%s is not there; left out for now", teacher)
                block = [run for run in block if "teacher" not in run.facts]
        if work.left(block):
            work.share(partial(work.left, block))


def parse_arguments(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Run a study, or go on with it.", allow_abbrev=False
    )
    parser.add_argument("study", help="YAML that declares the study")
    for key in ("data_folder", "output_folder", "records_folder"):
        parser.add_argument(f"--{key}", help="in place of the YAML's")
    parser.add_argument(
        "--max_minutes", type=float, help="stop between runs after this time"
    )
    parser.add_argument(
        "--workers", type=int, help="runs at a time; one a GPU or a core"
    )
    parser.add_argument(
        "--report_only", action="store_true", help="run nothing"
    )
    return parser.parse_args(arguments)


def main():
    """The command line."""
    arguments = parse_arguments(sys.argv[1:])
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("speechbrain").setLevel(logging.WARNING)
    keys = ("data_folder", "output_folder", "records_folder")
    given = {key: getattr(arguments, key) for key in keys}
    overrides = {key: value for key, value in given.items() if value}
    study = Study(arguments.study, overrides)
    failures = {}
    if not arguments.report_only:
        work = run_study(study, arguments.workers, arguments.max_minutes)
        failures = work.failures
    page = write_report(study)
    logger.info("report: %s", page or "nothing to report yet")
    if failures:
        lines = [f"{name}: {error}" for name, error in failures.items()]
        sys.exit("These runs failed:\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
