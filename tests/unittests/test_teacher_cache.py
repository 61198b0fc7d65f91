"""Cached outputs stand in for the teacher, and for no other teacher.

Authors
 * The iusp_plugin authors 2026
"""

import numpy as np
import pytest
import torch

from iusp_plugin import teacher_cache as module
from iusp_plugin.augment import ClipAugment, roll_frames
from iusp_plugin.features import LogMel
from iusp_plugin.losses import (
    CosineSimilarity,
    cosine_similarity,
    iusp_loss,
    sp_loss,
)
from iusp_plugin.models import get_model
from iusp_plugin.teacher_cache import (
    TeacherCache,
    cache_identity,
    cache_parts,
    check_augmentation,
    part_writer,
)
from iusp_plugin.teacher_records import Part, make_records
from iusp_plugin.teachers import FrozenTeacher
from iusp_plugin.weights import save_tagger

CLIPS = ["a.wav", "b.wav", "c.wav", "d.wav"]
LENGTHS = torch.tensor([1.0, 0.5, 1.0, 0.75])
# 84 frames: ten of the default tap's, and four that are left over.
FRAMES = 84
RECORDS = [
    ("logits", "features"),
    ("default", "cosine"),
    ("default", "mean"),
    ("default", "features"),
    ("block2", "cosine"),
]


def make_teacher(folder, seed=0, **front_end):
    """A loaded teacher of random weights."""
    torch.manual_seed(seed)
    model = get_model("cnn_20k", n_classes=5, n_mels=16)
    made = LogMel(n_mels=16, **front_end)
    save_tagger(folder / f"{seed}.ckpt", model, made)
    teacher = FrozenTeacher(model, made, folder / f"{seed}.ckpt")
    return teacher.load(["default", "block2"])


@pytest.fixture
def teacher(tmp_path):
    return make_teacher(tmp_path)


def feats(lengths=None):
    """Four clips, zeros behind the shorter ones."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(4, FRAMES, 16, generator=generator)
    if lengths is not None:
        for clip, share in zip(clips, lengths, strict=True):
            clip[round(float(share) * FRAMES) :] = 0
    return clips


def identity_of(teacher, **more):
    """What a cache of this test is made from."""
    facts = {
        "source": "train, 0a1b",
        "precision": "fp32",
        "clip_duration_s": 1.68,
    }
    return cache_identity(teacher, **{**facts, **more})


def fill(folder, teacher, lengths=None, records=RECORDS):
    """Make a cache of the four clips; returns its parts."""
    parts = cache_parts(teacher, records)
    identity = identity_of(teacher)
    view = teacher(feats(lengths), lengths)
    whole = torch.ones(4) if lengths is None else lengths
    for part in parts:
        writer = part_writer(folder, part, identity, CLIPS)
        for number in writer.missing():
            writer.write(number, make_records(part, view, whole))
        writer.finish()
    return parts


def opened(folder, teacher, records=RECORDS, **more):
    """The cache, as training opens it."""
    parts = cache_parts(teacher, records)
    return TeacherCache(folder, parts, identity_of(teacher, **more))


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "short"])
def test_it_says_what_the_teacher_says(tmp_path, teacher, lengths):
    fill(tmp_path / "c", teacher, lengths)
    live = teacher(feats(lengths), lengths)
    order = [2, 0, 3, 1]
    kept = opened(tmp_path / "c", teacher).batch([CLIPS[i] for i in order])
    live = {name: value[order] for name, value in live.items()}
    lengths = None if lengths is None else lengths[order]
    assert list(kept) == [
        *("logits", "default.cosine", "default.mean", "default"),
        "block2.cosine",
    ]
    assert torch.equal(kept["logits"], live["logits"])
    torch.testing.assert_close(
        kept["default"].float()[0], live["default"][0], atol=1e-3, rtol=1e-3
    )
    student = torch.rand(4, 10, 7)
    for tap, frames in (("default", 10), ("block2", 42)):
        student = torch.rand(4, frames, 7)
        for similarity in ("row_l2", "cosine"):
            options = {"lengths": lengths, "similarity": similarity}
            expected = iusp_loss(student, live[tap], **options)
            record = kept[f"{tap}.cosine"]
            found = iusp_loss(student, teacher_similarity=record, **options)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    student = torch.rand(4, 10, 7)
    options = {"lengths": lengths, "pooling": "mean"}
    expected = sp_loss(student, live["default"], **options)
    found = sp_loss(student, kept["default.mean"], **options)
    torch.testing.assert_close(found, expected)
    expected = sp_loss(student, live["default"], lengths)
    found = sp_loss(student, kept["default"], lengths)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "short"])
def test_it_turns_with_the_clip(tmp_path, teacher, lengths):
    """As if the teacher's frames had turned, to the last bit of float16."""
    fill(tmp_path / "c", teacher, lengths)
    whole = torch.ones(4) if lengths is None else lengths
    n_frames = (whole * FRAMES).round().long()
    augment = ClipAugment(shift_multiple=8)
    torch.manual_seed(3)
    shift = augment.shift_frames(augment.draw(4), n_frames)
    assert shift[0].max() > 0 and (shift[0] % 8 == 0).all()
    kept = opened(tmp_path / "c", teacher).batch(CLIPS, shift)
    turn = [frames // 8 for frames in shift]
    live = teacher(feats(lengths), lengths)
    rolled = roll_frames(live["default"], *turn)
    expected = cosine_similarity(rolled, lengths)
    record = kept["default.cosine"]
    assert torch.equal(record.cosine, expected.cosine.half().float())
    torch.testing.assert_close(record.norms, expected.norms)
    valid = (whole * 10).round().long()
    for clip, n in enumerate(valid):
        torch.testing.assert_close(
            kept["default"][clip, :n], rolled[clip, :n].half()
        )
    # What has no time axis stays; another stride turns by its own frames.
    assert torch.equal(kept["logits"], live["logits"])
    wider = roll_frames(live["block2"], *(frames // 2 for frames in shift))
    expected = cosine_similarity(wider, lengths).cosine.half().float()
    assert torch.equal(kept["block2.cosine"].cosine, expected)


@pytest.mark.parametrize("t", [1, 2, 7])
def test_halves_are_whole_again(t):
    """The diagonal and both triangles, for clips of differing length."""
    feats = torch.rand(3, t, 4)
    feats[0, 0] = 0  # a silent frame has no diagonal
    lengths = torch.tensor([1.0, 1 / t, 1.0])
    record = cosine_similarity(feats, lengths)
    part = Part("block4", "block4", "cosine", 8)
    halves = make_records(part, {"block4": feats}, lengths)
    assert [len(half["norms"]) for half in halves] == [t, 1, t]
    assert len(halves[0]["cosine"]) == t * (t + 1) // 2
    assert halves[0]["cosine"].dtype == np.float16
    found = module.unpack(halves, None, "cpu")
    assert isinstance(found, CosineSimilarity)
    assert torch.equal(found.cosine, record.cosine.half().float())
    assert torch.equal(found.norms, record.norms)


def test_default_is_a_name_of_the_same_tap(tmp_path, teacher):
    fill(tmp_path / "c", teacher)
    records = [("block4", "cosine")]
    parts = cache_parts(teacher, records)
    assert parts == [Part("block4", "block4", "cosine", 8)]
    cache = TeacherCache(tmp_path / "c", parts, identity_of(teacher))
    assert list(cache.batch(CLIPS)) == ["block4.cosine"]


def test_an_unknown_tap_is_named(teacher):
    with pytest.raises(ValueError, match="teacher_tap='blok4'.*'block4'"):
        cache_parts(teacher, [("blok4", "cosine")])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": "train, ffff"}, "clips: 'train, 0a1b' there, 'train, ffff"),
        ({"precision": "bf16"}, "precision: 'fp32' there, 'bf16' now"),
        ({"clip_duration_s": 5}, "clip_duration_s: 1.68 there, 5.0 now"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_differs_is_named(tmp_path, teacher, change, told):
    fill(tmp_path / "c", teacher)
    with pytest.raises(ValueError, match=told) as error:
        opened(tmp_path / "c", teacher, **change)
    assert "Delete that folder, and make it again with:" in str(error.value)
    assert "python cache_teacher.py" in str(error.value)
    assert "--use_teacher_cache=False" in str(error.value)
    assert str(error.value).count(" there, ") == 1


def test_another_teacher_or_version(tmp_path, teacher, monkeypatch):
    fill(tmp_path / "c", teacher)
    other = make_teacher(tmp_path, seed=1)
    with pytest.raises(ValueError, match="teacher: '[0-9a-f]{64}' there"):
        opened(tmp_path / "c", other)
    with pytest.raises(ValueError, match="choose another --teacher_cache"):
        fill(tmp_path / "c", other)
    # Its own front end is part of a teacher.
    other = make_teacher(tmp_path, fmin=20.0)
    with pytest.raises(
        ValueError, match=r"front_end\.fmin: 50.0 there, 20.0 now"
    ):
        opened(tmp_path / "c", other)
    teacher = make_teacher(tmp_path)
    opened(tmp_path / "c", teacher)
    monkeypatch.setattr(module, "CACHE_VERSION", 99)
    with pytest.raises(ValueError, match="format: 1 there, 99 now"):
        opened(tmp_path / "c", teacher)
    monkeypatch.undo()
    monkeypatch.setattr(module.importlib.metadata, "version", lambda _: "9.9")
    with pytest.raises(ValueError, match="code: .* there, '9.9' now"):
        opened(tmp_path / "c", teacher)


def test_absent_unfinished_or_damaged(tmp_path, teacher):
    with pytest.raises(FileNotFoundError, match="No teacher cache at .*logits"):
        opened(tmp_path / "c", teacher)
    fill(tmp_path / "c", teacher, records=RECORDS[:1])
    with pytest.raises(FileNotFoundError, match=r"block4\.cosine"):
        opened(tmp_path / "c", teacher)
    fill(tmp_path / "c", teacher)
    index = tmp_path / "c" / "block4.mean" / "index.json"
    content = index.read_text()
    index.unlink()
    with pytest.raises(ValueError, match="mean is not finished"):
        opened(tmp_path / "c", teacher)
    index.write_text(content)
    shard = index.with_name("shard-00000.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="shard-00000.* bytes instead of"):
        opened(tmp_path / "c", teacher)


def test_a_missing_clip_is_named(tmp_path, teacher):
    fill(tmp_path / "c", teacher)
    with pytest.raises(KeyError, match="Clip 'e.wav' is not in"):
        opened(tmp_path / "c", teacher).batch(["a.wav", "e.wav"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mix_probability": 0.5}, "mix_probability=0.5 changes what"),
        ({"colour_db": 3.0}, "colour_db=3 changes what"),
        ({"shift_multiple": 4}, "shift_multiple=4 is not a multiple of 8"),
        ({"shift_multiple": 1}, "set shift_multiple=8, time_shift=False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refused_augmentation(teacher, options, told):
    parts = cache_parts(teacher, RECORDS)
    with pytest.raises(ValueError, match=told) as error:
        check_augmentation(ClipAugment(**options), parts)
    assert "--use_teacher_cache=False" in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"shift_multiple": 8},
        {"shift_multiple": 16, "mix_gain_db": 3.0},
        {"time_shift": False, "shift_multiple": 1},
    ],
)
def test_allowed_augmentation(teacher, options):
    check_augmentation(ClipAugment(**options), cache_parts(teacher, RECORDS))


def test_logits_have_no_stride(teacher):
    parts = cache_parts(teacher, RECORDS[:1])
    check_augmentation(ClipAugment(shift_multiple=1), parts)


def test_what_float16_cannot_hold(teacher):
    (part,) = cache_parts(teacher, [("default", "features")])
    view = {"default": torch.full((1, 2, 3), 7e4)}
    with pytest.raises(ValueError, match="values up to 70000, which float16"):
        make_records(part, view, torch.ones(1))
