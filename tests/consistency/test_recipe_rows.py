"""Rows of tests/recipes/*.csv and the recipes agree; so do the READMEs.

The table has the format of SpeechBrain's own, whose test runner reads it. The
runs themselves are in tests/integration/test_recipe_smoke.py.

Authors
 * The iusp_plugin authors 2026
"""

import csv
import re
from pathlib import Path

import pytest
from speechbrain.utils.run_opts import RunOptions

ROOT = Path(__file__).resolve().parents[2]
TABLES = sorted((ROOT / "tests" / "recipes").glob("*.csv"))
RECIPES = sorted(path.parent for path in ROOT.glob("recipes/*/train.py"))

HEADER = [
    "Task",
    "Dataset",
    "Script_file",
    "Hparam_file",
    "Data_prep_file",
    "Readme_file",
    "Result_url",
    "HF_repo",
    "test_debug_flags",
    "test_debug_checks",
    "performance",
]


def _rows(table: Path) -> list[dict[str, str]]:
    """Rows of one table."""
    with table.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        assert reader.fieldnames == HEADER
        return list(reader)


def _yamls(recipe: Path) -> set[str]:
    """A recipe's hyper-parameter files, relative to the checkout."""
    found = recipe.rglob("hparams/*.yaml")
    return {path.relative_to(ROOT).as_posix() for path in found}


def _options(yaml: Path) -> set[str]:
    """What train.py takes on its command line with a YAML."""
    text = yaml.read_text(encoding="utf-8")
    return {*re.findall(r"^(\w+):", text, re.M), *RunOptions().as_dict()}


def test_every_recipe_has_a_table():
    """The folder's name is the table's."""
    assert RECIPES
    assert [t.stem for t in TABLES] == [r.name for r in RECIPES]


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_one_row_a_yaml(table):
    """Each YAML below the recipe is run by exactly one row."""
    listed = [row["Hparam_file"] for row in _rows(table)]
    assert len(listed) == len(set(listed))
    assert set(listed) == _yamls(ROOT / "recipes" / table.stem)


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_rows_are_filled_and_true(table):
    """Files exist, flags are known, links stand in the README."""
    for row in _rows(table):
        assert row["Dataset"] == table.stem
        for field in HEADER[2:6]:
            assert (ROOT / row[field]).is_file(), f"{field}: {row[field]}"
        flags = row["test_debug_flags"].split()
        assert flags
        names = {flag.removeprefix("--").partition("=")[0] for flag in flags}
        assert names <= _options(ROOT / row["Hparam_file"])
        assert re.search(r"file_exists=\[.+\]", row["test_debug_checks"])
        assert re.search(r"performance_check=\[.+\]", row["test_debug_checks"])
        readme = (ROOT / row["Readme_file"]).read_text(encoding="utf-8")
        for field in ("Result_url", "HF_repo"):
            assert row[field] in readme


def test_rows_find_the_teacher_first():
    """Students read the folder that the runner gives to the teacher's row."""
    rows = _rows(ROOT / "tests" / "recipes" / "DCASE2019_Task5.csv")
    assert rows[0]["Hparam_file"].endswith("/teacher.yaml")
    for row in rows[1:]:
        flags = row["test_debug_flags"]
        distilled = not row["Hparam_file"].endswith("/student.yaml")
        wanted = "--teacher_folder=tests/tmp/DCASE2019_Task5_row_02"
        assert (wanted in flags) == distilled


def _commands(text: str) -> list[list[str]]:
    """Words of each command that starts a Python script, one list each."""
    joined = text.replace("\\\n", " ").replace("`", " \n")
    lines = re.findall(r"\b(?:python|torchrun)\b(.*\.py\b.*)", joined)
    return [line.split("#")[0].split() for line in lines]


def _refers(command: list[str], folder: Path) -> list[str]:
    """What is wrong with a command that is run in a folder."""
    start = next(i for i, word in enumerate(command) if word.endswith(".py"))
    script, words = folder / command[start], command[start + 1 :]
    if not script.is_file():
        return [f"no script {command[start]}"]
    known = script.read_text(encoding="utf-8")
    wrong = []
    for word in words:
        if word.endswith(".yaml"):
            if not (folder / word).is_file():
                return [*wrong, f"no file {word}"]
            known += " ".join(f'"--{o}"' for o in _options(folder / word))
        elif word.startswith("--"):
            option = word.partition("=")[0].rstrip(";,.)")
            if f'"{option}"' not in known:
                wrong.append(f"{script.name} has no {option}")
    return wrong


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_commands_of_the_readmes(recipe):
    """Whoever copies a command finds its script, its YAML, its options."""
    pages = [recipe / "README.md", ROOT / "README.md"]
    pages += sorted(recipe.glob("*.py"))
    commands = [
        (page, command)
        for page in pages
        for command in _commands(page.read_text(encoding="utf-8"))
    ]
    assert len(commands) > 8
    wrong = [
        f"{page.relative_to(ROOT)}: {' '.join(command)}: {fault}"
        for page, command in commands
        for fault in _refers(command, recipe)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_the_readme_names_every_yaml(recipe):
    """Each YAML has a command that trains with it."""
    text = (recipe / "README.md").read_text(encoding="utf-8")
    for yaml in recipe.glob("hparams/*.yaml"):
        assert f"train.py hparams/{yaml.name}" in text
