"""What a model costs: parameters and multiply-accumulates.

Authors
 * The iusp_plugin authors 2026
"""

import torch
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: torch.nn.Module) -> int:
    """Number of trainable parameters.

    Arguments
    ---------
    model : torch.nn.Module
        Any model.

    Returns
    -------
    int
        Sum over the parameters that require a gradient.

    Example
    -------
    >>> count_parameters(torch.nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_macs(model: torch.nn.Module, n_frames: int, n_mels: int = 64) -> int:
    """Multiply-accumulates of one clip's forward, front end not included.

    Convolutions and matrix products are counted as they run; an LSTM counts
    4 * H * (I + H) per step for input size I and hidden size H. Biases, norms,
    activations and pooling are not counted. The model runs once, in eval mode
    and without gradients, and is left in the mode that it had.

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
        Multiply-accumulates, half of the floating-point operations.

    Example
    -------
    >>> count_macs(torch.nn.Linear(64, 10), n_frames=5)
    3200
    """
    weight = next(model.parameters())
    feats = torch.zeros(
        1, n_frames, n_mels, device=weight.device, dtype=weight.dtype
    )
    modes = {module: module.training for module in model.modules()}
    counter = FlopCounterMode(display=False)
    lstms = _LSTMCount(model, counter)
    model.eval()
    try:
        with torch.no_grad(), counter:
            model(feats)
    finally:
        lstms.remove()
        for module, mode in modes.items():
            module.training = mode
    return counter.get_total_flops() // 2 + lstms.macs


class _LSTMCount:
    """Counts LSTMs by formula, and undoes what the counter saw in them.

    The counter does not know a fused LSTM, but would count one that runs as
    matrix products; which of the two happens depends on the machine.
    """

    def __init__(
        self, model: torch.nn.Module, counter: FlopCounterMode
    ) -> None:
        self.macs = 0
        self.counter = counter
        self.handles = []
        lstms = [m for m in model.modules() if isinstance(m, torch.nn.LSTM)]
        for lstm in lstms:
            if lstm.bidirectional or lstm.proj_size:
                raise ValueError(
                    f"model holds {lstm}, and only LSTMs of one direction "
                    "without projection can be counted: add its formula here."
                )
        for lstm in lstms:
            self.handles.append(lstm.register_forward_pre_hook(self._before))
            self.handles.append(lstm.register_forward_hook(self._after))

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self.handles:
            handle.remove()

    def _before(self, module: torch.nn.Module, args: tuple) -> None:
        """Take what was counted so far off the books."""
        self.macs += self.counter.get_total_flops() // 2

    def _after(
        self, module: torch.nn.Module, args: tuple, output: object
    ) -> None:
        """Book the formula's count instead of what the counter saw."""
        assert isinstance(module, torch.nn.LSTM)
        hidden = module.hidden_size
        steps = args[0].shape[:-1].numel()
        inner = sum(
            4 * hidden * ((hidden if layer else module.input_size) + hidden)
            for layer in range(module.num_layers)
        )
        self.macs += steps * inner - self.counter.get_total_flops() // 2
