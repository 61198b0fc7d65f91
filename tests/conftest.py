"""Fixtures that every test may ask for.

Authors
 * The iusp_plugin authors 2026
"""

import importlib
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _drop_lazy_modules() -> None:
    """Take the host's proxies of uninstalled packages out of sys.modules.

    Hypothesis looks into every module there, and these raise or warn.
    """
    for name, module in list(sys.modules.items()):
        kinds = {kind.__name__ for kind in type(module).__mro__}
        if name.startswith("speechbrain.") and "LazyModule" in kinds:
            del sys.modules[name]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems() -> None:
    """Before hypothesis looks for the first time."""
    _drop_lazy_modules()


def pytest_runtest_setup() -> None:
    """After a test that was the first to import the host."""
    _drop_lazy_modules()


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def import_from(monkeypatch):
    """import_from(folder)(name): import a script, and forget it afterwards."""
    before, folders = set(sys.modules), []

    def prepare(folder):
        monkeypatch.syspath_prepend(str(folder))
        folders.append(str(folder))
        return importlib.import_module

    yield prepare
    for name in set(sys.modules) - before:
        # Not by getattr, which would load what the host loads lazily.
        path = vars(sys.modules[name]).get("__file__") or ""
        if any(path.startswith(folder) for folder in folders):
            del sys.modules[name]


def _shared(name: str) -> Path:
    """A folder of reference data beside the checkout, or a skip."""
    base = Path(os.environ.get("IUSP_SHARED", ROOT.parent / "shared"))
    folder = base / name
    if not folder.is_dir():
        pytest.skip(f"reference data {name} is not beside the checkout")
    return folder


@pytest.fixture(scope="session")
def reference_task5() -> Path:
    """Real annotations and official reference numbers of the task."""
    return _shared("dcase2019_task5")


@pytest.fixture(scope="session")
def real_ust() -> Path:
    """Mixtures of real recordings in the layout of the release."""
    return _shared("real_ust")
