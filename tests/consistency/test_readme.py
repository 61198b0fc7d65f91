"""What the README files say can be run, and the tables are the scores.

Authors
 * The iusp_plugin authors 2026
"""

import re

import pytest


def blocks(text, language):
    """Fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def test_python_example_runs(project_root):
    (code,) = blocks((project_root / "README.md").read_text(), "python")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102
    assert names["loss"].isfinite()


def test_make_targets_exist(project_root):
    text = (project_root / "README.md").read_text()
    makefile = (project_root / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z-]+)", text))
    assert {"demo", "test"} <= targets
    missing = {t for t in targets if not re.search(rf"^{t}:", makefile, re.M)}
    assert not missing


@pytest.fixture
def tables(project_root, import_from):
    """The recipe's script."""
    return import_from(project_root / "recipes" / "DCASE2019_Task5")("tables")


@pytest.mark.parametrize("name", ["README.md", "recipes/DCASE2019_Task5"])
def test_tables_are_made_from_the_scores_files(project_root, name, tables):
    readme = project_root / name
    readme = readme / "README.md" if readme.is_dir() else readme
    text = readme.read_text(encoding="utf-8")
    made = tables.all_tables()
    assert made
    assert tables.fill(text, made) == text, "run make tables"
    marks = re.findall(r"<!-- table (\w+) -->", text)
    assert marks and set(marks) <= made.keys()
