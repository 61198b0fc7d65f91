"""Scores of a run: what it costs, what it reached, where that is kept.

Authors
 * The iusp_plugin authors 2026
"""

import shutil
from pathlib import Path

import torch
from iusp_plugin.metrics.dcase2019_task5 import write_predictions
from iusp_plugin.models.macs import count_macs, count_parameters
from iusp_plugin.run_folder import versions
from processes import rank_and_world

from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)

# What a checkpoint is chosen by; higher is better.
KEY = "micro_auprc"


def cost_of(hparams):
    """Parameters, and multiply-accumulates of one clip without front end."""
    front_end = hparams["front_end"]
    samples = int(hparams["clip_duration_s"] * front_end.sample_rate)
    n_frames = samples // front_end.hop_length
    model = hparams["model"]
    macs = count_macs(model, n_frames, front_end.n_mels)
    return count_parameters(model), macs


def summarise(hparams, datasets, command):
    """What will run, before it runs.

    Arguments
    ---------
    hparams : dict
        Loaded YAML and the run options given.
    datasets : dict of str to DynamicItemDataset
        What ``dataio_prep`` returned.
    command : str
        The command line.
    """
    params, macs = cost_of(hparams)
    terms = {k: t.weight for k, t in hparams["distillation"].terms.items()}
    clips = {split: len(data) for split, data in datasets.items()}
    lines = [
        f"method {hparams['method']}, network {hparams['student']}: "
        f"{params:,} parameters, {macs / 1e6:.1f} M MACs a clip",
        f"clips {clips}, tags {hparams['level']}",
        f"label weight {hparams['label_weight']}, distillation {terms or None}"
        + (f", teacher {hparams['teacher_checkpoint']}" if terms else ""),
        f"seed {hparams['seed']}, {hparams['number_of_epochs']} epochs, "
        f"precision {hparams['precision']}, versions {versions()}",
        f"run folder {hparams['output_folder']}, command: {command}",
    ]
    for line in lines:
        logger.info(line)


def score_splits(brain, datasets, hparams, folder):
    """Evaluate each split with the best weights and write predictions.

    Arguments
    ---------
    brain : TaggingBrain
        With a checkpointer, whose best checkpoint is loaded; or without, and
        the weights at hand are evaluated.
    datasets : dict of str to DynamicItemDataset
        Evaluation splits.
    hparams : dict
        Loaded YAML.
    folder : str or Path
        Where ``predictions-<split>.csv`` goes.

    Returns
    -------
    dict
        Scores by split, as iusp-evaluate prints them.
    """
    scores = {}
    for split, dataset in datasets.items():
        brain.evaluate(
            dataset,
            max_key=KEY,
            test_loader_kwargs={"batch_size": hparams["eval_batch_size"]},
        )
        scores[split] = brain.scores
        if if_main_process():
            names, fine, coarse = brain.stats.predictions()
            path = Path(folder) / f"predictions-{split}.csv"
            write_predictions(path, names, fine, coarse)
    return scores


def discard_torn_checkpoints(checkpointer):
    """Delete checkpoints that a killed process left half written.

    The host writes a checkpoint's metadata first, so such a folder would be
    taken for the newest checkpoint and end every later start.

    Arguments
    ---------
    checkpointer : Checkpointer
        Whose folder is looked at.
    """
    # The optimizer joins the others when the fit begins, so it is saved last.
    names = {*checkpointer.recoverables, "optimizer"}
    for checkpoint in checkpointer.list_checkpoints():
        try:
            for name in names:
                path = checkpoint.paramfiles[name]
                with path.open("rb") as stream:
                    start = stream.read(2)
                if not start:
                    raise OSError(f"{path.name} is empty")
                if start == b"PK":  # a zip archive: torch's
                    torch.load(path, map_location="cpu", mmap=True)
        except (KeyError, OSError, RuntimeError) as error:
            logger.warning(
                "%s was left half written (%s) and is discarded.",
                *(checkpoint.path, str(error).partition("\n")[0]),
            )
            shutil.rmtree(checkpoint.path)


def scores_record(hparams, command, scores):
    """Content of scores.json.

    Arguments
    ---------
    hparams : dict
        Loaded YAML.
    command : str
        The command line.
    scores : dict
        What ``score_splits`` returned.
    """
    params, macs = cost_of(hparams)
    return {
        "model": hparams["student"],
        "method": hparams["method"],
        "seed": hparams["seed"],
        "params": params,
        "macs": macs,
        "command": command,
        "processes": rank_and_world()[1],
        "versions": versions(),
        "splits": scores,
    }


def log_table(record, folder):
    """The figures at the end, and where the files are."""
    logger.info(
        "%-10s %-7s %12s %12s %9s",
        *("split", "tags", "micro-AUPRC", "macro-AUPRC", "micro-F1"),
    )
    for split, levels in record["splits"].items():
        for level, figures in levels.items():
            values = [
                figures[k] for k in ("micro_auprc", "macro_auprc", "micro_f1")
            ]
            logger.info("%-10s %-7s %12.4f %12.4f %9.4f", split, level, *values)
    logger.info("Scores, predictions and weights are in %s", folder)
