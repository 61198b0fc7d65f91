#!/usr/bin/env python3
"""Run the frozen teacher once over the training clips and keep what it says.

Every student can then be distilled without the teacher. What is kept is what
the YAML's active losses need; what is there already is not made again, and an
interrupted run goes on where it stopped. To run it, use the following
commands:
> python cache_teacher.py hparams/iusp.yaml --kd_weight=1.0
> torchrun --nproc_per_node=N cache_teacher.py hparams/iusp.yaml
and then
> python train.py hparams/iusp.yaml --kd_weight=1.0 --use_teacher_cache=True

Authors
 * The iusp_plugin authors 2026
"""

import shutil
import sys
import time

import torch
from hyperpyyaml import load_hyperpyyaml
from iusp_plugin.teacher_cache import part_writer
from iusp_plugin.teacher_records import make_records, record_bytes
from processes import leave_group, rank_and_world
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.functional import pad
from tqdm import tqdm
from train import cache_facts, dataio_prep, prepare_data

import speechbrain as sb
from speechbrain.utils.autocast import AMPConfig
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    infer_device,
    run_on_main,
)
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


class Listener:
    """The teacher on its device, in its precision, on whole clips.

    Arguments
    ---------
    hparams : dict
        Loaded YAML.
    device : str
        Where the teacher runs.
    """

    def __init__(self, hparams, device):
        self.device = torch.device(device)
        self.teacher = hparams["teacher"].to(self.device)
        self.stored = hparams["feature_store"]
        self.dtype = AMPConfig.from_name(hparams["teacher_precision"]).dtype
        front_end = self.teacher.front_end
        n_samples = round(hparams["clip_duration_s"] * front_end.sample_rate)
        self.n_frames = n_samples // front_end.hop_length

    @torch.no_grad()
    def hear(self, items):
        """The teacher's view of some clips, and their relative lengths.

        Shorter clips are padded to the longest duration, so that a record
        does not depend on the batch in which it is made.
        """
        batch = sb.dataio.batch.PaddedBatch(items).to(self.device)
        if self.stored:
            feats, lengths = batch.teacher_feats
        else:
            wavs, lengths = batch.wavs
            feats = self.teacher.front_end.log_mel(wavs)
        lengths = lengths * feats.shape[1] / self.n_frames
        feats = pad(feats, (0, 0, 0, self.n_frames - feats.shape[1]))
        whole = bool((lengths == 1).all())
        kind = self.device.type
        with torch.autocast(kind, self.dtype, self.dtype != torch.float32):
            view = self.teacher(feats, None if whole else lengths)
        return view, lengths


def check_space(folder, parts, listener, n_clips):
    """Say how much will be written, and refuse what the disk cannot hold.

    Arguments
    ---------
    folder : Path
        The cache.
    parts : list of Part
        What will be kept.
    listener : Listener
        Tries one silent clip.
    n_clips : int
        Clips to come.
    """
    key = "teacher_feats" if listener.stored else "wavs"
    front_end = listener.teacher.front_end
    silence = torch.zeros(listener.n_frames * front_end.hop_length)
    if listener.stored:
        silence = front_end.log_mel(silence.unsqueeze(0).to(listener.device))
        silence = silence.squeeze(0).cpu()
    view, lengths = listener.hear([{key: silence}])
    total = 0
    for part in parts:
        size = record_bytes(make_records(part, view, lengths)[0])
        logger.info(
            "%s: %.1f kB a clip, %.1f MB in %s",
            *(part.folder, size / 1e3, size * n_clips / 1e6),
            folder / part.folder,
        )
        total += size * n_clips
    free = shutil.disk_usage(folder).free
    if total > free:
        raise OSError(
            f"The cache needs {total / 1e9:.1f} GB and {folder} has "
            f"{free / 1e9:.1f} GB free; choose another --teacher_cache, or "
            "keep less of the teacher (--sp_pooling=mean)."
        )


def fill(writers, listener, dataset, rows, batch_size):
    """Compute this process's share of what is missing.

    Arguments
    ---------
    writers : dict of Part to ShardWriter
        Where the records go.
    listener : Listener
        The teacher.
    dataset : DynamicItemDataset
        Training clips.
    rows : dict of str to int
        Row of each clip in the dataset.
    batch_size : int
        Clips the teacher hears at once.

    Returns
    -------
    int
        Clips heard.
    """
    rank, world = rank_and_world()
    missing = {p: set(w.missing(rank, world)) for p, w in writers.items()}
    numbers = sorted(set().union(*missing.values()))
    any_writer = next(iter(writers.values()))
    total = sum(len(any_writer.of(number)) for number in numbers)
    bar = tqdm(total=total, desc="teacher", unit="clip", disable=rank > 0)
    for number in numbers:
        clips = any_writer.of(number)
        records = {part: [] for part in writers if number in missing[part]}
        for start in range(0, len(clips), batch_size):
            batch = clips[start : start + batch_size]
            items = [dataset[rows[clip]] for clip in batch]
            view, lengths = listener.hear(items)
            for part, kept in records.items():
                kept += make_records(part, view, lengths)
            bar.update(len(batch))
        for part, kept in records.items():
            writers[part].write(number, kept)
    bar.close()
    return total


def cache_teacher(hparams_file, run_opts, overrides):
    """Prepare the data, hear what is missing, make it readable.

    Arguments
    ---------
    hparams_file : str or Path
        The YAML.
    run_opts : RunOptions
        The host's options; of these the device counts.
    overrides : str or dict
        Values that replace those of the YAML.
    """
    with open(hparams_file, encoding="utf-8") as stream:
        hparams = load_hyperpyyaml(stream, overrides)
    distillation, teacher = hparams["distillation"], hparams["teacher"]
    if not distillation.needs_teacher:
        raise ValueError(
            f"{hparams_file} has no active distillation term, so there is "
            "nothing to keep; give one a weight, such as --iusp_weight=100."
        )
    teacher.load(distillation.teacher_taps)
    data_folder, manifest_folder, _ = prepare_data(hparams)
    folder, parts, identity = cache_facts(hparams, manifest_folder)
    sides = {"teacher_feats": teacher.front_end}
    datasets = dataio_prep(
        hparams, data_folder, manifest_folder, ["train"], sides
    )
    if not datasets:
        raise ValueError(f"{data_folder} has no clips of split train.")
    dataset = datasets["train"]
    rows = {}
    for row, clip in enumerate(dataset.data.values()):
        rows.setdefault(clip["audio_filename"], row)
    clips = list(rows)
    # The first process makes the folders; the others find them.
    facts = [parts, folder, identity, clips]
    run_on_main(_make_writers, args=facts)
    writers = _make_writers(*facts)
    listener = Listener(hparams, run_opts["device"] or infer_device())
    dataset.set_output_keys([*(sides if listener.stored else ["wavs"])])
    if if_main_process():
        check_space(folder, parts, listener, len(clips))
    start = time.time()
    heard = fill(writers, listener, dataset, rows, hparams["eval_batch_size"])
    ddp_barrier()
    if if_main_process():
        for writer in writers.values():
            writer.finish()
        logger.info(
            "%s holds %s of %d clips; %d were heard here, in %.1f s",
            *(folder, ", ".join(part.folder for part in parts), len(clips)),
            *(heard, time.time() - start),
        )
    ddp_barrier()


def _make_writers(parts, folder, identity, clips):
    """A writer of each part; see ``part_writer``."""
    return {part: part_writer(folder, part, identity, clips) for part in parts}


@record
def main():
    """The command line; under torchrun the first error is shown at the end."""
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    sb.utils.distributed.ddp_init_group(run_opts)
    sb.utils.logger.setup_logging()
    cache_teacher(hparams_file, run_opts, overrides)
    leave_group()


if __name__ == "__main__":
    main()
