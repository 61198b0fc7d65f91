"""Runs as processes: claimed by one worker, complete or absent, recorded.

Authors
 * The iusp_plugin authors 2026
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from iusp_plugin.run_folder import file_digest, write_json

_NUMBER = re.compile(r"([\w ]+?): ([-+.\de]+)(?=,| -|$)")


class RunFailedError(RuntimeError):
    """A run's process ended with an error."""


@contextmanager
def claim(path, wait=False):
    """Hold a lock file; gives its descriptor, or None if another holds it.

    The kernel frees it when all processes that hold it have ended, so a crash
    leaves no lock behind; processes that inherit the descriptor hold it too.

    Arguments
    ---------
    path : str or Path
        The lock file, made if absent and left in place.
    wait : bool
        Wait for it instead of giving None.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(
                descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
            )
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def learning_curve(train_log):
    """Epochs of a train_log.txt, each a dict of its figures."""
    epochs = []
    for line in Path(train_log).read_text(encoding="utf-8").splitlines():
        if line.startswith("epoch"):
            found = _NUMBER.findall(line)
            epochs.append({k.strip(): float(v) for k, v in found})
    return epochs


class Launcher:
    """Starts the scripts of this recipe and waits for them.

    Arguments
    ---------
    output_folder : str or Path
        Of the study; gets ``running``, ``runs``, ``locks`` and ``logs``.
    threads : int
        A process's share of the cores.
    devices : sequence of str
        Each worker's GPU, by number; empty for the CPU.
    """

    def __init__(self, output_folder, threads=1, devices=()):
        self.folder = Path(output_folder)
        self.threads = threads
        self.devices = list(devices)
        self.stopped = threading.Event()
        self._processes = set()

    def lock(self, name):
        """Path of a lock."""
        return self.folder / "locks" / f"{name}.lock"

    def call(self, words, log, worker=None, threads=None, held=()):
        """Run a command to its end.

        Arguments
        ---------
        words : list of str
            The command.
        log : str
            Name of its log, which is appended to.
        worker : int, optional
            Number of the worker, which decides on the GPU; all GPUs without.
        threads : int, optional
            In place of this launcher's.
        held : sequence of int
            Descriptors of locks that the command holds too.

        Raises
        ------
        RunFailedError
            If it fails; names the log and its last line.
        """
        path = self.folder / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        variables = {"OMP_NUM_THREADS": str(threads or self.threads)}
        if self.devices and worker is not None:
            device = self.devices[worker % len(self.devices)]
            variables["CUDA_VISIBLE_DEVICES"] = device
        with path.open("a", encoding="utf-8") as stream:
            process = subprocess.Popen(
                words,
                env={**os.environ, **variables},
                stdout=stream,
                stderr=subprocess.STDOUT,
                pass_fds=held,
            )
            self._processes.add(process)
            if self.stopped.is_set():
                process.terminate()
            try:
                status = process.wait()
            finally:
                self._processes.discard(process)
        if status:
            lines = path.read_text(encoding="utf-8").split("\n")
            last = next((x for x in reversed(lines) if x.strip()), "")
            raise RunFailedError(f"exit status {status}: {last} (see {path})")

    def stop(self):
        """End all processes; they resume from their checkpoints next time."""
        self.stopped.set()
        for process in list(self._processes):
            process.send_signal(signal.SIGTERM)

    def train(self, study, run, worker=None, threads=None):
        """Do a run and record it, unless it is done or another is at it.

        Arguments
        ---------
        study : Study
            Knows the folders.
        run : Run
            What to do.
        worker : int, optional
            Number of the worker; a run without one may use all GPUs.
        threads : int, optional
            In place of this launcher's.

        Returns
        -------
        dict or None
            The record; None if another worker has claimed the run.
        """
        with claim(self.lock(run.name)) as held:
            if held is None:
                return None
            record_path, folder = study.record_path(run), study.folder(run)
            if not is_done(study, run):
                if not folder.exists():
                    self._train(study, run, worker, threads, held)
                write_json(record_path, make_record(folder, run))
            return json.loads(record_path.read_text(encoding="utf-8"))

    def _train(self, study, run, worker, threads, held):
        """Train in ``running``; the folder moves to ``runs`` when complete."""
        running = self.folder / "running" / run.name
        words = run.command(sys.executable, str(running))
        words.append("--noprogressbar")
        facts_path = running / "study.json"
        started = time.time()
        before = 0.0
        if facts_path.is_file():
            before = json.loads(facts_path.read_text())["minutes"]
        try:
            self.call(words, run.name, worker, threads, [held])
        finally:
            if running.is_dir():
                minutes = before + (time.time() - started) / 60
                facts = {"minutes": minutes, "threads": threads or self.threads}
                write_json(facts_path, facts)
        folder = study.folder(run)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(running, folder)


def is_done(study, run):
    """Whether nothing is left to do; a teacher's weights are needed too.

    Arguments
    ---------
    study : Study
        Knows the folders.
    run : Run
        Which run.

    Raises
    ------
    ValueError
        If the record was made with other settings.
    """
    path = study.record_path(run)
    if not path.is_file():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["command"] != run.shown():
        raise ValueError(
            f"{path} was made with other settings:\n"
            f"there: {record['command']}\nnow:   {run.shown()}\n"
            "Choose another --records_folder and --output_folder, or delete "
            "the record and the run's folder."
        )
    if run.facts["stage"] != "teacher":
        return True
    return (study.folder(run) / "model.ckpt").is_file()


def make_record(folder, run):
    """What is kept of a finished run.

    Arguments
    ---------
    folder : str or Path
        The finished run's.
    run : Run
        What it was.

    Returns
    -------
    dict
        Its scores.json, its settings, its learning curve and its time.
    """
    folder = Path(folder)
    record = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    times = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    record |= run.facts
    record |= {
        "minutes": round(times["minutes"], 2),
        "threads": times["threads"],
    }
    record["command"] = run.shown()
    teacher = run.options.get("teacher_folder")
    if not teacher and run.facts["stage"] == "teacher":
        teacher = folder
    if teacher:
        record["teacher_sha256"] = file_digest(Path(teacher) / "model.ckpt")
    record["curve"] = learning_curve(folder / "train_log.txt")
    gradients = folder / "gradients.json"
    if gradients.is_file():
        record["gradients"] = json.loads(gradients.read_text(encoding="utf-8"))
    return record
