"""What the modules of the losses share: options kept, checked and shown.

Authors
 * The iusp_plugin authors 2026
"""

from collections.abc import Callable

from torch import Tensor, nn

from iusp_plugin.checks import LAYOUTS, check_choice, check_range
from iusp_plugin.losses.alignment import ALIGNMENTS
from iusp_plugin.losses.gram import (
    FORMS,
    FRAME_WEIGHTS,
    POOLINGS,
    REDUCTIONS,
    SIMILARITIES,
    check_eps,
)

_CHOICES = {
    "similarity": SIMILARITIES,
    "alignment": ALIGNMENTS,
    "layout": LAYOUTS,
    "reduction": REDUCTIONS,
    "form": FORMS,
    "frame_weights": FRAME_WEIGHTS,
    "pooling": POOLINGS,
}


class LossModule(nn.Module):
    """A loss function with its options, as a module without parameters.

    The options are checked when the module is built, hours before a batch
    would find them wrong, and are attributes of their own names.

    Arguments
    ---------
    function : callable
        ``function(student, teacher, lengths=None, **options)``.
    **options
        Options of the function.

    Raises
    ------
    ValueError
        For an unknown choice, a negative eps, a temperature <= 0.
    """

    # What is kept of the teacher's tap where its outputs are cached: all of
    # its "features", their "cosine" record, or their "mean" over time.
    teacher_record = "features"

    def __init__(self, function: Callable[..., Tensor], **options):
        super().__init__()
        for name, value in options.items():
            if name in _CHOICES:
                check_choice(name, value, _CHOICES[name])
            elif name == "eps":
                check_eps(value)
            elif name == "temperature":
                check_range(name, value, low=0.0, low_open=True)
            setattr(self, name, value)
        self._function = function
        self._options = tuple(options)

    def forward(self, *inputs, **given) -> Tensor:
        """The loss; see the function of the same name for its inputs.

        Arguments
        ---------
        *inputs : torch.Tensor
            Student, teacher and lengths, in this order.
        **given
            The same, or what else the function takes with a batch, by name.

        Returns
        -------
        torch.Tensor
            As the function's.
        """
        options = {name: getattr(self, name) for name in self._options}
        return self._function(*inputs, **options, **given)

    def extra_repr(self) -> str:
        """The options, for ``print(module)``."""
        return ", ".join(f"{n}={getattr(self, n)!r}" for n in self._options)
