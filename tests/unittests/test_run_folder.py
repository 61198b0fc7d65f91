"""Run folders: claiming, resuming, refusing, writing.

Authors
 * The iusp_plugin authors 2026
"""

import hashlib
import json
import os
import platform

import numpy as np
import pytest
import torch

from iusp_plugin import files
from iusp_plugin.run_folder import (
    RUN_FILE,
    claim_run_folder,
    file_digest,
    plain_hparams,
    versions,
    write_json,
)

FACTS = {"lr": 0.001, "name": "x", "sizes": [1, 2], "teacher": None}


def test_claim_then_resume(tmp_path):
    folder = tmp_path / "results" / "run"
    assert claim_run_folder(folder, FACTS) is False
    assert json.loads((folder / RUN_FILE).read_text()) == FACTS
    assert claim_run_folder(str(folder), FACTS) is True
    assert claim_run_folder(folder, dict(reversed(FACTS.items()))) is True
    assert [p.name for p in folder.iterdir()] == [RUN_FILE]


def test_a_folder_with_other_files_can_be_claimed(tmp_path):
    (tmp_path / "train_log.txt").write_text("x")
    assert claim_run_folder(tmp_path, FACTS) is False


def test_json_s_own_types_compare_equal(tmp_path):
    facts = {"sizes": (1, 2), "by_id": {1: "a"}}
    claim_run_folder(tmp_path, facts)
    assert claim_run_folder(tmp_path, facts)
    assert claim_run_folder(tmp_path, {"sizes": [1, 2], "by_id": {"1": "a"}})


def test_refusal_lists_the_differing_keys_only(tmp_path):
    claim_run_folder(tmp_path, {**FACTS, "old": 4})
    before = (tmp_path / RUN_FILE).read_bytes()
    other = {"lr": 0.01, "name": "x", "sizes": [1, 2], "new": 3}
    with pytest.raises(ValueError, match="other settings") as caught:
        claim_run_folder(tmp_path, other)
    text = str(caught.value)
    assert "lr: 0.001 there, 0.01 now" in text
    assert "new: '(absent)' there, 3 now" in text
    assert "old: 4 there, '(absent)' now" in text
    assert "name:" not in text and "sizes:" not in text
    assert str(tmp_path) in text and "--output_folder" in text
    assert (tmp_path / RUN_FILE).read_bytes() == before


def test_json_is_complete_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "scores.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert path.read_text().endswith("}\n")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}

    def crash(source, target):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", crash)
        with pytest.raises(OSError, match="disk full"):
            write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    write_json(str(path), {"a": "ä"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ä"}
    assert [p.name for p in path.parent.iterdir()] == ["scores.json"]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 7])
def test_digest(tmp_path, size):
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(content)
    assert file_digest(path) == hashlib.sha256(content).hexdigest()


def test_digest_of_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no-such"):
        file_digest(tmp_path / "no-such")


def test_versions_are_those_that_run():
    found = versions()
    assert found["python"] == platform.python_version()
    # A build's local part (+cpu) may be missing from the metadata.
    assert torch.__version__.startswith(found["torch"].split("+")[0])
    assert found["numpy"] == np.__version__
    assert set(found) == {
        "python",
        "iusp-plugin",
        "speechbrain",
        "torch",
        "torchaudio",
        "numpy",
    }
    assert json.loads(json.dumps(found)) == found


def test_plain_hparams_keeps_values_and_drops_objects():
    hparams = {
        "seed": 1,
        "lr": 0.5,
        "name": "x",
        "flag": False,
        "none": None,
        "sizes": [1, 2.5, "a", None, True],
        "empty": [],
        "model": torch.nn.Linear(1, 1),
        "class": torch.nn.Linear,
        "mixed": [1, object()],
        "log": "elsewhere",
    }
    plain = plain_hparams(hparams, without={"log", "absent"})
    kept = ["seed", "lr", "name", "flag", "none", "sizes", "empty"]
    assert plain == {key: hparams[key] for key in kept}
    assert json.loads(json.dumps(plain)) == plain
