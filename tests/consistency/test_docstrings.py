"""Every public name says what it is, and what it takes.

Authors
 * The iusp_plugin authors 2026
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path
    for folder in ("iusp_plugin", "recipes")
    for path in (ROOT / folder).rglob("*.py")
)

# A docstring of one paragraph may explain this many arguments in passing.
FEW = 2

# The host or torch says what these take.
INHERITED = {
    "compute_forward",
    "compute_objectives",
    "on_stage_start",
    "on_stage_end",
    "train",
    "requires_grad_",
    "set_extra_state",
}

HEADINGS = ("Arguments", "Returns", "Raises", "Example", "Yields")

each_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def _definitions(
    body: list[ast.stmt], owner: ast.ClassDef | None = None
) -> Iterator[tuple[ast.ClassDef | ast.FunctionDef, ast.ClassDef | None]]:
    """Classes, functions and methods with the class that they are in."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node, owner
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, node)


def _arguments(
    function: ast.FunctionDef, owner: ast.ClassDef | None
) -> list[str]:
    """Names of the arguments, without self."""
    args = function.args
    found = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    found += [arg for arg in (args.vararg, args.kwarg) if arg]
    names = [arg.arg for arg in found]
    decorators = {ast.unparse(node) for node in function.decorator_list}
    return names[1:] if owner and "staticmethod" not in decorators else names


def _listed(doc: str) -> list[str] | None:
    """Names in the section Arguments, or None without one."""
    headings = "|".join(HEADINGS)
    sections = re.split(rf"^({headings})\n-+\n", doc, flags=re.M)
    if "Arguments" not in sections:
        return None
    section = sections[sections.index("Arguments") + 1]
    lines = re.findall(r"^(\S.*)$", section, re.M)
    return [
        name.strip().lstrip("*")
        for line in lines
        for name in line.partition(" : ")[0].split(",")
    ]


def faults(text: str) -> list[str]:
    """What the docstrings of a source text lack, one line each."""
    tree = ast.parse(text)
    found = []
    if "Authors\n * " not in (ast.get_docstring(tree) or ""):
        found.append("1: the module's docstring names no authors")
    for node, owner in _definitions(tree.body):
        where = f"{node.lineno}: {node.name}"
        doc = ast.get_docstring(node)
        is_init = node.name == "__init__"
        if node.name.startswith("__") and not is_init:
            continue
        if not doc and not is_init:
            found.append(f"{where} has no docstring")
        if isinstance(node, ast.ClassDef) or node.name in INHERITED:
            continue
        if node.name.startswith("_") and not is_init:
            continue
        names = _arguments(node, owner)
        doc = (ast.get_docstring(owner) if is_init and owner else doc) or ""
        listed = _listed(doc)
        if listed is None:
            private = owner is not None and owner.name.startswith("_")
            see = re.search(r"\bsee ``(\w+)``", doc)
            told = see and f"def {see[1]}(" in text
            many = len(names) > (0 if is_init else FEW)
            if many and not private and not told:
                found.append(f"{where} has no section Arguments")
        elif sorted(listed) != sorted(names):
            found.append(f"{where} takes {names}, its docstring says {listed}")
    return found


@each_file
def test_docstrings(path):
    """See the rules above; private names need one line, no more."""
    text = path.read_text(encoding="utf-8")
    assert not faults(text), "\n".join(
        f"{path.relative_to(ROOT)}:{fault}" for fault in faults(text)
    )


MODULE = '"""A module.\n\nAuthors\n * Somebody 2026\n"""\n'
SECTION = '"""Do.\n\n    Arguments\n    ---------\n    {}\n        It.\n    """'


@pytest.mark.parametrize(
    "code, fault",
    [
        ("def f(a, b):\n    '''Do a to b.'''", None),
        ("def f(a, b, c):\n    '''Do it.'''", "no section Arguments"),
        (f"def f(a, b):\n    {SECTION.format('a, b : int')}", None),
        (f"def f(a, *b):\n    {SECTION.format('a, *b : int')}", None),
        (f"def f(a, b):\n    {SECTION.format('a : int')}", "takes ['a', 'b']"),
        (f"def f(a):\n    {SECTION.format('a, b : int')}", "says ['a', 'b']"),
        ("def f(a, b, c):\n    '''Do it; see ``g``.'''", "no section"),
        (
            "def f(a, b, c):\n    '''Do it; see ``g``.'''\n"
            "def g(a):\n    '''Do.'''",
            None,
        ),
        ("def f():\n    pass", "f has no docstring"),
        ("def _f(a, b, c):\n    pass", "_f has no docstring"),
        ("class A:\n    pass", "A has no docstring"),
        (
            "class A:\n    '''An A.'''\n    def __init__(self, a):\n        pass",
            "__init__ has no section Arguments",
        ),
        (
            "class A:\n    '''An A.'''\n    def __len__(self):\n        pass",
            None,
        ),
    ],
)
def test_the_rules(code, fault):
    """Each rule lets pass what it should, and nothing else."""
    found = faults(MODULE + code + "\n")
    if fault is None:
        assert not found
    else:
        assert len(found) == 1 and fault in found[0]


def test_a_module_names_its_authors():
    """A docstring without them is no docstring."""
    assert faults('"""A module."""\n') == [
        "1: the module's docstring names no authors"
    ]
