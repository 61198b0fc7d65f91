"""Feature taps: a network that also returns what its inner layers say.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from iusp_plugin.checks import LAYOUTS, check_choice, near_names

# Stand for the taps that a network calls its default and its early one.
DEFAULT, EARLY = "default", "early"


def own_tap(model: nn.Module, tap: str) -> str:
    """A network's own name of a tap.

    Arguments
    ---------
    model : torch.nn.Module
        The network; one of this package knows "default" and "early".
    tap : str
        Any name.

    Returns
    -------
    str
        ``tap`` itself unless the network has another name for it.

    Example
    -------
    >>> from iusp_plugin.models import get_model
    >>> model = get_model("cnn_20k")
    >>> own_tap(model, "default"), own_tap(model, "block1")
    ('block4', 'block1')
    """
    if tap not in (DEFAULT, EARLY):
        return tap
    return str(getattr(model, f"{tap}_tap", tap))


class FeatureTaps(nn.Module):
    """Wraps a network; its forward returns (output, {tap: feature}).

    The hooks belong to this module and are set in its constructor, so that
    they survive DistributedDataParallel and compilation; the features are
    returned, not left in a side channel, so that both see them. Features come
    time first, (batch, time, ...), with a channel_first map as a view
    (batch, time, freq, channel).

    Arguments
    ---------
    model : torch.nn.Module
        The network. Its state_dict appears under ``model.``.
    taps : sequence of str, or mapping of str to str
        Names from ``model.taps``, or "default" or "early" for those that the
        network names so; or, for any other network, module paths with
        the layout of what they return, "time_first" or "channel_first".

    Raises
    ------
    ValueError
        For an unknown tap, with near names, or a BatchNorm, whose hooks vanish
        when it is converted for several GPUs.

    Example
    -------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> tapped = FeatureTaps(net, {"1": "time_first"})
    >>> logits, feats = tapped(torch.zeros(5, 7, 4))
    >>> logits.shape, feats["1"].shape
    (torch.Size([5, 7, 2]), torch.Size([5, 7, 3]))
    """

    def __init__(
        self, model: nn.Module, taps: Sequence[str] | Mapping[str, str] = ()
    ):
        super().__init__()
        if isinstance(taps, str):
            raise ValueError(f"taps={taps!r} must be a list: [{taps!r}].")
        self.model = model
        self.layouts: dict[str, str] = {}
        # Filled during this module's forward only: the network may also run
        # by itself, or under the taps of another wrapper.
        self._features: dict[str, Tensor] | None = None
        self._handles = []
        # All are resolved before any is set: a refusal leaves no hook behind.
        resolved = {tap: self._resolve(tap, taps) for tap in taps}
        for tap, (layout, module) in resolved.items():
            self.layouts[tap] = layout
            self._handles.append(
                module.register_forward_hook(partial(self._keep, tap))
            )

    def _resolve(
        self, tap: str, taps: Sequence[str] | Mapping[str, str]
    ) -> tuple[str, nn.Module]:
        """Layout and module of one tap."""
        if isinstance(taps, Mapping):
            path, layout = tap, taps[tap]
            check_choice(f"layout of tap {tap!r}", layout, LAYOUTS)
            known = [n for n, _ in self.model.named_modules() if n]
        else:
            declared = dict(getattr(self.model, "taps", {}))
            known = list(declared)
            own = own_tap(self.model, tap)
            if own not in declared:
                name = type(self.model).__name__
                raise ValueError(
                    f"tap={tap!r} is not a tap of {name}. "
                    f"{near_names(tap, known)}"
                )
            path, layout = declared[own].name, declared[own].layout
        modules = dict(self.model.named_modules())
        if path not in modules:
            raise ValueError(
                f"tap={tap!r} is not a module of {type(self.model).__name__}. "
                f"{near_names(path, known)}"
            )
        if isinstance(modules[path], _BatchNorm):
            raise ValueError(
                f"tap={tap!r} is a BatchNorm layer, whose hooks vanish when it "
                "is converted to SyncBatchNorm; tap the block around it."
            )
        return layout, modules[path]

    def _keep(self, tap: str, module: nn.Module, inputs, output) -> None:
        """Forward hook: remember one layer's output until forward returns."""
        if self._features is None:
            return
        if not isinstance(output, Tensor):
            raise TypeError(
                f"tap {tap!r} returns {type(output).__name__}, not a tensor; "
                "tap a layer inside it."
            )
        if tap in self._features:
            raise RuntimeError(
                f"tap {tap!r} was called twice in one forward; tap a layer "
                "that runs once."
            )
        if self.layouts[tap] == "channel_first":
            output = output.movedim(1, -1)
        self._features[tap] = output

    def forward(self, *args, **kwargs):
        """Run the network.

        Arguments
        ---------
        *args, **kwargs
            Whatever the network takes.

        Returns
        -------
        tuple
            The network's own output, and a dict from tap to its feature,
            (batch, time, ...).
        """
        features: dict[str, Tensor] = {}
        self._features = features
        try:
            output = self.model(*args, **kwargs)
            missing = self.layouts.keys() - features.keys()
            if missing:
                raise RuntimeError(
                    f"taps {sorted(missing)} saw no call in this forward; tap "
                    "layers that the network runs."
                )
            return output, features
        finally:
            # An exception must not leave features behind, nor keep them alive.
            self._features = None

    def remove(self) -> None:
        """Take the hooks off the network; safe to call twice."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.layouts.clear()
