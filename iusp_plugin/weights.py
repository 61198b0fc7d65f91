"""Weights of a tagger, network and front end together, in one file.

Authors
 * The iusp_plugin authors 2026
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from iusp_plugin.files import replacing


def save_tagger(
    path: str | Path, model: nn.Module, front_end: nn.Module
) -> None:
    """Write a tagger's weights; the file is complete or absent.

    The same weights give the same bytes, whatever the file is called.

    Arguments
    ---------
    path : str or Path
        File to write.
    model, front_end : torch.nn.Module
        The network and its front end.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(),
        "front_end": front_end.state_dict(),
    }
    # Given a path, torch writes its name into the file.
    with replacing(path) as part, part.open("wb") as stream:
        torch.save(state, stream)


def load_tagger(
    path: str | Path, model: nn.Module, front_end: nn.Module
) -> None:
    """Load a tagger's weights, strictly.

    Arguments
    ---------
    path : str or Path
        File that ``save_tagger`` wrote.
    model, front_end : torch.nn.Module
        Built with the options they were trained with.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds something else, or weights of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No weights at {path}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as weights ({error}); it is damaged or "
            "another kind of file."
        ) from error
    if not isinstance(state, dict) or set(state) != {"model", "front_end"}:
        raise ValueError(
            f"{path} does not hold a tagger (a dict with keys model and "
            "front_end); give the model.ckpt of a finished run."
        )
    for name, module in (("front_end", front_end), ("model", model)):
        entries = state[name]
        if isinstance(entries, dict) and "_extra_state" in entries:
            # Differing options say more than the shapes they lead to.
            module.set_extra_state(entries["_extra_state"])
        check_same_network(path, name, entries, module)
        module.load_state_dict(entries, strict=True)


def check_same_network(
    path: Path, name: str, state: object, module: nn.Module
) -> None:
    """Raise one short error if weights are of another network.

    Arguments
    ---------
    path : Path
        File of the weights, for the message.
    name : str
        "model" or "front_end", for the message.
    state : object
        What the file holds under that name.
    module : torch.nn.Module
        Where it is to go.

    Raises
    ------
    ValueError
        If names or shapes differ; tells how many, and the first one.
    """
    here = {k: _shape(v) for k, v in module.state_dict().items()}
    there = {}
    if isinstance(state, dict):
        there = {k: _shape(v) for k, v in state.items()}
    entries = dict.fromkeys([*here, *there])
    differing = [key for key in entries if here.get(key) != there.get(key)]
    if differing:
        key = differing[0]
        raise ValueError(
            f"{path} holds the {name} of another network: {len(differing)} of "
            f"{len(entries)} entries differ, first {key}: "
            f"{there.get(key, 'absent')} there, {here.get(key, 'absent')} "
            "here. Declare the network as it was trained (name, width, "
            "n_mels, tags)."
        )


def _shape(entry: object) -> str:
    """Shape of a tensor, or the kind of anything else."""
    if isinstance(entry, Tensor):
        return str(tuple(entry.shape))
    return type(entry).__name__
