"""Losses as modules: options checked, kept, shown and passed on.

Authors
 * The iusp_plugin authors 2026
"""

import copy
import inspect
import pickle

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from iusp_plugin.losses import (
    IUSPLoss,
    SPLoss,
    get_loss,
    iusp_loss,
    list_losses,
    similarity_factors,
    sp_loss,
)
from iusp_plugin.losses.module import LossModule

FUNCTIONS = {IUSPLoss: iusp_loss, SPLoss: sp_loss}


def draw(seed, *shape):
    """Normal features."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def echo(student, teacher=None, lengths=None, **options):
    """What a loss was called with."""
    return student, teacher, lengths, options


def test_inputs_and_options_reach_the_function():
    module = LossModule(echo, similarity="cosine", eps=0.5)
    options = {"similarity": "cosine", "eps": 0.5}
    assert module("s", "t", "l") == ("s", "t", "l", options)
    assert module("s", lengths="l") == ("s", None, "l", options)
    given = options | {"teacher_similarity": "g"}
    assert module("s", teacher_similarity="g") == ("s", None, None, given)
    module.eps = 0.1
    assert module("s")[3] == {"similarity": "cosine", "eps": 0.1}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_options_are_those_of_the_function(kind):
    """The same names with the same defaults."""
    options = inspect.signature(kind).parameters
    function = inspect.signature(FUNCTIONS[kind]).parameters
    inputs = list(function)[:3]
    names = [n for n in function if n not in (*inputs, "teacher_similarity")]
    assert set(options) == set(names)
    for name, parameter in options.items():
        assert parameter.default == function[name].default


@pytest.mark.parametrize(
    "kind, option, near",
    [
        (IUSPLoss, "form", "covariance"),
        (IUSPLoss, "form", "gram"),
        (IUSPLoss, "form", "auto"),
        (IUSPLoss, "alignment", "interpolate"),
    ],
)
def test_unknown_choices_are_refused_when_built(kind, option, near):
    assert getattr(kind(**{option: near}), option) == near
    with pytest.raises(ValueError, match=f"{option}=.*Did you mean '{near}'"):
        kind(**{option: near[:-1]})


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_numbers_out_of_range_are_refused_when_built(kind):
    for eps in (-1e-9, float("nan")):
        with pytest.raises(ValueError, match="eps=.* must be >= 0"):
            kind(eps=eps)
    for temperature in (0.0, -1.0):
        with pytest.raises(ValueError, match="temperature=.* must be > 0"):
            LossModule(echo, temperature=temperature)


@pytest.mark.parametrize(
    "kind, option",
    [(IUSPLoss, "forms"), (IUSPLoss, "gather"), (SPLoss, "form")],
)
def test_unknown_options_are_refused_when_built(kind, option):
    with pytest.raises(TypeError, match=f"unexpected .*'{option}'"):
        kind(**{option: True})


def test_repr_shows_the_options():
    assert repr(IUSPLoss(scaled=True, form="gram")) == (
        "IUSPLoss(similarity='row_l2', scaled=True, frame_weights='equal', "
        "alignment='error', "
        "layout='time_first', reduction='mean', check_finite=True, "
        "form='gram', eps=0.0001)"
    )
    assert "gather=True" in repr(torch.nn.ModuleList([SPLoss(gather=True)]))


@pytest.mark.parametrize("name", list_losses())
def test_copies(name):
    """Pickled, copied: the same loss, and nothing in the state."""
    student, teacher = draw(0, 3, 8, 4), draw(1, 3, 8, 4)
    module = get_loss(name, reduction="batch")
    assert not module.state_dict() and not list(module.parameters())
    module.load_state_dict({})
    module.train().half()
    value = module(student, teacher)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(other) is type(module) and repr(other) == repr(module)
        assert torch.equal(other(student, teacher), value)
        other.reduction = "sum"
        assert module.reduction == "batch"
        assert other(student, teacher).shape == ()


@pytest.mark.parametrize("form", ["gram", "covariance"])
def test_iusp_from_yaml(form):
    text = f"""
    loss: !new:iusp_plugin.losses.IUSPLoss
        form: {form}
        alignment: interpolate
        scaled: True
    """
    module = load_hyperpyyaml(text)["loss"]
    assert (module.form, module.alignment) == (form, "interpolate")
    student, teacher = draw(0, 2, 4, 3), draw(1, 2, 8, 5)
    lengths = torch.tensor([1.0, 0.5])
    options = {"form": form, "alignment": "interpolate", "scaled": True}
    expected = iusp_loss(student, teacher, lengths, **options)
    assert torch.equal(module(student, teacher, lengths), expected)
    pooled = iusp_loss(
        student, teacher, lengths, **options | {"alignment": "pool"}
    )
    assert not torch.isclose(expected, pooled, rtol=1e-3)
    kept = similarity_factors(teacher, lengths)
    other = module(student, lengths=lengths, teacher_similarity=kept)
    torch.testing.assert_close(other, expected)


def test_iusp_of_a_form_that_the_teacher_does_not_have():
    module = IUSPLoss(form="covariance")
    with pytest.raises(ValueError, match="no use for a t x t matrix"):
        module(draw(0, 2, 4, 3), teacher_similarity=torch.ones(2, 4, 4))


def test_sp_from_yaml():
    text = """
    loss: !new:iusp_plugin.losses.SPLoss
        gather: True
        reduction: batch
    """
    module = load_hyperpyyaml(text)["loss"]
    assert module.gather is True
    student, teacher = draw(0, 4, 3).requires_grad_(), draw(1, 4, 5)
    expected = sp_loss(student, teacher, reduction="batch")
    assert torch.equal(module(student, teacher), expected)
    # It is on: what it cannot be used with is refused.
    with pytest.raises(ValueError, match="gather=True needs teacher_feats"):
        module(student, teacher_similarity=torch.eye(4))
