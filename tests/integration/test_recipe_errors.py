"""Wrong use of the recipe ends at once, with what to do instead.

Authors
 * The iusp_plugin authors 2026
"""

import pytest

from tests.reference.tiny_release import write_tiny_release


def test_other_settings_in_a_used_folder(runs, train):
    """Each differing key is named with both values."""
    folder = runs.made("student")
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    with pytest.raises(ValueError, match="other settings") as error:
        train("student", folder, "--lr=0.01", "--seed=7")
    told = str(error.value).splitlines()[1:-1]
    assert told == ["  lr: 0.003 there, 0.01 now", "  seed: 1986 there, 7 now"]
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


def test_another_teacher_in_a_used_folder(runs, train):
    """A student belongs to the teacher that taught it."""
    folder = runs.made("kd")
    train("teacher", "teacher_2", "--seed=2")
    teacher = f"--teacher_folder={runs.base / 'teacher_2'}"
    with pytest.raises(ValueError, match=r"other settings:\n  teacher: "):
        train("kd", folder, teacher)


def test_missing_teacher(train):
    """The message says which command makes one."""
    with pytest.raises(FileNotFoundError) as error:
        train("iusp", "orphan", "--teacher_folder=nowhere")
    assert "nowhere/model.ckpt" in str(error.value)
    assert "python train.py hparams/teacher.yaml" in str(error.value)


def test_teacher_of_another_width(runs, train):
    """The file is named, and that it holds another network."""
    runs.made("teacher")
    with pytest.raises(ValueError, match="model of another network") as error:
        train("iusp", "too_wide", "--teacher_width=8")
    assert "DCASE2019_Task5_row_02/model.ckpt" in str(error.value)


def test_teacher_with_another_front_end(runs, train):
    """A teacher hears what it was trained on, or nothing."""
    runs.made("teacher")
    with pytest.raises(ValueError, match="fmin: 50.0 in the checkpoint, 20"):
        train("iusp", "other_ears", "--fmin=20.0")


def test_unknown_tap(runs, train):
    """Near names are offered."""
    runs.made("teacher")
    with pytest.raises(ValueError, match="Did you mean 'block4'"):
        train("iusp", "no_tap", "--iusp_student_tap=blok4")


def test_unknown_student(train):
    """A typing error finds the name that was meant."""
    with pytest.raises(ValueError, match="Did you mean 'cnn_20k'"):
        train("student", "no_model", "--student=cnn20k")


def test_missing_data_folder(runs):
    """One error, with the layout to follow; nothing is claimed."""
    data = "--data_folder=/not/there"
    arguments = runs.arguments("student", "no_data", data)
    result = runs.script("train.py", *arguments)
    assert result.returncode == 1
    errors = [li for li in result.stderr.splitlines() if "Error: " in li]
    assert len(errors) == 1
    assert "data_folder='/not/there' does not exist" in errors[0]
    assert "audio-dev/train/*.wav" in result.stderr
    assert not (runs.base / "no_data" / "run.json").exists()


def test_unknown_override(train):
    """The key that no YAML has is named."""
    with pytest.raises(KeyError, match="batchsize"):
        train("student", "typo", "--batchsize=4")


def test_batch_larger_than_the_data(runs, train):
    """Nothing would be trained; the folder stays free for the next try."""
    with pytest.raises(ValueError, match="batch_size=25 exceeds the 24"):
        train("student", "too_few", "--batch_size=25")
    assert not (runs.base / "too_few" / "run.json").exists()


def test_no_training_clips(train, tmp_path):
    """Training needs two splits, and says which one is missing."""
    data = write_tiny_release(tmp_path / "data")
    path = data / "annotations-dev.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(li for li in lines if not li.startswith("train")))
    with pytest.raises(ValueError, match="no clips of split train;"):
        train("student", "one_split", f"--data_folder={data}")


def test_skipped_preparation(runs, train, tmp_path):
    """--skip_prep needs manifests of an earlier run."""
    cache = f"--cache_folder={tmp_path}"
    with pytest.raises(FileNotFoundError, match="run once without --skip_prep"):
        train("student", "skipped", cache, "--skip_prep=True")
