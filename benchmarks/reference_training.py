"""Distillation as small projects write it, to compare with.

The teacher runs in every step in float32, features are .npy files that are
read clip by clip, similarities are the plain formula with autograd's
gradient. Written for this comparison, after what is publicly known of such
projects; student, batch, threads and shifts are those of the recipe.

Authors
 * The iusp_plugin authors 2026
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from recipe_runs import Epoch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class NpyClips(Dataset):
    """Log-mels and targets from one .npy file a clip.

    Arguments
    ---------
    folder : Path
        Files <number>.npy.
    targets : torch.Tensor
        One row a clip.
    """

    def __init__(self, folder: Path, targets: Tensor):
        self.folder = folder
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        feats = np.load(self.folder / f"{number}.npy")
        return torch.from_numpy(feats), self.targets[number]


def plain_iusp(student: Tensor, teacher: Tensor) -> Tensor:
    """The formula as it stands, (batch, time, ...) both.

    Arguments
    ---------
    student, teacher : torch.Tensor
        Features of the same clips and frames.

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    matrices = []
    for feats in (student, teacher):
        rows = feats.flatten(2)
        matrices.append(F.normalize(rows @ rows.transpose(1, 2), dim=2))
    return (matrices[0] - matrices[1]).square().mean()


def plain_kd(student: Tensor, teacher: Tensor) -> Tensor:
    """Soft targets at temperature 1.

    Arguments
    ---------
    student, teacher : torch.Tensor
        Logits, (batch, classes).

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    return F.binary_cross_entropy_with_logits(student, teacher.sigmoid())


def save_clips(epoch: Epoch, folder: Path) -> NpyClips:
    """Write an epoch's features as .npy files.

    Arguments
    ---------
    epoch : Epoch
        What is trained on.
    folder : Path
        Made if needed.

    Returns
    -------
    NpyClips
        The dataset that reads them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets = []
    for batch in epoch.loader:
        for feats, coarse in zip(
            batch.feats.data, batch.coarse_targets.data, strict=True
        ):
            np.save(folder / f"{len(targets)}.npy", feats.numpy())
            targets.append(coarse)
    return NpyClips(folder, torch.stack(targets).float())


def reference_epoch(
    epoch: Epoch, folder: Path
) -> tuple[Callable[[], None], dict[str, float]]:
    """One epoch of such training, with an epoch's own student and teacher.

    Arguments
    ---------
    epoch : Epoch
        With a live teacher; its networks are trained on.
    folder : Path
        For the .npy files.

    Returns
    -------
    callable
        Without arguments.
    dict
        Seconds so far, of all its calls: "teacher" and "all".
    """
    clips = save_clips(epoch, folder)
    modules, hparams = epoch.brain.modules, epoch.brain.hparams
    loader = DataLoader(clips, hparams.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(modules.student.parameters(), lr=1e-3)
    terms = hparams.distillation.terms
    (tap,) = terms["iusp"].student_taps
    (teacher_tap,) = terms["iusp"].teacher_taps

    spent = {"teacher": 0.0, "all": 0.0}

    def train() -> None:
        begin = time.perf_counter()
        for feats, targets in loader:
            augment = hparams.clip_augment
            feats = augment.apply(feats, augment.draw(len(feats)))
            start = time.perf_counter()
            with torch.no_grad():
                view = modules.teacher(feats)
            spent["teacher"] += time.perf_counter() - start
            logits, taps = modules.student(modules.front_end.normalise(feats))
            coarse = logits[:, : targets.shape[1]]
            loss = F.binary_cross_entropy_with_logits(coarse, targets)
            loss = loss + plain_kd(logits, view["logits"])
            loss = loss + terms["iusp"].weight * plain_iusp(
                taps[tap], view[teacher_tap]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        spent["all"] += time.perf_counter() - begin

    return train, spent
