"""Who may import whom: data walk one way through the package.

Authors
 * The iusp_plugin authors 2026
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A part may import itself and the parts of earlier lines.
LAYERS = (
    {"checks", "files"},
    {"lengths"},
    {
        "losses",
        "models",
        "metrics",
        "dataio",
        "features",
        "augment",
        "precision",
        "run_folder",
    },
    {"taps", "weights", "teachers", "teacher_records", "teacher_cache"},
    {"inference", "pictures"},
    {"recipes"},
)

# Imports within a line: the importing part, and what it may import.
SIDEWAYS = {
    ("metrics", "iusp_plugin.dataio.taxonomy"),  # facts, no code
    ("dataio", "iusp_plugin.features"),  # the feature store
    ("teachers", "iusp_plugin.taps"),
    ("teachers", "iusp_plugin.weights"),
    ("teacher_cache", "iusp_plugin.teachers"),
    ("teacher_cache", "iusp_plugin.teacher_records"),
}

# Parts and modules that may know the host.
KNOW_SPEECHBRAIN = {
    "models",
    "features",
    "inference",
    "recipes",
    "iusp_plugin.metrics.stats",
}

DEEPEST = 5


def _name(path: Path) -> str:
    """Dotted name of a source file; a package's is its folder's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _sources() -> dict[str, Path]:
    """Source files of the package and the recipes by dotted name."""
    folders = (ROOT / "iusp_plugin", ROOT / "recipes")
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return {_name(path): path for path in sorted(files)}


def _part(module: str) -> str:
    """The part of the house that a module belongs to."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "iusp_plugin" else first


def _imports(text: str) -> set[str]:
    """Every name that a source text imports, wherever it does."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def _imported() -> dict[str, frozenset[str]]:
    """Imports by module; those of our own as the module that they name."""
    sources = _sources()
    found = {}
    for module, path in sources.items():
        names = _imports(path.read_text(encoding="utf-8"))
        folder = module.rpartition(".")[0]
        resolved = set()
        for name in names:
            # A recipe's script names its neighbours without their folder.
            neighbour = f"{folder}.{name.partition('.')[0]}"
            candidate = neighbour if neighbour in sources else name
            while candidate and candidate not in sources:
                candidate = candidate.rpartition(".")[0]
            resolved.add(candidate or name)
        found[module] = frozenset(resolved - {"iusp_plugin"})
    return found


def _own() -> dict[str, set[str]]:
    """The imports among our own modules."""
    own = _sources().keys()
    return {module: set(names & own) for module, names in _imported().items()}


def _line(module: str) -> int:
    """Index of a module's line in LAYERS."""
    lines = [i for i, parts in enumerate(LAYERS) if _part(module) in parts]
    assert lines, f"{module} has no place in LAYERS; give it one"
    return lines[0]


def test_the_tree_was_read():
    """The checks below see the modules and imports that exist."""
    own = _own()
    assert "iusp_plugin.checks" in own["iusp_plugin.losses.sp"]
    train = own["recipes.DCASE2019_Task5.train"]
    assert "recipes.DCASE2019_Task5.dcase2019_task5_prepare" in train
    assert "iusp_plugin.losses" in train


def test_imports_go_one_way():
    """Every part has its line, and imports earlier lines only."""
    own = _own()
    del own["iusp_plugin"]
    lines = {module: _line(module) for module in own}
    wrong = [
        f"{module} imports {target}"
        for module, targets in own.items()
        for target in targets
        if _part(module) != _part(target)
        and lines[target] >= lines[module]
        and (_part(module), target) not in SIDEWAYS
    ]
    assert not wrong, "\n".join(wrong)


def test_the_package_itself_imports_nothing():
    """``import iusp_plugin`` is light."""
    text = (ROOT / "iusp_plugin" / "__init__.py").read_text(encoding="utf-8")
    assert not _imports(text)


def test_only_some_know_speechbrain():
    """The host is known where its API is met, and nowhere else."""
    wrong = [
        module
        for module, targets in _imported().items()
        if any(target.split(".")[0] == "speechbrain" for target in targets)
        and not {_part(module), module} & KNOW_SPEECHBRAIN
    ]
    assert not wrong, f"{wrong} import speechbrain"


def test_nothing_imports_recipes():
    """Recipes use the package, never the other way round."""
    wrong = [
        f"{module} imports {target}"
        for module, targets in _imported().items()
        for target in targets
        if target.split(".")[0] == "recipes"
        and not module.startswith("recipes.")
    ]
    assert not wrong, "\n".join(wrong)


def _reached(module: str) -> set[str]:
    """What importing a module imports, directly or not."""
    imported, reached, open_ = _imported(), set(), [module]
    while open_:
        current = open_.pop()
        if current in reached:
            continue
        reached.add(current)
        open_ += imported.get(current, ())
        parent = current.rpartition(".")[0]
        if parent in imported:
            open_.append(parent)  # a package's __init__ runs first
    return reached


def test_metrics_need_no_torch():
    """Scoring files works where torch is not installed."""
    heavy = {"torch", "torchaudio", "speechbrain"}
    metrics = [
        module
        for module in _sources()
        if _part(module) == "metrics" and not module.endswith(".stats")
    ]
    assert len(metrics) > 5
    for module in metrics:
        roots = {name.split(".")[0] for name in _reached(module)}
        assert not roots & heavy, f"{module} reaches {roots & heavy}"


def _depth(module: str, above: tuple[str, ...] = ()) -> int:
    """Imports on the longest way down from a module."""
    assert module not in above, " -> ".join([*above, module])
    below = _own()[module]
    return max((1 + _depth(m, (*above, module)) for m in below), default=0)


def test_no_cycles_and_not_deep():
    """A reader of the package is at most five imports above the ground."""
    deep = {module: _depth(module) for module in _sources()}
    package = [m for m in deep if m.startswith("iusp_plugin")]
    worst = max(package, key=deep.__getitem__)
    assert deep[worst] <= DEEPEST, f"{worst} is {deep[worst]} imports deep"


@pytest.mark.parametrize(
    "module, absent",
    [
        ("iusp_plugin", {"torch", "numpy", "speechbrain"}),
        ("iusp_plugin.metrics.dcase2019_task5", {"torch", "speechbrain"}),
        ("iusp_plugin.losses", {"speechbrain", "soundfile"}),
        ("iusp_plugin.run_folder", {"torch", "numpy"}),
    ],
)
def test_importing_is_light(module, absent):
    """What really is loaded, asked of a fresh interpreter."""
    code = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(result.stdout.split())
    assert module in loaded
    assert not loaded & absent
