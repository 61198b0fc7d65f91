"""Frame similarities of teacher, plain and distilled student, clip by clip.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from evaluate import load_run
from iusp_plugin.dataio.clips import read_clip
from iusp_plugin.dataio.manifests import Manifest
from iusp_plugin.dataio.taxonomy import COARSE_TAGS
from iusp_plugin.pictures import clip_features, save_similarity_picture
from iusp_plugin.taps import DEFAULT, FeatureTaps
from sounds import validation_parts
from train import prepare_data

import speechbrain as sb


def draw_similarities(study, results, folder, tags):
    """One picture a tag: the clip with that tag and fewest others.

    Arguments
    ---------
    study : Study
        Knows the runs' folders.
    results : Results
        Tells which runs there are.
    folder : Path
        Where the PNG files go; must exist.
    tags : sequence of str
        Coarse tags, such as "machinery-impact".

    Returns
    -------
    dict of str to Path
        Pictures by caption; empty where the runs' weights are not at hand.
    """
    runs = _run_folders(study, results)
    if runs is None:
        return {}
    loaded = {name: load_run(path) for name, path in runs.items()}
    hparams = next(iter(loaded.values()))
    data_folder, manifest_folder, _ = prepare_data(hparams)
    manifest = Manifest(
        manifest_folder / "validate.json", {"data_root": str(data_folder)}
    )
    dataset = sb.dataio.dataset.DynamicItemDataset(manifest)
    part = validation_parts(dataset, hparams["validate_on"])
    part = part.get("held_out", part["validate"])
    names = [tag.partition("_")[2] for tag in COARSE_TAGS]
    pictures = {}
    for tag in tags:
        index = names.index(tag)
        chosen = choose_clip(part, index)
        if chosen is None:
            continue
        clip = part.data[chosen]
        heard = [n for n, on in zip(names, clip["coarse"], strict=True) if on]
        path = folder / f"similarity-{tag}.png"
        _draw(path, loaded, clip)
        caption = f"{clip['audio_filename']}: {', '.join(heard)}"
        pictures[caption] = path
    return pictures


def choose_clip(dataset, index):
    """Id of the first clip with a tag and the fewest others; None without.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Clips.
    index : int
        Of the coarse tag.
    """
    having = [
        clip_id
        for clip_id in dataset.data_ids
        if dataset.data[clip_id]["coarse"][index] > 0
    ]
    return min(
        having,
        key=lambda clip_id: sum(dataset.data[clip_id]["coarse"]),
        default=None,
    )


def _run_folders(study, results):
    """Folders of a teacher, and of a plain and an IUSP student.

    The student is the one with most runs, of those whose weights are there.
    """
    iusp = {s: results.runs.get(("iusp", s), {}) for s in results.students}
    for student in sorted(iusp, key=lambda s: -len(iusp[s])):
        plain = results.runs.get((results.plain_label(), student), {})
        for seed in sorted(iusp[student]):
            if seed not in plain:
                continue
            runs = {
                "teacher": study.teacher_run(study.teachers[0]),
                f"plain {student}": study.student_run(
                    results.plain_label(), student, seed, {}
                ),
                f"iusp {student}": study.student_run(
                    "iusp", student, seed, iusp[student][seed]["settings"]
                ),
            }
            folders = {name: study.folder(run) for name, run in runs.items()}
            if all((f / "model.ckpt").is_file() for f in folders.values()):
                return folders
    return None


def _draw(path, loaded, clip):
    """Draw one clip as all networks see it."""
    feats, shown = {}, None
    for name, hparams in loaded.items():
        front_end, model = hparams["front_end"], hparams["model"].eval()
        duration = hparams["clip_duration_s"]
        wav = read_clip(clip["wav"], front_end.sample_rate, duration)
        with torch.no_grad():
            normalised = front_end(wav.unsqueeze(0))[0]
        tapped = FeatureTaps(model, [DEFAULT])
        feats[name] = clip_features(tapped, normalised, DEFAULT)
        shown = normalised if shown is None else shown
    save_similarity_picture(path, shown, feats, clip["duration"])
