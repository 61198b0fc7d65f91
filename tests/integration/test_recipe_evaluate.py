"""evaluate.py: finished runs, scored again and elsewhere.

Authors
 * The iusp_plugin authors 2026
"""

import json
import shutil

import pytest

from iusp_plugin.dataio.soundscapes import generate_soundscapes
from iusp_plugin.metrics.dcase2019_task5 import main as iusp_evaluate


@pytest.fixture
def evaluate(scripts):
    """Run evaluate.py in this process: evaluate(*arguments) -> record."""
    module = scripts("evaluate")

    def evaluate(*arguments):
        words = [str(argument) for argument in arguments]
        return module.evaluate(module.parse_arguments(words))

    return evaluate


@pytest.fixture(scope="module")
def test_clips(tmp_path_factory):
    """A data folder with nothing but a test split."""
    folder = tmp_path_factory.mktemp("elsewhere") / "data"
    generate_soundscapes(folder, 1, 1, n_test=8, clip_duration_s=10.0)
    shutil.rmtree(folder / "audio-dev")
    (folder / "annotations-dev.csv").unlink()
    assert {path.name for path in folder.iterdir()} >= {
        "annotations-eval.csv",
        "audio-eval",
    }
    return folder


@pytest.mark.parametrize("name", ["teacher", "iusp"])
def test_reproduces_the_run(name, runs, evaluate):
    """The same figures and predictions, to the last digit."""
    folder = runs.made(name)
    record = evaluate(folder, "--device=cpu")
    known = runs.scores(folder)
    for key in ("model", "method", "seed", "params", "macs", "splits"):
        assert record[key] == known[key], key
    assert runs.scores(folder / "evaluation") == json.loads(json.dumps(record))
    first, second = (
        (path / "predictions-validate.csv").read_text()
        for path in (folder, folder / "evaluation")
    )
    assert first == second


def test_needs_no_teacher(runs, evaluate, tmp_path):
    """A student stands alone: its folder moves, its teacher is gone."""
    runs.made("kd")
    folder = tmp_path / "moved"
    shutil.copytree(runs.folders["kd"], folder)
    settings = folder / "hyperparams.yaml"
    teacher = str(runs.folders["teacher"])
    assert teacher in settings.read_text()
    settings.write_text(settings.read_text().replace(teacher, "/gone"))
    record = evaluate(folder)
    assert record["splits"] == runs.scores("DCASE2019_Task5_row_04")["splits"]


def test_another_data_folder(runs, test_clips, tmp_path):
    """By a process: a test split alone, and the files where asked."""
    folder, out = runs.made("student"), tmp_path / "out"
    before = (folder / "scores.json").read_bytes()
    result = runs.script(
        "evaluate.py",
        str(folder),
        f"--data_folder={test_clips}",
        "--split=test",
        f"--out={out}",
    )
    assert result.returncode == 0, result.stderr
    splits = json.loads((out / "scores.json").read_text())["splits"]
    assert list(splits) == ["test"]
    assert (folder / "scores.json").read_bytes() == before
    status = iusp_evaluate(
        [
            f"--predictions={out / 'predictions-test.csv'}",
            f"--annotations={test_clips / 'annotations-eval.csv'}",
            f"--json={out / 'official.json'}",
        ]
    )
    assert status == 0
    assert json.loads((out / "official.json").read_text()) == splits["test"]


def test_every_split_that_is_there(runs, test_clips, evaluate, tmp_path):
    """Without --split, what the folder holds is scored."""
    record = evaluate(
        runs.made("student"), f"--data_folder={test_clips}", f"--out={tmp_path}"
    )
    assert list(record["splits"]) == ["test"]


def test_one_split_of_two(runs, evaluate, tmp_path):
    """--split=test on data without one is refused."""
    with pytest.raises(ValueError, match="has no clips of split test"):
        evaluate(runs.made("student"), "--split=test", f"--out={tmp_path}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["hyperparams.yaml", "model.ckpt"])
def test_unfinished_run(name, runs, evaluate, tmp_path):
    """What is missing is named."""
    folder = tmp_path / "run"
    folder.mkdir()
    for other in {"hyperparams.yaml", "model.ckpt"} - {name}:
        shutil.copy(runs.made("student") / other, folder)
    with pytest.raises(FileNotFoundError, match=f"it has no {name}. Train"):
        evaluate(folder)


def test_weights_of_another_network(runs, evaluate, tmp_path):
    """Weights and hyper-parameters of two runs do not mix."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(runs.made("student") / "hyperparams.yaml", folder)
    shutil.copy(runs.made("teacher") / "model.ckpt", folder)
    with pytest.raises(ValueError, match="holds the model of another network"):
        evaluate(folder)


def test_missing_data_folder(runs, evaluate):
    """The same message as in training."""
    with pytest.raises(FileNotFoundError, match="'/not/there' does not exist"):
        evaluate(runs.made("student"), "--data_folder=/not/there")


@pytest.mark.parametrize("wrong", [["--split=train"], ["--spli=test"], []])
def test_wrong_command_line(wrong, scripts, capsys):
    """argparse explains; nothing is abbreviated."""
    arguments = ["folder", *wrong] if wrong else []
    with pytest.raises(SystemExit):
        scripts("evaluate").parse_arguments(arguments)
    assert "usage: " in capsys.readouterr().err
