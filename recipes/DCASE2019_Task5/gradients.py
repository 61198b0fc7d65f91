#!/usr/bin/env python3
"""Train as train.py does, and measure the gradient of each loss on the way.

To run it, use the following commands:
> python gradients.py hparams/iusp.yaml --kd_weight=1.0
The run is train.py's to the last digit. gradients.json, in the run's folder,
says for each epoch how long the weighted gradient of each distillation term is
beside that of the label loss, and the cosine of the angle between the two.

Authors
 * The iusp_plugin authors 2026
"""

import json
from collections import defaultdict
from pathlib import Path

import torch
from iusp_plugin.run_folder import write_json
from train import TaggingBrain, main

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process

# One batch in so many is measured.
EVERY = 10


class GradientBrain(TaggingBrain):
    """A TaggingBrain that measures the gradients of its losses."""

    def on_stage_start(self, stage, epoch=None):
        """Forget what the last epoch's batches said."""
        super().on_stage_start(stage, epoch)
        self.measured = defaultdict(list)

    def compute_losses(self, predictions, batch, stage):
        """The same, measured in one batch of ``EVERY``.

        Arguments
        ---------
        predictions, batch, stage
            As of ``TaggingBrain``.

        Returns
        -------
        dict of str to torch.Tensor
        """
        losses = super().compute_losses(predictions, batch, stage)
        if stage == sb.Stage.TRAIN and self.n_batches % EVERY == 0:
            compared = compare_gradients(
                self.weighted(losses), list(self.modules.student.parameters())
            )
            for name, figures in compared.items():
                self.measured[name].append(figures)
        return losses

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Add the epoch's means to gradients.json; a resumed one replaces."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage != sb.Stage.TRAIN or not if_main_process():
            return
        path = Path(self.hparams.output_folder) / "gradients.json"
        known = json.loads(path.read_text()) if path.is_file() else []
        means = {
            name: {
                key: sum(row[key] for row in rows) / len(rows)
                for key in rows[0]
            }
            for name, rows in self.measured.items()
        }
        earlier = [entry for entry in known if entry["epoch"] < epoch]
        write_json(path, [*earlier, {"epoch": epoch, "losses": means}])


def compare_gradients(losses, parameters):
    """Length of each loss's gradient, and its angle to the label loss's.

    Arguments
    ---------
    losses : dict of str to torch.Tensor
        Scalars, weighted; one is named "label".
    parameters : list of torch.Tensor
        What the gradient is taken of; a loss need not reach all of them.

    Returns
    -------
    dict of str to dict of str to float
        By loss: ``norm``, ``ratio`` of its norm to the label loss's, and
        ``cosine``; the latter two are 0 where a gradient is 0.

    Example
    -------
    >>> w = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> losses = {"label": 3 * w[0], "kd": 4 * w[1] + 3 * w[0]}
    >>> compare_gradients(losses, [w])["kd"]
    {'norm': 5.0, 'ratio': 1.666..., 'cosine': 0.6}
    """
    gradients = {}
    for name, loss in losses.items():
        parts = torch.autograd.grad(
            loss, parameters, retain_graph=True, allow_unused=True
        )
        gradients[name] = torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).double().flatten()
                for p, g in zip(parameters, parts, strict=True)
            ]
        )
    label = gradients["label"]
    length = float(label.norm())
    figures = {}
    for name, gradient in gradients.items():
        norm = float(gradient.norm())
        dot = float(gradient @ label)
        figures[name] = {
            "norm": norm,
            "ratio": norm / length if length else 0.0,
            "cosine": dot / (norm * length) if norm * length else 0.0,
        }
    return figures


if __name__ == "__main__":
    main(GradientBrain)
