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

_ERROR = re.compile(r"(\S+: )?[\w.]*(Error|Exception|Exit|Interrupt)\b")
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


def last_error(log, most=15):
    """The last error in a log and what it says; its last line without one.

    Arguments
    ---------
    log : str or Path
        Text.
    most : int
        Lines at most.
    """
    lines = Path(log).read_text(encoding="utf-8").rstrip().split("\n")
    starts = [i for i, line in enumerate(lines) if _ERROR.match(line)]
    return "\n".join(lines[starts[-1] if starts else -1 :][:most])


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
            except BaseException:  # of this process, not of the command
                process.terminate()
                process.wait()
                raise
            finally:
                self._processes.discard(process)
        if status:
            raise RunFailedError(
                f"exit status {status} (see {path})\n" + last_error(path)
            )

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
        bool
            Whether the record was made here, not found.
        """
        with claim(self.lock(run.name)) as held:
            if held is None:
                return None, False
            record_path, folder = study.record_path(run), study.folder(run)
            made = not is_done(study, run)
            if made:
                if folder.exists():
                    _check_same(study, run, folder / "study.json")
                else:
                    try:
                        self._train(study, run, worker, threads, held)
                    except RunFailedError as error:
                        record = self._failed_trial(run, error)
                        if record is None:
                            raise
                        write_json(record_path, record)
                        return record, True
                record = make_record(folder, run) | _data(study)
                write_json(record_path, record)
            record = json.loads(record_path.read_text(encoding="utf-8"))
            return record, made

    def _failed_trial(self, run, error):
        """Record of a search's trial that failed twice; else None.

        So that a setting that cannot be trained does not stop the search.
        """
        path = self.folder / "running" / run.name / "study.json"
        if self.stopped.is_set() or run.facts["stage"] != "search":
            return None
        if not path.is_file():
            return None
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not facts.get("failed"):
            write_json(path, {**facts, "failed": str(error)})
            return None
        return run.facts | facts | {"splits": {}}

    def _train(self, study, run, worker, threads, held):
        """Train in ``running``; the folder moves to ``runs`` when complete."""
        running = self.folder / "running" / run.name
        words = run.command(sys.executable, str(running))
        words.append("--noprogressbar")
        facts_path = running / "study.json"
        started = time.time()
        facts = {"minutes": 0.0, "threads": threads or self.threads}
        facts |= {"command": run.shown()} | _data(study)
        if facts_path.is_file():
            known = json.loads(facts_path.read_text(encoding="utf-8"))
            facts |= {k: known[k] for k in ("minutes", "failed") if k in known}
        try:
            self.call(words, run.name, worker, threads, [held])
        finally:
            if running.is_dir():
                facts["minutes"] += (time.time() - started) / 60
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
    _check_same(study, run, path)
    if run.facts["stage"] != "teacher":
        return True
    return (study.folder(run) / "model.ckpt").is_file()


def _data(study):
    """What a record says of the data; nothing of synthetic ones."""
    digest = study.data_digest()
    return {} if digest is None else {"data": digest}


def _check_same(study, run, path):
    """Raise if a JSON file is of a run with other settings or other data."""
    found = json.loads(path.read_text(encoding="utf-8"))
    now = {"command": run.shown()} | _data(study)
    for key, value in now.items():
        if found.get(key, value) != value:
            raise ValueError(
                f"{path} was made with other settings:\n"
                f"there: {key} {found[key]}\nnow:   {key} {value}\n"
                "Choose another --records_folder and --output_folder, or "
                "delete the record and the run's folder."
            )


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
