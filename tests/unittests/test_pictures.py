"""Pictures of frame similarities are real PNG files of the right content.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from matplotlib.image import imread

from iusp_plugin.models import get_model
from iusp_plugin.pictures import clip_features, save_similarity_picture
from iusp_plugin.taps import DEFAULT, FeatureTaps


def test_picture_has_a_panel_for_each_network(tmp_path):
    torch.manual_seed(0)
    feats = {"teacher": torch.rand(12, 5), "student": torch.rand(12, 3, 2)}
    path = tmp_path / "similarity.png"
    save_similarity_picture(path, torch.rand(50, 8), feats, 10.0, "a clip")
    wide = imread(path).shape[1]
    save_similarity_picture(
        path, torch.rand(50, 8), {"teacher": feats["teacher"]}, 10.0
    )
    narrow = imread(path).shape[1]
    assert wide > 1.3 * narrow
    assert [file.name for file in tmp_path.iterdir()] == ["similarity.png"]


def test_picture_shows_the_similarity(tmp_path):
    """Equal frames give another picture than orthogonal ones."""
    pictures = []
    for rows in (torch.ones(8, 8), torch.eye(8)):
        path = tmp_path / "p.png"
        save_similarity_picture(path, torch.zeros(8, 4), {"n": rows}, 1.0)
        pictures.append(imread(path))
    assert (pictures[0] != pictures[1]).any()


def test_clip_features_are_one_clips_tap():
    model = get_model("cnn_20k").eval()
    tapped = FeatureTaps(model, [DEFAULT])
    feats = torch.randn(80, 64)
    with torch.no_grad():
        wanted = tapped(feats.unsqueeze(0))[1][DEFAULT][0]
    assert torch.equal(clip_features(tapped, feats, DEFAULT), wanted)
