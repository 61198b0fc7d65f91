"""A tiny student learns eight clips by heart while it is distilled.

Authors
 * The iusp_plugin authors 2026
"""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from iusp_plugin.features import LogMel
from iusp_plugin.losses import DistillationTerm, IUSPLoss, WeightedLosses
from iusp_plugin.models import get_model
from iusp_plugin.taps import FeatureTaps
from iusp_plugin.teachers import FrozenTeacher
from iusp_plugin.weights import save_tagger

N_CLIPS, N_TAGS, SECONDS, RATE = 8, 3, 1, 16000


def _clips(generator):
    """Noise with tones that come and go, and which tones each clip has."""
    tags = torch.tensor([[i >> k & 1 for k in range(N_TAGS)] for i in range(8)])
    time = torch.arange(SECONDS * RATE) / RATE
    wavs = 0.01 * torch.randn(N_CLIPS, len(time), generator=generator)
    for tag, freq_hz in enumerate((300.0, 1000.0, 3000.0)):
        tone = torch.sin(2 * torch.pi * freq_hz * time)
        tone *= torch.sin(2 * torch.pi * (tag + 2) * time) > 0
        wavs += 0.1 * tags[:, tag : tag + 1] * tone
    return wavs, tags.float()


@pytest.fixture
def clips():
    """Log-mels and tags of the eight clips, and the front end."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wavs, tags = _clips(torch.Generator().manual_seed(0))
        front_end = LogMel(sample_rate=RATE)
        feats = front_end.log_mel(wavs)
        front_end.fit_statistics(feats)
        yield feats, tags, front_end


@pytest.fixture
def teacher(clips, tmp_path):
    """A narrow teacher, read from a file as in a run."""
    _, _, front_end = clips
    options = {"n_classes": N_TAGS, "width": 4}
    path = tmp_path / "model.ckpt"
    save_tagger(path, get_model("cnn_teacher", **options), front_end)
    network = get_model("cnn_teacher", **options)
    return FrozenTeacher(network, LogMel(sample_rate=RATE), path)


def _train(clips, teacher, steps):
    """Losses of each step, (steps, 2): labels and IUSP, unweighted."""
    feats, tags, front_end = clips
    taps = {"student_tap": "default", "teacher_tap": "default"}
    term = DistillationTerm(IUSPLoss(alignment="pool"), weight=100.0, **taps)
    distillation = WeightedLosses({"iusp": term})
    teacher.load(distillation.teacher_taps)
    student = FeatureTaps(
        get_model("cnn_20k", n_classes=N_TAGS), distillation.student_taps
    )
    optimizer = torch.optim.Adam(student.parameters(), lr=0.005)
    seen, history = teacher(feats), []
    for _ in range(steps):
        logits, tapped = student(front_end.normalise(feats))
        label = binary_cross_entropy_with_logits(logits, tags)
        terms = distillation({"logits": logits, **tapped}, seen)
        optimizer.zero_grad()
        (label + distillation.weighted_sum(terms)).backward()
        optimizer.step()
        history.append((label.item(), terms["iusp"].item()))
    return torch.tensor(history), logits


def test_student_overfits_with_iusp(clips, teacher):
    """Labels are learnt by heart and the teacher's similarities approached."""
    history, logits = _train(clips, teacher, steps=60)
    assert ((logits > 0) == clips[1].bool()).all()
    assert history[-1, 0] < 0.1 < 0.6 < history[0, 0]
    assert history[-5:, 1].mean() < 0.5 * history[0, 1]
    written = torch.load(teacher.checkpoint, weights_only=True)["model"]
    after = teacher.tagger.model.state_dict()
    assert len(after) > 10
    assert all(torch.equal(written[key], after[key]) for key in after)
