"""The recipe's scripts, run as users run them, on a tiny data set.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "DCASE2019_Task5"
ROWS = ROOT / "tests" / "recipes" / "DCASE2019_Task5.csv"


class Runs:
    """Runs of the recipe in one temporary folder.

    Arguments
    ---------
    base : Path
        Takes the place of ``tests/tmp`` in the rows' flags.
    """

    def __init__(self, base: Path):
        self.base = base
        with ROWS.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        self.rows = {Path(row["Hparam_file"]).stem: row for row in rows}
        # The runner of the host numbers its folders by the table's lines.
        self.folders = {
            name: base / f"DCASE2019_Task5_row_{line:02d}"
            for line, name in enumerate(self.rows, 2)
        }

    def flags(self, name: str) -> list[str]:
        """Flags of a YAML's row."""
        flags = self.rows[name]["test_debug_flags"]
        return flags.replace("tests/tmp", str(self.base)).split()

    def arguments(self, name: str, folder: Path | str, *more: str) -> list[str]:
        """Arguments of train.py: the row's flags, but for those given anew."""
        flags = ["--device=cpu", "--noprogressbar", *self.flags(name)]
        flags += [f"--output_folder={self.base / folder}", *more]
        last = {flag.partition("=")[0]: flag for flag in flags}
        return [str(RECIPE / "hparams" / f"{name}.yaml"), *last.values()]

    def script(self, name: str, *arguments: str):
        """Run a script of the recipe by a process of its own."""
        command = [sys.executable, str(RECIPE / name), *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command,
            cwd=self.base,
            env=environment,
            capture_output=True,
            text=True,
        )

    def train(self, name: str, folder: Path | str, *more: str):
        """Run train.py; fails with its messages unless it succeeds."""
        result = self.script("train.py", *self.arguments(name, folder, *more))
        assert result.returncode == 0, result.stdout + result.stderr
        return result

    def made(self, name: str) -> Path:
        """Folder of the run of a row, made on first use."""
        folder = self.folders[name]
        if not (folder / "scores.json").is_file():
            if name not in ("teacher", "student"):
                self.made("teacher")
            self.train(name, folder)
        return folder

    def scores(self, folder: Path | str) -> dict:
        """Content of a run's scores.json."""
        return json.loads((self.base / folder / "scores.json").read_text())


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny batches: threads cost time, and change sums in the last digit."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Runs:
    """The recipe's runs; each is made once and may be looked at by all."""
    return Runs(tmp_path_factory.mktemp("recipe"))


@pytest.fixture
def scripts(import_from, monkeypatch):
    """Import a script of the recipe, and leave no trace of running it."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("SB_GLOBAL_SEED", "0")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield import_from(RECIPE)
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def train(runs, scripts, monkeypatch):
    """Train in this process: train(yaml, folder, *flags) -> scores record."""
    module = scripts("train")

    def train(name, folder, *more):
        import speechbrain

        arguments = runs.arguments(name, folder, *more)
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        module.run(*speechbrain.parse_arguments(arguments))
        return runs.scores(folder)

    return train


@pytest.fixture
def bench(project_root, import_from):
    """A function that imports a script of the folder, for one test."""
    return import_from(project_root / "benchmarks")
