"""Several processes: who is who, who validates what, how they part.

Authors
 * The iusp_plugin authors 2026
"""

import gc

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

import speechbrain as sb
from speechbrain.utils.distributed import (
    ddp_all_reduce,
    ddp_barrier,
    is_distributed_initialized,
)


def rank_and_world():
    """This process's number and how many there are."""
    if not is_distributed_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


class ShareOfBatches(torch.utils.data.Sampler):
    """Every so manieth of the batches that one process would make.

    Each clip meets the same neighbours as in one process, so its figures are
    the same. All processes have equally many batches, as the collectives of
    their networks need: the first ones come again where they do not come out
    even, and statistics count a clip once.

    Arguments
    ---------
    n_items : int
        Length of the dataset.
    batch_size : int
        Of one process.
    rank, world_size : int
        This process among how many.

    Example
    -------
    >>> [list(ShareOfBatches(5, 2, rank, 2)) for rank in (0, 1)]
    [[[0, 1], [4]], [[2, 3], [0, 1]]]
    """

    def __init__(self, n_items, batch_size, rank, world_size):
        starts = range(0, n_items, batch_size)
        batches = [
            list(range(start, min(start + batch_size, n_items)))
            for start in starts
        ]
        share = -(-len(batches) // world_size)
        numbers = range(rank, share * world_size, world_size)
        self.batches = [batches[number % len(batches)] for number in numbers]

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class ParallelBrain(sb.core.Brain):
    """A Brain whose processes train on a CPU too, and share evaluation.

    What differs from the host, and only under torchrun: the seed gives the
    order of the training clips; each process evaluates a share of the batches,
    so statistics have to be gathered; batch norm trains on a CPU.
    """

    def _wrap_distributed(self):
        """The host's, but for a CPU, where SyncBatchNorm cannot run.

        There each process normalises by its own share of the batch, and the
        first one's running statistics are validated and saved.
        """
        if not self.distributed_launch or self.device_type != "cpu":
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            if any(p.requires_grad for p in module.parameters()):
                self.modules[name] = DistributedDataParallel(
                    module, find_unused_parameters=self.find_unused_parameters
                )

    def on_stage_start(self, stage, epoch=None):
        """Evaluate what is saved: the first process's running statistics.

        DDP broadcasts buffers too, but not after an accumulated batch.

        Arguments
        ---------
        stage : Stage
            Of the experiment.
        epoch : int, optional
            Unused.
        """
        if stage == sb.Stage.TRAIN:
            return
        for module in self.modules.values():
            if isinstance(module, DistributedDataParallel):
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, src=0)

    def make_dataloader(self, dataset, stage, *args, **loader_kwargs):
        """The host's, with the run's order, or a share of the batches.

        Arguments
        ---------
        dataset : Dataset
            What to load.
        stage : Stage
            Of the experiment.
        *args, **loader_kwargs
            As the host's.

        Returns
        -------
        DataLoader
        """
        if not self.distributed_launch:
            return super().make_dataloader(
                dataset, stage, *args, **loader_kwargs
            )
        if stage != sb.Stage.TRAIN:
            size = loader_kwargs.pop("batch_size")
            loader_kwargs["batch_sampler"] = ShareOfBatches(
                len(dataset), size, *rank_and_world()
            )
        loader = super().make_dataloader(dataset, stage, *args, **loader_kwargs)
        if stage == sb.Stage.TRAIN:
            self.train_sampler.seed = self.hparams.seed
        return loader


def mean_over_processes(values):
    """Mean of each number over the processes.

    Arguments
    ---------
    values : dict of str to float
        The same names on each.

    Returns
    -------
    dict of str to float
    """
    _, world = rank_and_world()
    row = torch.tensor(list(values.values()), dtype=torch.float64)
    if world > 1 and torch.distributed.get_backend() == "nccl":
        row = row.cuda()
    row = ddp_all_reduce(row, torch.distributed.ReduceOp.SUM) / world
    return dict(zip(values, row.tolist(), strict=True))


def seed_epoch(seed, epoch):
    """Random numbers of an epoch: by seed, epoch and process alone.

    So a resumed run draws what an uninterrupted one would have drawn, and
    every process augments differently.

    Arguments
    ---------
    seed, epoch : int
        Of the run, and counted from 1.
    """
    rank, _ = rank_and_world()
    (state,) = np.random.SeedSequence([seed, epoch, rank]).generate_state(1)
    torch.manual_seed(int(state))


def leave_group():
    """End together; a process that leaves early may break the others."""
    if is_distributed_initialized():
        gc.collect()
        ddp_barrier()
        torch.distributed.destroy_process_group()
