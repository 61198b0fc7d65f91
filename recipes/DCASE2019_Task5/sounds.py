"""What train.py does to its datasets: sounds added, checked, counted.

Authors
 * The iusp_plugin authors 2026
"""

from pathlib import Path

from iusp_plugin.dataio.clips import read_clip
from iusp_plugin.dataio.feature_store import feature_store

from speechbrain.utils.distributed import run_on_main


def check_datasets(datasets, data_folder, batch_size):
    """Refuse data that cannot be trained on, before a folder is claimed.

    Arguments
    ---------
    datasets : dict of str to DynamicItemDataset
        What ``dataio_prep`` returned.
    data_folder : str or Path
        Named in the error.
    batch_size : int
        Clips a training batch.
    """
    missing = sorted({"train", "validate"} - datasets.keys())
    if missing:
        raise ValueError(
            f"{data_folder} has no clips of split {' and '.join(missing)}; "
            "training needs both (evaluate.py scores a test split alone)."
        )
    n_clips = len(datasets["train"])
    if n_clips < batch_size:
        raise ValueError(
            f"batch_size={batch_size} exceeds the {n_clips} training clips, "
            "and only full batches are trained on; pass a smaller --batch_size."
        )


def add_stored_features(dataset, hparams, sides, split):
    """Log-mels of each side from a feature store; returns the new keys.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Gets one item a side.
    hparams : dict
        Loaded YAML.
    sides : dict of str to LogMel
        Front end of each new key.
    split : str
        Label of the progress bar.
    """
    audio = {item["wav"]: item["wav"] for item in dataset.data.values()}
    for key, front_end in sides.items():
        arguments = {
            "folder": Path(hparams["cache_folder"]) / "feats",
            "audio": audio,
            "front_end": front_end,
            "clip_duration_s": hparams["clip_duration_s"],
            "description": f"{key} of {split}",
        }
        run_on_main(feature_store, kwargs=arguments)
        store = feature_store(**arguments)
        dataset.add_dynamic_item(store.__getitem__, "wav", key)
    return list(sides)


def add_audio(dataset, hparams):
    """Waveforms, for features on the fly; returns the new key."""
    rate = hparams["front_end"].sample_rate
    duration = hparams["clip_duration_s"]

    def read(path):
        return read_clip(path, rate, duration)

    dataset.add_dynamic_item(read, "wav", "wavs")
    return ["wavs"]


def fit_front_end(front_end, dataset, hparams):
    """Statistics of the student's front end over the training clips.

    Arguments
    ---------
    front_end : LogMel
        Its statistics are set.
    dataset : DynamicItemDataset
        Training clips.
    hparams : dict
        Loaded YAML.
    """
    key = "feats" if hparams["feature_store"] else "wavs"

    def clips():
        with dataset.output_keys_as([key]):
            for item in dataset:
                sound = item[key]
                if key == "wavs":
                    sound = front_end.log_mel(sound.unsqueeze(0)).squeeze(0)
                yield sound

    front_end.fit_statistics(clips())
