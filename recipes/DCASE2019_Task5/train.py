#!/usr/bin/env python3
"""Recipe to train and distil urban sound taggers on DCASE 2019 Task 5.

Teacher, plain student and distilled student share this script; the YAML
decides. To run this recipe, use the following commands:
> python train.py hparams/teacher.yaml
> python train.py hparams/student.yaml
> python train.py hparams/iusp.yaml
Without --data_folder=... they run on embedded synthetic soundscapes.

Authors
 * The iusp_plugin authors 2026
"""

import json
import sys
import time
from hashlib import sha256
from pathlib import Path

import torch
from dcase2019_task5_prepare import prepare_dcase2019_task5, resolve_data_folder
from hyperpyyaml import load_hyperpyyaml
from iusp_plugin.dataio.manifests import (
    MARKER,
    Manifest,
    audio_source,
    content_md5,
)
from iusp_plugin.dataio.tag_levels import output_targets, to_submission
from iusp_plugin.lengths import num_frames
from iusp_plugin.losses import masked_bce_loss
from iusp_plugin.run_folder import (
    claim_run_folder,
    file_digest,
    plain_hparams,
    write_json,
)
from iusp_plugin.taps import FeatureTaps
from iusp_plugin.teacher_cache import (
    TeacherCache,
    cache_identity,
    cache_parts,
    check_augmentation,
)
from iusp_plugin.weights import save_tagger
from processes import (
    ParallelBrain,
    leave_group,
    mean_over_processes,
    rank_and_world,
    seed_epoch,
)
from scoring import (
    KEY,
    discard_torn_checkpoints,
    log_table,
    score_splits,
    scores_record,
    summarise,
)
from sounds import (
    add_audio,
    add_stored_features,
    check_datasets,
    fit_front_end,
    validation_parts,
)
from torch.distributed.elastic.multiprocessing.errors import record

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

# Keys that do not change what a run computes.
NEUTRAL = {
    "data_folder",
    "embedded_folder",
    "output_folder",
    "save_folder",
    "train_log",
    "cache_folder",
    "tensorboard_logs",
    "use_tensorboard",
    "teacher_folder",
    "teacher_checkpoint",
    "teacher_cache",
    "download",
    "skip_prep",
    "feature_store",
    "num_workers",
    "eval_batch_size",
    "__set_seed",
    # Run options of the host
    "test_only",
    "device",
    "distributed_backend",
    "debug_persistently",
    "noprogressbar",
    "log_config",
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
}


class TaggingBrain(ParallelBrain):
    """Trains a tagger on labels and, if terms ask for it, on a teacher."""

    progress = 0.0  # share of the training that is done

    def compute_forward(self, batch, stage):
        """Batch to logits, tapped features, and the teacher's view."""
        batch = batch.to(self.device)
        outputs = {}
        front_end = self.modules.front_end
        feats, lengths = self._log_mel(batch, "feats", front_end)
        if stage == sb.Stage.TRAIN:
            augment = self.hparams.clip_augment
            draw = augment.draw(len(feats), self.device)
            outputs["draw"] = draw
            sounds = augment.apply(feats, draw, lengths, front_end.log_unit)
            if self.hparams.distillation.needs_teacher:
                outputs["teacher"] = self._teacher_view(
                    batch, sounds, draw, lengths
                )
            feats, lengths = sounds, augment.mix_lengths(lengths, draw)
        feats = self.modules.front_end.normalise(feats)
        feats = self.modules.spec_augment(feats)
        logits, taps = self.modules.student(feats, lengths)
        outputs["student"] = {"logits": logits, **taps}
        outputs["lengths"] = lengths
        return outputs

    def _teacher_view(self, batch, sounds, draw, lengths):
        """What the teacher says of the clips, shifted and mixed alike."""
        augment = self.hparams.clip_augment
        if self.teacher_cache is not None:
            whole = sounds.new_ones(len(sounds)) if lengths is None else lengths
            shift = augment.shift_frames(
                draw, num_frames(whole, sounds.shape[1])
            )
            return self.teacher_cache.batch(
                batch.audio_filename, shift, self.device
            )
        front_end = self.modules.teacher.front_end
        if front_end.config != self.modules.front_end.config:
            feats, _ = self._log_mel(batch, "teacher_feats", front_end)
            sounds = augment.apply(feats, draw, lengths, front_end.log_unit)
        return self.modules.teacher(sounds, augment.mix_lengths(lengths, draw))

    def _log_mel(self, batch, key, front_end):
        """Un-normalised log-mels and relative lengths (None: all whole)."""
        if self.hparams.feature_store:
            feats, lengths = getattr(batch, key)
        else:
            wavs, lengths = batch.wavs
            feats = front_end.log_mel(wavs)
        return feats, None if bool((lengths == 1).all()) else lengths

    def compute_objectives(self, predictions, batch, stage):
        """Label loss plus the weighted distillation terms."""
        losses = self.compute_losses(predictions, batch, stage)
        for name, value in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0) + value.detach()
        self.n_batches += 1
        return sum(self.weighted(losses).values())

    def compute_losses(self, predictions, batch, stage):
        """The label loss, and each distillation term before its weight.

        Arguments
        ---------
        predictions : dict
            What ``compute_forward`` returned.
        batch : PaddedBatch
            Clips and their targets.
        stage : Stage
            Of the experiment.

        Returns
        -------
        dict of str to torch.Tensor
            Scalars by name.
        """
        hparams = self.hparams
        logits = predictions["student"]["logits"]
        coarse = batch.coarse_targets.data
        fine = batch.fine_targets.data
        if stage == sb.Stage.TRAIN:
            mix = hparams.clip_augment.mix_targets
            coarse = mix(coarse, predictions["draw"])
            fine = mix(fine, predictions["draw"])
        targets, weights = output_targets(coarse, fine, hparams.level)
        label = masked_bce_loss(logits, targets, weights, reduction="batch")
        if stage != sb.Stage.TRAIN:
            self.stats.append(
                batch.audio_filename,
                *to_submission(logits.float().sigmoid(), hparams.level),
                coarse,
                fine,
                label,
            )
        losses = {"label": label.mean()}
        if "teacher" in predictions:
            losses |= hparams.distillation(
                predictions["student"],
                predictions["teacher"],
                predictions["lengths"],
            )
        return losses

    def weighted(self, losses):
        """Each loss times its weight at this point of training.

        Arguments
        ---------
        losses : dict of str to torch.Tensor
            What ``compute_losses`` returned.
        """
        weights = self.hparams.distillation.weights_at(self.progress)
        weights["label"] = self.hparams.label_weight
        return {name: weights[name] * value for name, value in losses.items()}

    def on_fit_start(self):
        """Resume, patience included: the host's counter forgets its best."""
        run_on_main(discard_torn_checkpoints, args=[self.checkpointer])
        super().on_fit_start()
        best = self.checkpointer.find_checkpoint(max_key=KEY)
        if best is not None:
            counter = self.hparams.epoch_counter
            counter.best_limit = best.meta["epoch"]
            counter.best_score = best.meta[KEY]
            waited = counter.current - counter.best_limit
            counter.should_stop = waited >= counter.limit_to_stop

    def on_stage_start(self, stage, epoch=None):
        """New sums, new statistics, and in training new random numbers."""
        super().on_stage_start(stage, epoch)
        self.loss_sums, self.n_batches = {}, 0
        self.started = time.time()
        if stage == sb.Stage.TRAIN:
            seed_epoch(self.hparams.seed, epoch)
            self.progress = (epoch - 1) / self.hparams.number_of_epochs
        else:
            self.stats = self.hparams.tagging_stats()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log each term, keep the best checkpoint, anneal."""
        if stage == sb.Stage.TRAIN:
            means = {
                name: float(total) / self.n_batches
                for name, total in self.loss_sums.items()
            }
            means = mean_over_processes({"loss": stage_loss, **means})
            self.train_stats = dict(means)
            self.train_stats["minutes"] = (time.time() - self.started) / 60
            return
        self.stats.gather()
        self.scores = self.stats.summarize()
        if stage == sb.Stage.TEST:
            return
        label = self.stats.mean_loss()
        valid = {"label": label, **self._headline(self.scores)}
        old_lr, new_lr = self.hparams.lr_annealing(epoch)
        sb.nnet.schedulers.update_learning_rate(self.optimizer, new_lr)
        for log in self.train_loggers:
            log.log_stats(
                stats_meta={"epoch": epoch, "lr": old_lr},
                train_stats=self.train_stats,
                valid_stats=valid,
            )
        self.checkpointer.save_and_keep_only(
            meta={"epoch": epoch, KEY: valid[KEY]}, max_keys=[KEY]
        )
        self.hparams.epoch_counter.update_metric(valid[KEY])

    def _headline(self, scores):
        """The figures of one line of the log; coarse leads where it exists."""
        level = "coarse" if "coarse" in scores else "fine"
        names = ("micro_auprc", "macro_auprc", "micro_f1")
        return {name: float(scores[level][name]) for name in names}


def prepare_data(hparams):
    """Prepare the data; say where they are and what they are.

    Arguments
    ---------
    hparams : dict
        Loaded YAML; ``data_folder`` None means the embedded soundscapes.

    Returns
    -------
    tuple
        Data folder, manifest folder, and the preparation's fingerprint.
    """
    sizes = {
        "n_train": hparams["embedded_train"],
        "n_validate": hparams["embedded_validate"],
    }
    data_folder = hparams["data_folder"] or hparams["embedded_folder"]
    run_on_main(
        resolve_data_folder,
        args=[hparams["data_folder"], hparams["embedded_folder"]],
        kwargs=sizes,
    )
    options = {
        "target_rule": hparams["target_rule"],
        "repair_coarse2": hparams["repair_coarse2"],
        "duration_policy": hparams["duration_policy"],
        "clip_duration_s": hparams["clip_duration_s"],
    }
    # Each data folder and choice of options has manifests of its own.
    facts = json.dumps([str(Path(data_folder).resolve()), options])
    name = "manifests-" + sha256(facts.encode()).hexdigest()[:8]
    manifest_folder = Path(hparams["cache_folder"]) / name
    run_on_main(
        prepare_dcase2019_task5,
        kwargs={
            "data_folder": data_folder,
            "manifest_folder": manifest_folder,
            "download": hparams["download"],
            "zenodo_record": hparams["zenodo_record"],
            "release_files": hparams["release_files"],
            "skip_prep": hparams["skip_prep"],
            **options,
        },
    )
    if not (manifest_folder / MARKER).is_file():
        raise FileNotFoundError(
            f"No manifests in {manifest_folder}; run once without --skip_prep."
        )
    return data_folder, manifest_folder, content_md5(manifest_folder)


def dataio_prep(hparams, data_folder, manifest_folder, splits, sides=None):
    """Datasets by split, with the features of one side or of both.

    Arguments
    ---------
    hparams : dict
        Loaded YAML.
    data_folder, manifest_folder : str or Path
        Audio, and the manifests made from it.
    splits : sequence of str
        Splits wanted; those without a manifest are left out.
    sides : dict of str to LogMel, optional
        Front end of each key of the training clips' features; elsewhere, and
        if left out, the student's alone.

    Returns
    -------
    dict of str to DynamicItemDataset
    """
    student = {"feats": hparams["front_end"]}
    datasets = {}
    for split in splits:
        heard = sides if sides and split == "train" else student
        path = Path(manifest_folder) / f"{split}.json"
        if not path.is_file():
            continue
        manifest = Manifest(path, {"data_root": str(data_folder)})
        dataset = sb.dataio.dataset.DynamicItemDataset(manifest)
        parts = {split: dataset}
        if split == "validate":
            parts = validation_parts(dataset, hparams["validate_on"])
        for name, part in parts.items():
            part.add_dynamic_item(torch.tensor, "coarse", "coarse_targets")
            part.add_dynamic_item(torch.tensor, "fine", "fine_targets")
            part.stores = {}
            if hparams["feature_store"]:
                source = audio_source(manifest_folder, split)
                part.stores = add_stored_features(
                    part, hparams, heard, split, source
                )
                sounds = list(heard)
            else:
                sounds = add_audio(part, hparams, heard)
            keys = ["id", "audio_filename", "coarse_targets", "fine_targets"]
            part.set_output_keys(keys + sounds)
            datasets[name] = part
    return datasets


def cache_facts(hparams, manifest_folder):
    """What a teacher cache has to hold and to be made from.

    Arguments
    ---------
    hparams : dict
        Loaded YAML; its teacher has been loaded.
    manifest_folder : str or Path
        Folder of the manifests.

    Returns
    -------
    tuple
        Folder, parts and identity, as ``TeacherCache`` takes them.
    """
    teacher = hparams["teacher"]
    parts = cache_parts(teacher, hparams["distillation"].teacher_records)
    identity = cache_identity(
        teacher,
        audio_source(manifest_folder, "train"),
        hparams["teacher_precision"],
        hparams["clip_duration_s"],
    )
    return Path(hparams["teacher_cache"]), parts, identity


def open_teacher_cache(hparams, manifest_folder):
    """The teacher's cache if it is wanted; refused if it does not fit."""
    if not hparams["distillation"].needs_teacher:
        return None
    if not hparams["use_teacher_cache"]:
        return None
    folder, parts, identity = cache_facts(hparams, manifest_folder)
    check_augmentation(hparams["clip_augment"], parts)
    maker = " ".join(["cache_teacher.py", *sys.argv[1:]])
    return TeacherCache(folder, parts, identity, f"python {maker}")


def make_brain(hparams, run_opts, teacher_cache=None, brain_class=TaggingBrain):
    """The Brain, with student, taps and teacher or its cache in place.

    Arguments
    ---------
    hparams : dict
        Loaded YAML.
    run_opts : RunOptions
        The host's options.
    teacher_cache : TeacherCache, optional
        Takes the place of the teacher.
    brain_class : type
        TaggingBrain, or what adds to it.

    Returns
    -------
    TaggingBrain
    """
    distillation = hparams["distillation"]
    modules = dict(hparams["modules"])
    modules["student"] = FeatureTaps(
        hparams["model"], distillation.student_taps
    )
    if distillation.needs_teacher and teacher_cache is None:
        modules["teacher"] = hparams["teacher"]
    brain = brain_class(
        modules=modules,
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.teacher_cache = teacher_cache
    brain.train_loggers = make_loggers(hparams)
    if brain.test_only and not brain.checkpointer.list_checkpoints():
        raise FileNotFoundError(
            f"--test_only: no checkpoint in {hparams['save_folder']}; train "
            "first, with the same command without --test_only."
        )
    return brain


def run(hparams_file, run_opts, overrides, brain_class=TaggingBrain):
    """Prepare, train, score: one run.

    Arguments
    ---------
    hparams_file : str or Path
        The YAML.
    run_opts : RunOptions
        The host's options.
    overrides : str or dict
        Values that replace those of the YAML.
    brain_class : type
        TaggingBrain, or what adds to it.
    """
    with open(hparams_file, encoding="utf-8") as stream:
        hparams = load_hyperpyyaml(stream, overrides)
    # The host's run options beat the YAML's keys of the same names.
    given = {name: run_opts[name] for name in run_opts.overridden_args}
    folder = Path(hparams["output_folder"])
    command = " ".join(["python", *sys.argv])
    distillation, teacher = hparams["distillation"], hparams["teacher"]
    if distillation.needs_teacher:
        teacher.load(distillation.teacher_taps)
    data_folder, manifest_folder, data_digest = prepare_data(hparams)
    cache = open_teacher_cache(hparams, manifest_folder)
    sides = {"feats": hparams["front_end"]}
    if distillation.needs_teacher and cache is None:
        # Where both hear the same, it is computed and read once.
        if teacher.front_end.config != hparams["front_end"].config:
            sides["teacher_feats"] = teacher.front_end
    splits = ("train", "validate", "test")
    datasets = dataio_prep(hparams, data_folder, manifest_folder, splits, sides)
    check_datasets(datasets, data_folder, hparams["batch_size"])
    facts = plain_hparams(hparams | given, without=NEUTRAL)
    facts["data"] = data_digest
    facts["processes"] = rank_and_world()[1]
    if distillation.needs_teacher:
        facts["teacher"] = file_digest(teacher.checkpoint)
    run_on_main(claim_run_folder, args=[folder, facts])
    sb.create_experiment_directory(
        experiment_directory=str(folder),
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    fit_front_end(hparams["front_end"], datasets["train"])
    summarise(hparams | given, datasets, command)
    brain = make_brain(hparams, run_opts, cache, brain_class)
    brain.fit(
        hparams["epoch_counter"],
        datasets.pop("train"),
        datasets["validate"],
        train_loader_kwargs={
            "batch_size": hparams["batch_size"],
            "shuffle": hparams["sorting"] == "random",
            "drop_last": True,
            "num_workers": hparams["num_workers"],
        },
        valid_loader_kwargs={"batch_size": hparams["eval_batch_size"]},
    )
    scores = score_splits(brain, datasets, hparams, folder)
    if if_main_process():
        record = scores_record(hparams, command, scores)
        save_tagger(
            folder / "model.ckpt", hparams["model"], hparams["front_end"]
        )
        write_json(folder / "scores.json", record)
        log_table(record, folder)


def make_loggers(hparams):
    """The text log, and TensorBoard if asked for."""
    loggers = [hparams["train_logger"]]
    if hparams["use_tensorboard"] and if_main_process():
        loggers.append(
            sb.utils.train_logger.TensorboardLogger(hparams["tensorboard_logs"])
        )
    return loggers


@record
def main(brain_class=TaggingBrain):
    """The command line; under torchrun the first error is shown at the end.

    Arguments
    ---------
    brain_class : type
        TaggingBrain, or what adds to it.
    """
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    sb.utils.distributed.ddp_init_group(run_opts)
    run(hparams_file, run_opts, overrides, brain_class)
    leave_group()


if __name__ == "__main__":
    main()
