#!/usr/bin/env python3
"""The demonstration: teacher, plain student and IUSP student in minutes.

Trains the three on the embedded synthetic soundscapes through train.py, and
shows one table and one picture. Finished runs are reused.

To run it, use the following command from the root of the project:
> make demo

Authors
 * The iusp_plugin authors 2026
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from evaluate import load_run
from iusp_plugin.dataio.clips import read_clip
from iusp_plugin.metrics.dcase2019_task5 import evaluate_arrays
from iusp_plugin.pictures import clip_features, save_similarity_picture
from iusp_plugin.run_folder import versions, write_json
from iusp_plugin.taps import DEFAULT, FeatureTaps

RESULTS = Path("results/demo")
TEACHER = RESULTS / "teacher"
COMMON = [
    f"--cache_folder={RESULTS / 'cache'}",
    "--embedded_train=320",
    "--embedded_validate=100",
]
# Few clips: small batches give enough steps.
STUDENT = ["--batch_size=16", "--number_of_epochs=24"]
DISTILLED = ["--teacher_width=24", f"--teacher_folder={TEACHER}"]
# Name in the table, folder, YAML, overrides.
RUNS = [
    (
        "teacher",
        TEACHER,
        "teacher.yaml",
        [
            "--width=24",
            "--batch_size=16",
            "--number_of_epochs=30",
            "--mix_probability=0.2",
        ],
    ),
    ("plain student", RESULTS / "plain", "student.yaml", STUDENT),
    ("IUSP student", RESULTS / "iusp", "iusp.yaml", STUDENT + DISTILLED),
]


def train_all():
    """Run what is not done yet; returns the scores record of each run."""
    records = {}
    for number, (name, folder, yaml, overrides) in enumerate(RUNS, 1):
        scores = folder / "scores.json"
        if scores.is_file():
            print(f"[{number}/{len(RUNS)}] {name}: done before, reused.")
        else:
            print(f"[{number}/{len(RUNS)}] {name}", flush=True)
            command = [sys.executable, "train.py", f"hparams/{yaml}"]
            command += [f"--output_folder={folder}", *COMMON, *overrides]
            subprocess.run(command, check=True)
        records[name] = json.loads(scores.read_text())
    return records


def load_manifests():
    """Train and validate manifests of the demonstration's data."""
    (folder,) = (RESULTS / "cache").glob("manifests-*")
    return {
        split: json.loads((folder / f"{split}.json").read_text())
        for split in ("train", "validate")
    }


def class_frequencies(manifests):
    """Scores of predicting each tag's training frequency for every clip."""
    arrays = {
        (split, level): np.array([clip[level] for clip in clips.values()])
        for split, clips in manifests.items()
        for level in ("coarse", "fine")
    }
    n_clips = len(manifests["validate"])
    constant = {
        level: np.tile(arrays["train", level].mean(axis=0), (n_clips, 1))
        for level in ("coarse", "fine")
    }
    scores = evaluate_arrays(
        arrays["validate", "coarse"],
        arrays["validate", "fine"],
        constant["coarse"],
        constant["fine"],
    )
    record = {
        "model": "class frequencies only",
        "method": "class frequencies",
        "seed": None,
        "params": 0,
        "macs": 0,
        "command": "make demo",
        "versions": versions(),
        "splits": {"validate": scores},
    }
    write_json(RESULTS / "class_frequencies" / "scores.json", record)
    return record


def draw_picture(manifests, data_folder):
    """Frame similarities of the three networks for one clip with a dog."""
    clip_id, clip = next(
        (clip_id, clip)
        for clip_id, clip in manifests["validate"].items()
        if clip["coarse"][7] > 0
    )
    wav_path = clip["wav"].replace("{data_root}", str(data_folder))
    feats, picture = {}, None
    for name, folder, _, _ in RUNS:
        hparams = load_run(folder)
        front_end, model = hparams["front_end"], hparams["model"].eval()
        wav = read_clip(wav_path, front_end.sample_rate, 10.0)
        with torch.no_grad():
            normalised = front_end(wav.unsqueeze(0))[0]
        tapped = FeatureTaps(model, [DEFAULT])
        feats[name] = clip_features(tapped, normalised, DEFAULT)
        picture = normalised if picture is None else picture
    path = RESULTS / "similarity.png"
    save_similarity_picture(
        path, picture, feats, clip["duration"], f"clip {clip_id} (dog)"
    )
    return path


def print_table(records):
    """One line a model; coarse tags of the validation clips."""
    print(
        f"\n{'model':24}{'parameters':>11}{'MACs (10 s)':>13}"
        f"{'micro-AUPRC':>13}{'macro-AUPRC':>13}{'micro-F1':>10}"
    )
    for name, record in records.items():
        figures = record["splits"]["validate"]["coarse"]
        print(
            f"{name:24}{record['params']:>11,}{record['macs'] / 1e6:>11.1f} M"
            f"{figures['micro_auprc']:>13.3f}{figures['macro_auprc']:>13.3f}"
            f"{figures['micro_f1']:>10.3f}"
        )
    print(
        "\nCoarse tags, 100 validation clips, one seed. MACs without the "
        "log-mel front end.\nThe teacher is the recipe's class at width 24; "
        "the recipe's default is 64, 5 M parameters.\nThe sounds are SYNTHETIC: these figures show "
        "that the parts work, and are no results."
    )


def main():
    """Train, score, show."""
    start = time.time()
    records = train_all()
    manifests = load_manifests()
    records = {"class frequencies only": class_frequencies(manifests)} | records
    hparams = load_run(TEACHER)
    picture = draw_picture(manifests, hparams["embedded_folder"])
    print_table(records)
    here = Path.cwd()
    print(f"\nscores      {here / RESULTS}/*/scores.json")
    print(f"checkpoints {here / RESULTS}/*/model.ckpt")
    print(f"picture     {here / picture}")
    print(f"\n{(time.time() - start) / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
