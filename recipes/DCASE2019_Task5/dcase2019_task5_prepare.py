"""Data preparation for DCASE 2019 Task 5 (SONYC-UST, urban sound tagging).

Turns a data folder in the layout of the release into the JSON manifests
train.json, validate.json and test.json. A data folder looks so:

    annotations-dev.csv       train and validate rows (or annotations.csv,
                              whose rows may also say test)
    annotations-eval.csv      test rows; optional
    dcase-ust-taxonomy.yaml   optional; checked when present
    audio-dev/train/          38_000000.wav ... (.wav, .ogg or .flac)
    audio-dev/validate/       00_000066.wav ...
    audio-eval/               clips of annotations-eval.csv; optional

audio/, audio/<split>/, audio-dev/ and audio-eval/test/ are searched as well,
and a folder with audio-eval/ and annotations-eval.csv alone is enough to
evaluate on.

To run it by itself:
> python dcase2019_task5_prepare.py DATA_FOLDER MANIFEST_FOLDER

Authors
 * The iusp_plugin authors 2026
"""

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from iusp_plugin.checks import check_choice, first_five
from iusp_plugin.dataio.annotations import (
    SPLITS,
    join_annotations,
    read_annotations,
)
from iusp_plugin.dataio.archives import marker_path, unpack_archive
from iusp_plugin.dataio.audio_files import (
    DURATION_POLICIES,
    AudioFile,
    check_audio,
    find_audio,
)
from iusp_plugin.dataio.download import ZENODO_URL, fetch_release
from iusp_plugin.dataio.manifests import is_prepared, md5_hex, write_manifests
from iusp_plugin.dataio.targets import TARGET_RULES, Example, compute_targets
from iusp_plugin.dataio.taxonomy import COARSE_TAGS, FINE_TAGS

from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar", ".zip")
# Raise it when the content of a manifest changes for the same inputs.
FORMAT_VERSION = 2
TOLERANCE_S = 0.05

LAYOUT = """
    annotations-dev.csv (or annotations.csv)
    annotations-eval.csv (optional)
    audio-dev/train/*.wav
    audio-dev/validate/*.wav
    audio-eval/*.wav (optional)"""


def prepare_dcase2019_task5(
    data_folder: str | Path,
    manifest_folder: str | Path,
    target_rule: str = "any",
    repair_coarse2: bool = False,
    duration_policy: str = "pad_or_crop",
    clip_duration_s: float = 10.0,
    download: bool = False,
    zenodo_record: int | str | None = None,
    release_files: Iterable[str | Mapping[str, Any]] | None = None,
    release_url: str = ZENODO_URL,
    skip_prep: bool = False,
) -> None:
    """Write the manifests of every split that the data folder holds.

    An entry of a manifest is

        "38_000000": {"wav": "{data_root}/audio-dev/train/38_000000.wav",
                      "duration": 10.0, "sensor": "38",
                      "audio_filename": "38_000000.wav",
                      "coarse": [8 floats], "fine": [29 floats]}

    A finished preparation is recognised by ``prepared.json`` and not redone
    unless the annotations, the audio files, an option, or a manifest changed.

    Arguments
    ---------
    data_folder : str or Path
        Folder in the layout above.
    manifest_folder : str or Path
        Where the manifests go; made if needed.
    target_rule : str
        any (official), majority, mean or each; see
        ``iusp_plugin.dataio.targets``.
    repair_coarse2 : bool
        Derive ``2_machinery-impact`` from the ``2-*`` tags. Figures are then
        not comparable with published ones.
    duration_policy : str
        pad_or_crop (accept other durations) or error.
    clip_duration_s : float
        Nominal duration of a clip, in seconds.
    download : bool
        First fetch and unpack ``release_files`` into the data folder.
    zenodo_record : int or str, optional
        Record to fetch from; needed with ``download``.
    release_files : iterable, optional
        Names, or mappings with ``name`` and, where known, ``size`` and
        ``md5``; needed with ``download``.
    release_url : str
        Address of a file with the fields ``{record}`` and ``{name}``.
    skip_prep : bool
        Do nothing.

    Raises
    ------
    FileNotFoundError
        If the folder, the annotations or audio files are missing.
    ValueError
        If an option, the annotations, the taxonomy or an audio file is
        faulty.
    """
    if skip_prep:
        return
    check_choice("target_rule", target_rule, TARGET_RULES)
    check_choice("duration_policy", duration_policy, DURATION_POLICIES)
    data, manifests = Path(data_folder), Path(manifest_folder)
    if download:
        _download(data, zenodo_record, release_files, release_url)
    tables = _annotation_tables(data)
    _check_taxonomy(data / "dcase-ust-taxonomy.yaml")
    examples = _read_examples(tables, target_rule, repair_coarse2)
    audio = find_audio(data, _names_by_split(examples))
    options = {
        "target_rule": target_rule,
        "repair_coarse2": bool(repair_coarse2),
        "duration_policy": duration_policy,
        "clip_duration_s": float(clip_duration_s),
    }
    paths = [path for part in audio.values() for path in part.values()]
    inputs = _fingerprint(data, tables, paths, options)
    if is_prepared(manifests, inputs):
        logger.info("%s is up to date: nothing to prepare.", manifests)
        return
    checked = check_audio(
        data, paths, clip_duration_s, TOLERANCE_S, duration_policy
    )
    files = {
        split: {name: checked[path] for name, path in part.items()}
        for split, part in audio.items()
    }
    audio_md5 = {split: _digest(part) for split, part in files.items()}
    write_manifests(manifests, _entries(examples, files), inputs, audio_md5)
    _log_summary(examples, files, clip_duration_s)


def resolve_data_folder(
    data_folder: str | Path | None,
    embedded_folder: str | Path,
    **generator_options: Any,
) -> str:
    """The data folder to use: the user's, or generated soundscapes.

    Arguments
    ---------
    data_folder : str or Path, optional
        The user's folder; None or an empty text asks for the embedded data.
    embedded_folder : str or Path
        Where the embedded data are generated, or found from an earlier run.
    **generator_options : object
        Passed on to ``generate_soundscapes``.

    Returns
    -------
    str
        Folder in the layout of the release.
    """
    if data_folder is not None and str(data_folder) != "":
        return str(data_folder)
    from iusp_plugin.dataio.soundscapes import generate_soundscapes

    generate_soundscapes(str(embedded_folder), **generator_options)
    logger.warning(
        "NO data_folder GIVEN: using generated soundscapes in %s. They show "
        "that the recipe runs; FIGURES ON THEM ARE NOT RESULTS on DCASE 2019 "
        "Task 5. Pass --data_folder for real data.",
        embedded_folder,
    )
    return str(embedded_folder)


def _annotation_tables(data: Path) -> dict[Path, str | None]:
    """The annotation files, each with the split that all its rows have."""
    if not data.is_dir():
        raise FileNotFoundError(
            f"data_folder={str(data)!r} does not exist. Pass --download=True "
            "to fetch the release into it, omit data_folder for the embedded "
            f"data, or make a folder of this layout:{LAYOUT}"
        )
    names = ("annotations-dev.csv", "annotations.csv")
    development = [data / name for name in names if (data / name).is_file()]
    if len(development) > 1:
        raise ValueError(
            f"{data} holds {names[0]} and {names[1]}. Keep the one to use."
        )
    tables: dict[Path, str | None] = dict.fromkeys(development)
    evaluation = data / "annotations-eval.csv"
    if evaluation.is_file():
        tables[evaluation] = "test"
    if not tables:
        raise FileNotFoundError(
            f"data_folder={str(data)!r} holds no annotation file. Pass "
            "--download=True to fetch the release into it, omit data_folder "
            f"for the embedded data, or follow this layout:{LAYOUT}"
        )
    return tables


def _read_examples(
    tables: Mapping[Path, str | None], target_rule: str, repair_coarse2: bool
) -> dict[str, list[Example]]:
    """The examples of each split present."""
    rows = join_annotations(
        {
            table.name: read_annotations(table, only_split)
            for table, only_split in tables.items()
        }
    )
    examples: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for example in compute_targets(rows, target_rule, repair_coarse2):
        examples[example.split].append(example)
    return {split: part for split, part in examples.items() if part}


def _names_by_split(
    examples: Mapping[str, list[Example]],
) -> dict[str, list[str]]:
    """Annotated file names of each split, each once."""
    return {
        split: list(dict.fromkeys(e.audio_filename for e in part))
        for split, part in examples.items()
    }


def _check_taxonomy(path: Path) -> None:
    """Refuse a data folder with other tags than the package's."""
    if not path.is_file():
        return
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        fine = {
            f"{c}-{k}_{name}"
            for c, tags in content["fine"].items()
            for k, name in tags.items()
        }
        coarse = {f"{c}_{name}" for c, name in content["coarse"].items()}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no taxonomy file ({error!r}). Fetch it again, or "
            "remove it: the package knows the tags."
        ) from error
    differing = (fine | coarse) ^ {*FINE_TAGS, *COARSE_TAGS}
    if differing:
        raise ValueError(
            f"{path} differs from the package's taxonomy in "
            f"{first_five(sorted(differing))}. Use the data and taxonomy of "
            "DCASE 2019 Task 5."
        )


def _fingerprint(
    data: Path,
    tables: Iterable[Path],
    audio: Iterable[Path],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What the manifests depend on; audio by its size and time of change."""
    listing = []
    for path in audio:
        status = path.stat()
        relative = path.relative_to(data).as_posix()
        listing.append([relative, status.st_size, status.st_mtime_ns])
    return {
        "format_version": FORMAT_VERSION,
        "options": dict(options),
        "annotations_md5": {t.name: md5_hex(t.read_bytes()) for t in tables},
        "audio_files_md5": md5_hex(json.dumps(sorted(listing)).encode()),
    }


def _digest(files: Mapping[str, AudioFile]) -> str:
    """MD5 of the names and bytes of a split's audio."""
    facts = sorted((name, file.md5) for name, file in files.items())
    return md5_hex(json.dumps(facts).encode())


def _entries(
    examples: Mapping[str, list[Example]],
    files: Mapping[str, Mapping[str, AudioFile]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """The examples of each split as the data loader reads them."""
    return {
        split: {
            example.example_id: {
                "wav": "{data_root}/"
                + _escape(files[split][example.audio_filename].path),
                "duration": files[split][example.audio_filename].duration,
                "sensor": _escape(example.sensor),
                "audio_filename": _escape(example.audio_filename),
                "coarse": example.coarse,
                "fine": example.fine,
            }
            for example in part
        }
        for split, part in examples.items()
    }


def _escape(text: str) -> str:
    """Double the braces: the loader fills texts by ``str.format``."""
    return text.replace("{", "{{").replace("}", "}}")


def _log_summary(
    examples: Mapping[str, list[Example]],
    files: Mapping[str, Mapping[str, AudioFile]],
    clip_duration_s: float,
) -> None:
    """A few lines a split, for the experiment's log."""
    for split, names in _names_by_split(examples).items():
        part = examples[split]
        seconds = [files[split][name].duration for name in names]
        excess = [s - clip_duration_s for s in seconds]
        totals = [
            sum(values)
            for values in zip(*(e.coarse for e in part), strict=True)
        ]
        logger.info(
            "%s: %d clips, %d examples, %.2f h, %d sensors, %d shorter (to "
            "be padded), %d longer (to be cropped), rates %s Hz; positives: "
            "%s",
            split,
            len(names),
            len(part),
            sum(seconds) / 3600,
            len({e.sensor for e in part}),
            sum(e < -TOLERANCE_S for e in excess),
            sum(e > TOLERANCE_S for e in excess),
            sorted({files[split][name].sample_rate for name in names}),
            ", ".join(
                f"{tag} {total:g}"
                for tag, total in zip(COARSE_TAGS, totals, strict=True)
            ),
        )


def _download(
    data: Path,
    record: int | str | None,
    release_files: Iterable[str | Mapping[str, Any]] | None,
    base_url: str,
) -> None:
    """Fetch the release and unpack its archives."""
    if record is None or not release_files:
        raise ValueError(
            "download=True needs zenodo_record and release_files. Name the "
            "record and its files in the YAML file."
        )
    files = [f for f in release_files if not _was_unpacked(f, data)]
    for path in fetch_release(record, files, data, base_url).values():
        if path.name.endswith(ARCHIVE_ENDINGS):
            unpack_archive(path, data)


def _was_unpacked(file: str | Mapping[str, Any], data: Path) -> bool:
    """True for an archive that was unpacked, and since removed."""
    name = file if isinstance(file, str) else str(file.get("name"))
    return not (data / name).exists() and marker_path(name, data).exists()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(f"Usage: {sys.argv[0]} DATA_FOLDER MANIFEST_FOLDER")
    logging.basicConfig(level=logging.INFO)
    prepare_dcase2019_task5(sys.argv[1], sys.argv[2])
