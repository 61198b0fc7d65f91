"""The recipes' YAML files: loadable, used, unambiguous, and alike.

Authors
 * The iusp_plugin authors 2026
"""

import random
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.run_opts import RunOptions

from iusp_plugin.losses import WeightedLosses

ROOT = Path(__file__).resolve().parents[2]
YAMLS = sorted(ROOT.glob("recipes/**/hparams/*.yaml"))
TASK5 = ROOT / "recipes" / "DCASE2019_Task5" / "hparams"
DISTILLED = ("kd", "sp", "iusp")
WEIGHTS = {f"{name}_weight" for name in DISTILLED}

# Run options of the host that our YAMLs set on purpose.
RUN_OPTIONS_SET = {"precision", "skip_nonfinite_grads"}

NEEDED = {
    "data_folder",
    "output_folder",
    "save_folder",
    "train_log",
    "seed",
    "student",
    "method",
    "number_of_epochs",
    "batch_size",
    "lr",
}

each_yaml = pytest.mark.parametrize("yaml", YAMLS, ids=lambda path: path.stem)


def _text(yaml: Path) -> str:
    """Content of a YAML."""
    return yaml.read_text(encoding="utf-8")


@cache
def _blocks(yaml: Path) -> dict[str, str]:
    """Text below each top-level key, without comments and empty lines."""
    blocks: dict[str, str] = {}
    for line in _text(yaml).splitlines():
        line = re.sub(r"(^|\s+)#.*", "", line).rstrip()
        if top := re.match(r"(\w+):", line):
            key = top[1]
            assert key not in blocks, f"{yaml.name} has two keys {key}"
            blocks[key] = ""
        if line:
            blocks[key] += line + "\n"
    return blocks


def _unused(blocks: dict[str, str], script: str) -> list[str]:
    """Keys that neither the script nor a later line of the YAML reads."""
    unused = []
    for key, block in blocks.items():
        rest = "".join(list(blocks.values())[list(blocks).index(key) :])
        in_script = rf'\["{key}"\]|\b(hparams|modules)\.{key}\b'
        if not (
            re.search(rf"!ref.*<{key}[\[>]", rest)
            or re.search(in_script, script)
            or key in RUN_OPTIONS_SET
            or key == "__set_seed"
            and "!apply" in block
        ):
            unused.append(key)
    return unused


def test_unused_keys_are_seen():
    """The rule below finds an unused key and no used one."""
    blocks = {
        "lr": "lr: 0.1\n",
        "lr_final": "lr_final: 0.2\n",
        "opt": "opt: !name:torch.optim.Adam\n    lr: !ref <lr>\n",
        "model": "model: !ref <net>\n",
        "net": "net: 1\n",
        "seed": "seed: 1\n",
    }
    script = 'use(hparams["opt"], hparams.model, hparams.seeds)'
    assert _unused(blocks, script) == ["lr_final", "net", "seed"]


@each_yaml
def test_every_key_is_used(yaml):
    """A number that nobody reads promises what it does not keep."""
    script = (yaml.parents[1] / "train.py").read_text(encoding="utf-8")
    assert not _unused(_blocks(yaml), script)


@each_yaml
def test_no_key_is_taken_for_a_run_option(yaml):
    """``--key`` must reach the YAML: argparse completes abbreviations."""
    options = RunOptions().as_dict().keys()
    for key in _blocks(yaml).keys() - RUN_OPTIONS_SET:
        taken = [option for option in options if option.startswith(key)]
        assert not taken, f"--{key} would be read as --{taken[0]}"


@each_yaml
def test_needed_keys(yaml):
    """What every run needs, under the host's names."""
    assert NEEDED <= _blocks(yaml).keys()


@each_yaml
def test_indentation_and_words(yaml):
    """Four spaces; True, False and null, never yes, no or None."""
    previous = 0
    for line in _text(yaml).splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # A further key of a list's entry stands under the first one.
        indent = len(line) - len(line.lstrip(" "))
        entry = previous % 4 == 2 and indent == previous
        assert entry or indent % 4 == 0 and indent <= previous + 4, line
        previous = indent + (2 if line.lstrip().startswith("- ") else 0)
        value = line.partition("#")[0].rpartition(": ")[2].strip()
        assert value not in {"None", "~", "yes", "no", "true", "false"}, line


@pytest.fixture
def random_states(monkeypatch):
    """Loading a YAML seeds everything; afterwards nothing was."""
    monkeypatch.setenv("SB_GLOBAL_SEED", "0")
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


def _load(yaml: Path, folder: Path) -> dict:
    """All objects of a YAML, its folders in a temporary one."""
    overrides = {
        key: str(folder / key)
        for key, block in _blocks(yaml).items()
        if "!PLACEHOLDER" in block
    }
    overrides["output_folder"] = str(folder / "run")
    with yaml.open(encoding="utf-8") as stream:
        return load_hyperpyyaml(stream, overrides)


@each_yaml
def test_loads(yaml, tmp_path, random_states):
    """Every object is built, and the parts fit together."""
    hparams = _load(yaml, tmp_path)
    assert hparams.keys() == _blocks(yaml).keys() - {"__set_seed"}
    assert isinstance(hparams["distillation"], WeightedLosses)
    assert hparams["precision"] in {"fp32", "bf16"}
    feats = torch.zeros(2, 100, hparams["front_end"].n_mels)
    assert hparams["model"](feats).shape == (2, hparams["n_classes"])
    optimizer = hparams["opt_class"](hparams["model"].parameters())
    assert optimizer.defaults["lr"] == hparams["lr"]
    assert hparams["skip_nonfinite_grads"] is True


@pytest.mark.parametrize("method", DISTILLED)
def test_distillation_terms(method, tmp_path, random_states):
    """A YAML's one active term is its method's."""
    hparams = _load(TASK5 / f"{method}.yaml", tmp_path)
    assert hparams["method"] == method
    active = {name for name in WEIGHTS if hparams[name] > 0}
    assert active == {f"{method}_weight"}
    terms = hparams["distillation"].terms
    assert list(terms) == [method]
    assert terms[method].weight == hparams[f"{method}_weight"]


def test_all_terms_can_be_combined(tmp_path, random_states):
    """Every weight of the YAML reaches its own term."""
    with (TASK5 / "iusp.yaml").open(encoding="utf-8") as stream:
        overrides = {"kd_weight": 1.5, "sp_weight": 2.5, "iusp_weight": 3.5}
        overrides["output_folder"] = str(tmp_path)
        hparams = load_hyperpyyaml(stream, overrides)
    weights = {k: t.weight for k, t in hparams["distillation"].terms.items()}
    assert weights == {"kd": 1.5, "sp": 2.5, "iusp": 3.5}


def test_distilled_yamls_are_alike():
    """kd, sp and iusp differ in the header, the method and three weights."""
    texts = [_text(TASK5 / f"{name}.yaml") for name in DISTILLED]
    lines = [text.splitlines() for text in texts]
    assert len({len(part) for part in lines}) == 1
    different = {
        re.match(r"# \w+|\w+", rows[0])[0]
        for rows in zip(*lines, strict=True)
        if len(set(rows)) > 1
    }
    assert different == {"# Method", "method", *WEIGHTS}


def test_plain_student_lacks_the_teacher_alone():
    """Only what concerns a teacher differs from the distilled YAMLs."""
    plain = _blocks(TASK5 / "student.yaml")
    distilled = _blocks(TASK5 / "iusp.yaml")
    taken = distilled.keys() - plain.keys()
    assert taken == WEIGHTS | {
        "teacher_n_mels",
        "teacher_seed",
        "teacher_width",
        "teacher_folder",
        "teacher_checkpoint",
        "temperature",
        "use_teacher_cache",
        "teacher_cache",
        "teacher_precision",
        "kd_schedule",
        "sp_schedule",
        "iusp_schedule",
        "sp_student_tap",
        "sp_teacher_tap",
        "iusp_student_tap",
        "iusp_teacher_tap",
        "iusp_similarity",
        "iusp_frame_weights",
        "sp_pooling",
        "sp_gather",
    }
    assert not plain.keys() - distilled.keys()
    different = {key for key in plain if plain[key] != distilled[key]}
    assert different == {"method", "teacher", "distillation"}
    assert plain["teacher"] == "teacher: null\n"


def test_teacher_and_student_hear_the_same():
    """Data, tags and front end agree; only n_mels has two names."""
    teacher = _blocks(TASK5 / "teacher.yaml")
    student = _blocks(TASK5 / "student.yaml")
    assert not student.keys() - teacher.keys()
    own = {"width", "dropout", "head_dropout"}
    assert teacher.keys() - student.keys() == own
    may_differ = {
        "method",
        "student",
        "output_folder",
        "number_of_epochs",
        "batch_size",
        "lr",
        "lr_final",
        "weight_decay",
        "time_shift",
        "shift_multiple",
        "mix_probability",
        "mix_gain_db",
        "colour_db",
        "n_time_masks",
        "time_width",
        "n_freq_masks",
        "freq_width",
        "model",
    }
    different = {key for key in student if student[key] != teacher[key]}
    assert different <= may_differ


def _value(yaml: str, key: str) -> str:
    """The plain text behind a key."""
    return _blocks(TASK5 / f"{yaml}.yaml")[key].partition(": ")[2].strip()


def test_students_find_the_teacher():
    """The defaults of teacher.yaml are those that the students expect."""
    assert _value("iusp", "teacher_seed") == _value("teacher", "seed")
    assert _value("iusp", "teacher_width") == _value("teacher", "width")
    assert _value("iusp", "teacher_n_mels") == _value("teacher", "n_mels")
    made = _value("teacher", "output_folder").replace("<method>", "teacher")
    read = _value("iusp", "teacher_folder").replace("<teacher_seed>", "<seed>")
    assert made == read
    name = f"name: {_value('teacher', 'student')}\n"
    assert name in _blocks(TASK5 / "iusp.yaml")["teacher"]
