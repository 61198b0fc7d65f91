"""Pictures of frame similarities.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from iusp_plugin.files import replacing
from iusp_plugin.losses.gram import similarity_matrix


def save_similarity_picture(
    path: str | Path,
    log_mel: Tensor,
    feats: Mapping[str, Tensor],
    duration_s: float,
    title: str = "",
) -> None:
    """Draw one clip's log-mel and each network's frame similarities.

    The similarities are the cosines of the frames, centred colours from 0 to 1
    for all networks alike, time running right and down.

    Arguments
    ---------
    path : str or Path
        PNG to write; complete or absent.
    log_mel : torch.Tensor
        (frames, n_mels).
    feats : mapping of str to torch.Tensor
        Each network's tapped feature of the clip, (time, ...), by its name.
    duration_s : float
        Duration of the clip.
    title : str
        Title of the picture.
    """
    figure = Figure(figsize=(3.4 * (1 + len(feats)), 3.9), layout="constrained")
    axes = figure.subplots(1, 1 + len(feats))
    if title:
        figure.suptitle(title)
    axes[0].imshow(
        log_mel.T.cpu().numpy(),
        origin="lower",
        aspect="auto",
        extent=(0, duration_s, 0, log_mel.shape[1]),
    )
    axes[0].set(title="log-mel", xlabel="time (s)", ylabel="mel band")
    image = None
    for axis, (name, rows) in zip(axes[1:], feats.items(), strict=True):
        rows = rows.detach().float().flatten(1).unsqueeze(0)
        matrix = similarity_matrix(rows, similarity="cosine")[0]
        image = axis.imshow(
            matrix.cpu().numpy(),
            vmin=0,
            vmax=1,
            extent=(0, duration_s, duration_s, 0),
        )
        axis.set(title=f"{name}, {len(matrix)} frames", xlabel="time (s)")
    if image is not None:
        figure.colorbar(image, ax=axes[1:], label="cosine", shrink=0.8)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)


@torch.no_grad()
def clip_features(tapped: torch.nn.Module, feats: Tensor, tap: str) -> Tensor:
    """One tap's feature of one clip.

    Arguments
    ---------
    tapped : FeatureTaps
        The network in eval mode.
    feats : torch.Tensor
        Normalised log-mel, (frames, n_mels).
    tap : str
        Name of the tap.

    Returns
    -------
    torch.Tensor
        (time, ...).
    """
    _, taps = tapped(feats.unsqueeze(0))
    return taps[tap][0]
