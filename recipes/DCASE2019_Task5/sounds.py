"""What train.py does to its datasets: sounds added, checked, counted.

Authors
 * The iusp_plugin authors 2026
"""

from pathlib import Path

from iusp_plugin.dataio.clips import read_clip
from iusp_plugin.dataio.feature_store import FeatureStore, FeatureStoreMaker
from iusp_plugin.features import band_statistics
from processes import rank_and_world

from speechbrain.dataio.dataset import FilteredSortedDynamicItemDataset
from speechbrain.utils.distributed import ddp_barrier, run_on_main


def check_datasets(datasets, data_folder, batch_size):
    """Refuse data that cannot be trained on, before a folder is claimed.

    Arguments
    ---------
    datasets : dict of str to DynamicItemDataset
        What ``dataio_prep`` returned.
    data_folder : str or Path
        Named in the error.
    batch_size : int
        Clips a training batch of one process.
    """
    missing = sorted({"train", "validate"} - datasets.keys())
    if missing:
        raise ValueError(
            f"{data_folder} has no clips of split {' and '.join(missing)}; "
            "training needs both (evaluate.py scores a test split alone)."
        )
    n_clips, (_, world) = len(datasets["train"]), rank_and_world()
    if n_clips < batch_size * world:
        times = f" on each of {world} processes" if world > 1 else ""
        raise ValueError(
            f"batch_size={batch_size}{times} exceeds the {n_clips} training "
            "clips, and only full batches are trained on; pass a smaller "
            "--batch_size."
        )


def validation_parts(dataset, validate_on):
    """The clips that epochs are chosen by and, if wanted, those held out.

    Clips are numbered from 0 in the order of their file names, so that every
    run of a data folder has the same halves.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Split "validate".
    validate_on : str
        "all", or "even": the even-numbered ones, and the odd-numbered ones
        become the split "held_out".

    Returns
    -------
    dict of str to DynamicItemDataset
        By split.
    """
    if validate_on == "all":
        return {"validate": dataset}
    if validate_on != "even":
        raise ValueError(f"validate_on is all or even, got {validate_on!r}.")
    clips = dataset.data
    ids = sorted(clips, key=lambda i: (clips[i]["audio_filename"], i))
    return {
        "validate": FilteredSortedDynamicItemDataset(dataset, ids[0::2]),
        "held_out": FilteredSortedDynamicItemDataset(dataset, ids[1::2]),
    }


def add_stored_features(dataset, hparams, sides, split, source):
    """Log-mels of each side from a feature store; returns the stores.

    Every process makes its share of what is missing.

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
    source : str
        What ``manifests.audio_source`` returned.

    Returns
    -------
    dict of str to FeatureStore
    """

    def audio():
        return {c["audio_filename"]: c["wav"] for c in dataset.data.values()}

    stores = {}
    for key, front_end in sides.items():
        maker = FeatureStoreMaker(
            Path(hparams["cache_folder"]) / "feats",
            audio,
            source,
            front_end,
            hparams["clip_duration_s"],
        )
        if not run_on_main(maker.finished):
            maker.fill(*rank_and_world(), description=f"{key} of {split}")
            ddp_barrier()
            run_on_main(maker.finish)
        stores[key] = FeatureStore(maker.folder)
        dataset.add_dynamic_item(stores[key].__getitem__, "audio_filename", key)
    return stores


def add_audio(dataset, hparams, sides):
    """Waveforms, for features on the fly; returns the new keys.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Gets the item "wavs".
    hparams : dict
        Loaded YAML.
    sides : dict of str to LogMel
        Front ends, which share one rate.
    """
    rates = {key: front_end.sample_rate for key, front_end in sides.items()}
    if len(set(rates.values())) > 1:
        raise ValueError(
            f"feature_store=False needs one rate, but the front ends have "
            f"{rates}; pass --feature_store=True."
        )
    rate = next(iter(rates.values()))
    duration = hparams["clip_duration_s"]

    def read(path):
        return read_clip(path, rate, duration)

    dataset.add_dynamic_item(read, "wav", "wavs")
    return ["wavs"]


def fit_front_end(front_end, dataset):
    """Statistics of the student's front end over the training clips.

    Arguments
    ---------
    front_end : LogMel
        Its statistics are set.
    dataset : DynamicItemDataset
        Training clips; its ``stores`` hold their log-mels, if any do.
    """

    def computed():
        with dataset.output_keys_as(["wavs"]):
            return band_statistics(
                front_end.log_mel(item["wavs"].unsqueeze(0)).squeeze(0)
                for item in dataset
            )

    store = dataset.stores.get("feats")
    statistics = computed if store is None else store.statistics
    front_end.set_statistics(*run_on_main(statistics))
