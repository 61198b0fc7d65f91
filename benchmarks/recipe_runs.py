"""The recipe's own Brain on a few hundred clips, ready to be timed.

Authors
 * The iusp_plugin authors 2026
"""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml

from iusp_plugin.weights import save_tagger

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "DCASE2019_Task5"


@dataclass
class Workshop:
    """Where data, teachers and caches of one run lie.

    Arguments
    ---------
    folder : Path
        For everything that is made.
    data_folder : str or None
        The user's; None for the embedded soundscapes.
    n_clips : int
        Training clips of an epoch.
    batch_size : int
        Clips a step.
    embedded : tuple of int
        Training and validation clips of the embedded soundscapes.
    """

    folder: Path
    data_folder: str | None = None
    n_clips: int = 400
    batch_size: int = 32
    embedded: tuple[int, int] = (400, 8)
    _teachers: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Scripts of the recipe import one another by their names."""
        if str(RECIPE) not in sys.path:
            sys.path.insert(0, str(RECIPE))

    def overrides(self, **more) -> dict:
        """Values that replace those of a YAML."""
        return {
            "data_folder": self.data_folder,
            "embedded_folder": str(self.folder / "soundscapes"),
            "embedded_train": self.embedded[0],
            "embedded_validate": self.embedded[1],
            "cache_folder": str(self.folder / "cache"),
            "output_folder": str(self.folder / "run"),
            "batch_size": self.batch_size,
            **more,
        }

    def teacher(self, width: int) -> dict:
        """Overrides that name a teacher of random weights."""
        if width not in self._teachers:
            folder = self.folder / f"teacher_{width}"
            hparams = self.load(
                "teacher", width=width, output_folder=str(folder)
            )
            save_tagger(
                folder / "model.ckpt", hparams["model"], hparams["front_end"]
            )
            self._teachers[width] = {
                "teacher_folder": str(folder),
                "teacher_width": width,
            }
        return self._teachers[width]

    def load(self, yaml: str, **more) -> dict:
        """A loaded YAML of the recipe."""
        path = RECIPE / "hparams" / f"{yaml}.yaml"
        with path.open(encoding="utf-8") as stream:
            return load_hyperpyyaml(stream, self.overrides(**more))

    def make_cache(self, **more) -> None:
        """Run cache_teacher.py on these overrides of iusp.yaml."""
        import cache_teacher

        cache_teacher.cache_teacher(
            RECIPE / "hparams" / "iusp.yaml",
            {"device": "cpu"},
            self.overrides(**more),
        )

    def brain(self, yaml: str, **more) -> "Epoch":
        """A Brain in the middle of its first epoch, and its loader.

        Arguments
        ---------
        yaml : str
            Name of a YAML of the recipe.
        **more
            Overrides.

        Returns
        -------
        Epoch
        """
        import speechbrain as sb
        import train

        hparams = self.load(yaml, **more)
        if hparams["distillation"].needs_teacher:
            teacher = hparams["teacher"]
            teacher.load(hparams["distillation"].teacher_taps)
        data_folder, manifests, _ = train.prepare_data(hparams)
        cache = train.open_teacher_cache(hparams, manifests)
        (dataset,) = train.dataio_prep(
            hparams, data_folder, manifests, ["train"]
        ).values()
        train.fit_front_end(hparams["front_end"], dataset)
        options = {
            "device": "cpu",
            "noprogressbar": True,
            "precision": hparams["precision"],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            brain = train.make_brain(hparams, options, cache)
        order = torch.randperm(
            len(dataset), generator=torch.Generator().manual_seed(0)
        )
        loader = brain.make_dataloader(
            dataset,
            sb.Stage.TRAIN,
            batch_size=self.batch_size,
            sampler=order[: self.n_clips].tolist(),
            drop_last=True,
        )
        # Nothing is resumed, nothing saved.
        brain.checkpointer = None
        sb.core.Brain.on_fit_start(brain)
        brain.on_stage_start(sb.Stage.TRAIN, 1)
        brain.modules.train()
        return Epoch(brain, loader)


@dataclass
class Epoch:
    """A Brain and what it is trained on.

    Arguments
    ---------
    brain : TaggingBrain
        Ready for ``fit_batch``.
    loader : DataLoader
        One epoch.
    """

    brain: object
    loader: object

    def train(self) -> None:
        """One epoch, as the recipe's own loop goes through it."""
        self.train_on(self.loader)

    def train_on(self, batches: Iterator) -> None:
        """The same on other batches."""
        for number, batch in enumerate(batches, 1):
            self.brain.step = number
            self.brain.fit_batch(batch)

    def in_memory(self) -> Callable[[], None]:
        """An epoch on batches that are loaded already."""
        batches = list(self.loader)
        return lambda: self.train_on(batches)

    def teacher_alone(self) -> Callable[[], None]:
        """The live teacher on the same batches, in the same precision."""
        batches = [batch.feats.data for batch in self.loader]
        teacher = self.brain.modules.teacher

        def forward() -> None:
            with self.brain.training_ctx, torch.no_grad():
                for feats in batches:
                    teacher(feats)

        return forward
