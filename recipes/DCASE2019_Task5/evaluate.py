#!/usr/bin/env python3
"""Score a finished run again, on its own data folder or on another one.

To run it, use the following commands:
> python evaluate.py results/iusp/cnn_80k/1986
> python evaluate.py RUN_FOLDER --data_folder=FOLDER --split=test --out=DIR
A folder with audio-eval/ and annotations-eval.csv alone is enough.

Authors
 * The iusp_plugin authors 2026
"""

import argparse
import sys
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from iusp_plugin.losses import WeightedLosses
from iusp_plugin.run_folder import write_json
from iusp_plugin.taps import FeatureTaps
from iusp_plugin.weights import load_tagger
from scoring import log_table, score_splits, scores_record
from train import TaggingBrain, dataio_prep, prepare_data

import speechbrain as sb

EVALUATION_SPLITS = ("validate", "test")


def parse_arguments(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Score a finished run again.", allow_abbrev=False
    )
    parser.add_argument("run_folder", help="folder of a finished run")
    parser.add_argument("--data_folder", help="score this folder's clips")
    parser.add_argument(
        "--split", choices=EVALUATION_SPLITS, help="this split only"
    )
    parser.add_argument(
        "--out", help="where scores.json goes; RUN_FOLDER/evaluation if unset"
    )
    parser.add_argument("--device", default=None, help="e.g. cpu or cuda:0")
    return parser.parse_args(arguments)


def load_run(run_folder, data_folder=None):
    """Hyper-parameters of a finished run, with its weights loaded.

    Arguments
    ---------
    run_folder : str or Path
        Folder with hyperparams.yaml and model.ckpt.
    data_folder : str, optional
        Replaces the run's own.

    Returns
    -------
    dict
        The loaded YAML; the distillation terms are left out.
    """
    run_folder = Path(run_folder)
    for name in ("hyperparams.yaml", "model.ckpt"):
        if not (run_folder / name).is_file():
            raise FileNotFoundError(
                f"{run_folder} is not the folder of a finished run: it has no "
                f"{name}. Train first, or check the path."
            )
    overrides = {
        "output_folder": str(run_folder),
        "save_folder": str(run_folder / "save"),
        "train_log": str(run_folder / "train_log.txt"),
        "download": False,
        "skip_prep": False,
    }
    if data_folder is not None:
        overrides["data_folder"] = data_folder
    with open(run_folder / "hyperparams.yaml", encoding="utf-8") as stream:
        hparams = load_hyperpyyaml(stream, overrides)
    hparams["distillation"] = WeightedLosses()
    load_tagger(
        run_folder / "model.ckpt", hparams["model"], hparams["front_end"]
    )
    return hparams


def evaluate(arguments):
    """Score and write scores.json and the predictions; returns the record."""
    hparams = load_run(arguments.run_folder, arguments.data_folder)
    data_folder, manifest_folder, _ = prepare_data(hparams)
    wanted = (arguments.split,) if arguments.split else EVALUATION_SPLITS
    datasets = dataio_prep(hparams, data_folder, manifest_folder, wanted)
    if not datasets:
        raise ValueError(
            f"{data_folder} has no clips of split {' or '.join(wanted)}."
        )
    run_opts = {"device": arguments.device} if arguments.device else {}
    brain = TaggingBrain(
        modules={
            **hparams["modules"],
            "student": FeatureTaps(hparams["model"]),
        },
        hparams=hparams,
        run_opts=run_opts,
    )
    out = Path(arguments.out or Path(arguments.run_folder) / "evaluation")
    out.mkdir(parents=True, exist_ok=True)
    scores = score_splits(brain, datasets, hparams, out)
    command = " ".join(["python", *sys.argv])
    record = scores_record(hparams, command, scores)
    write_json(out / "scores.json", record)
    log_table(record, out)
    return record


if __name__ == "__main__":
    sb.utils.logger.setup_logging()
    evaluate(parse_arguments(sys.argv[1:]))
