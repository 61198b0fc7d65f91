"""How much memory a model's activations take at most.

Authors
 * The iusp_plugin authors 2026
"""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LiveStorages(TorchDispatchMode):
    """Adds up the storages that operators return while they are alive."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.bytes = 0
        self.peak = 0
        self._known = known

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return results

    def _add(self, storage: torch.UntypedStorage) -> None:
        """Count a storage once, until it is freed."""
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self._known or size == 0:
            return
        self._known.add(address)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._remove, address, size)

    def _remove(self, address: int, size: int) -> None:
        """A storage has been freed."""
        self._known.discard(address)
        self.bytes -= size


def peak_activation_bytes(
    model: torch.nn.Module, n_frames: int, n_mels: int = 64
) -> int:
    """Most bytes that a forward's results take at one time, for one clip.

    Every result of an operator counts from its making until nothing refers to
    it any more; the input, parameters and buffers do not count, nor what an
    operator uses inside (an im2col buffer, say). The model runs once, in eval
    mode and without gradients, and is left in the mode that it had.

    Arguments
    ---------
    model : torch.nn.Module
        A model of this package: feats (batch, time, n_mels) to logits.
    n_frames : int
        Frames of the clip.
    n_mels : int
        Mel bands of the clip.

    Returns
    -------
    int
        Bytes.

    Example
    -------
    >>> layers = [torch.nn.Linear(64, 10), torch.nn.Linear(10, 5)]
    >>> peak_activation_bytes(torch.nn.Sequential(*layers), n_frames=2)
    120
    """
    weight = next(model.parameters())
    feats = torch.zeros(
        1, n_frames, n_mels, device=weight.device, dtype=weight.dtype
    )
    held = [feats, *model.parameters(), *model.buffers()]
    known = {tensor.untyped_storage().data_ptr() for tensor in held}
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), _LiveStorages(known) as live:
            model(feats)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return live.peak
