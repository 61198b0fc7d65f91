"""Augmentation: what it changes, what it leaves, and who hears it.

Authors
 * The iusp_plugin authors 2026
"""

import dataclasses
import math

import pytest
import torch

from iusp_plugin.augment import ClipAugment, ClipDraw, SpecAugment, roll_frames


def noise(*shape, seed=0):
    """Log powers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * 2 - 5


def fixed(batch, **choices):
    """A draw that changes nothing but what is given."""
    plain = ClipDraw(
        shift=torch.zeros(batch),
        partner=torch.arange(batch),
        gain=torch.zeros(batch),
        mixed=torch.zeros(batch, dtype=torch.bool),
        colour=torch.zeros(batch, 5),
    )
    return dataclasses.replace(plain, **choices)


MIX = {"time_shift": False, "mix_probability": 1.0}
SWAP = {"partner": torch.tensor([1, 0]), "mixed": torch.tensor([True, True])}


def test_shift_turns_each_clip_by_its_share():
    feats, augment = noise(3, 10, 4), ClipAugment()
    draw = fixed(3, shift=torch.tensor([0.0, 0.39, 0.99]))
    shifted = augment.apply(feats, draw)
    for clip, steps in enumerate((0, 3, 9)):
        expected = feats[clip].roll(steps, dims=0)
        assert torch.equal(shifted[clip], expected)


def test_shift_turns_within_the_valid_frames():
    feats, augment = noise(2, 10, 4), ClipAugment()
    feats[1, 5:] = float("nan")
    draw = fixed(2, shift=torch.tensor([0.5, 0.5]))
    shifted = augment.apply(feats, draw, torch.tensor([1.0, 0.5]))
    assert torch.equal(shifted[0], feats[0].roll(5, dims=0))
    assert torch.equal(shifted[1, :5], feats[1, :5].roll(2, dims=0))
    assert shifted[1, 5:].isnan().all()


@pytest.mark.parametrize("multiple", [1, 4, 7, 32])
def test_shifts_are_multiples_and_permutations(multiple):
    torch.manual_seed(0)
    augment = ClipAugment(shift_multiple=multiple)
    frames = torch.arange(30.0).view(1, 30, 1).expand(64, 30, 1)
    shifted = augment.apply(frames, augment.draw(64)).squeeze(2)
    assert torch.equal(shifted.sort(dim=1).values, frames.squeeze(2))
    # Where frame 0 went: the whole multiples turned by that much.
    steps = shifted.argmin(dim=1)
    assert (steps % multiple == 0).all()
    possible = 30 // multiple
    turning = possible * multiple
    for row, step in zip(shifted, steps.tolist(), strict=True):
        assert torch.equal(
            row[:turning], torch.arange(turning * 1.0).roll(step)
        )
        assert torch.equal(row[turning:], torch.arange(turning * 1.0, 30.0))
    assert 0.7 * possible < len(steps.unique()) <= max(possible, 1)


@pytest.mark.parametrize("unit", [1.0, 10 / math.log(10)])
def test_mixing_adds_powers(unit):
    feats = noise(2, 6, 3) * unit
    gain = torch.tensor([0.0, math.log(4)])
    mixed = ClipAugment(**MIX).apply(
        feats, fixed(2, gain=gain, **SWAP), log_unit=unit
    )
    power = (feats / unit).exp()
    expected = torch.stack([power[0] + power[1], power[1] + 4 * power[0]])
    torch.testing.assert_close((mixed / unit).exp(), expected)


def test_only_chosen_clips_are_mixed():
    feats = noise(3, 6, 3)
    draw = fixed(
        3,
        partner=torch.tensor([1, 2, 0]),
        mixed=torch.tensor([False, True, False]),
    )
    mixed = ClipAugment(**MIX).apply(feats, draw)
    assert torch.equal(mixed[[0, 2]], feats[[0, 2]])
    assert (mixed[1] > torch.maximum(feats[1], feats[2])).all()


@pytest.mark.parametrize("padding", [0.0, 99.0, float("nan"), -float("inf")])
def test_padding_is_silence_to_a_mixture(padding):
    """A batch pads log powers with zeros, which would be a loud sound."""
    feats = noise(2, 8, 3)
    feats[1, 4:] = padding
    draw = fixed(2, gain=torch.tensor([0.5, -0.5]), **SWAP)
    augment, lengths = ClipAugment(**MIX), torch.tensor([1.0, 0.5])
    mixed = augment.apply(feats, draw, lengths)
    both = torch.logaddexp(
        feats[:, :4], feats[[1, 0], :4] + draw.gain[:, None, None]
    )
    torch.testing.assert_close(mixed[:, :4], both)
    # The long clip goes on alone; the short one hears only its partner.
    torch.testing.assert_close(mixed[0, 4:], feats[0, 4:])
    torch.testing.assert_close(mixed[1, 4:], feats[0, 4:] - 0.5)
    assert torch.equal(
        augment.mix_lengths(lengths, draw), torch.tensor([1.0, 1.0])
    )


def test_padding_of_both_clips_stays():
    feats = noise(2, 8, 3)
    draw, lengths = fixed(2, **SWAP), torch.tensor([0.5, 0.5])
    mixed = ClipAugment(**MIX).apply(feats, draw, lengths)
    assert torch.equal(mixed[:, 4:], feats[:, 4:])
    assert mixed.isfinite().all()


def test_a_broken_partner_is_not_hidden():
    feats = noise(2, 4, 3)
    feats[1, 2, 0] = float("nan")
    for lengths in (None, torch.ones(2)):
        mixed = ClipAugment(**MIX).apply(feats, fixed(2, **SWAP), lengths)
        assert mixed[0, 2, 0].isnan()


def test_targets_of_a_mixture_are_the_union():
    targets = torch.tensor([[1.0, 0, 0.5, 0], [1, 0, 0.5, 1]])
    union = ClipAugment(**MIX).mix_targets(targets, fixed(2, **SWAP))
    expected = torch.tensor([1.0, 0, 0.75, 1]).expand(2, 4)
    assert torch.equal(union, expected)
    first = fixed(2, partner=SWAP["partner"], mixed=torch.tensor([True, False]))
    union = ClipAugment(**MIX).mix_targets(targets, first)
    assert torch.equal(union, torch.stack([expected[0], targets[1]]))


def test_mixed_lengths_are_those_of_the_longer():
    augment, lengths = ClipAugment(**MIX), torch.tensor([0.5, 1.0, 0.25])
    draw = fixed(
        3,
        partner=torch.tensor([1, 2, 0]),
        mixed=torch.tensor([True, True, False]),
    )
    longer = augment.mix_lengths(lengths, draw)
    assert torch.equal(longer, torch.tensor([1.0, 1.0, 0.25]))
    assert augment.mix_lengths(None, draw) is None
    assert augment.mix_lengths(torch.ones(3), draw).tolist() == [1, 1, 1]


def test_probability_zero_and_one():
    torch.manual_seed(0)
    never = ClipAugment(time_shift=False)
    feats, targets = noise(50, 4, 3), torch.rand(50, 4)
    lengths = torch.rand(50).clamp(min=0.1)
    draw = never.draw(50)
    assert not draw.mixed.any()
    assert torch.equal(never.apply(feats, draw), feats)
    assert torch.equal(never.mix_targets(targets, draw), targets)
    assert torch.equal(never.mix_lengths(lengths, draw), lengths)
    assert ClipAugment(**MIX).draw(500).mixed.all()
    share = ClipAugment(mix_probability=0.3).draw(4000).mixed.float().mean()
    assert 0.26 < share < 0.34


def test_draws_are_in_their_ranges():
    torch.manual_seed(0)
    augment = ClipAugment(mix_gain_db=6, colour_db=3)
    draw = augment.draw(2000)
    assert (draw.shift >= 0).all() and (draw.shift < 1).all()
    assert torch.equal(draw.partner.sort().values, torch.arange(2000))
    nepers = math.log(10) / 10
    for values, limit in ((draw.gain, 6), (draw.colour, 3)):
        assert 0.95 * limit < values.abs().max() / nepers <= limit
        assert abs(values.mean()) < 0.1
    assert draw.colour.shape[0] == 2000


def test_one_draw_changes_two_front_ends_alike():
    torch.manual_seed(0)
    augment = ClipAugment(mix_probability=0.5, colour_db=6)
    draw, unit = augment.draw(8), 10 / math.log(10)
    ln = noise(8, 20, 6)
    lengths = torch.tensor([1.0, 0.5] * 4)
    changed = augment.apply(ln, draw, lengths)
    db = augment.apply(ln * unit, draw, lengths, log_unit=unit)
    torch.testing.assert_close(db, changed * unit, atol=1e-4, rtol=1e-5)
    assert not torch.allclose(changed, ln)


def test_one_draw_turns_two_resolutions_alike():
    augment = ClipAugment()
    draw = fixed(2, shift=torch.tensor([0.3, 0.7]))
    coarse = noise(2, 10, 3)
    fine = coarse.repeat_interleave(2, dim=1)
    turned = augment.apply(coarse, draw).repeat_interleave(2, dim=1)
    assert torch.equal(augment.apply(fine, draw), turned)


def test_colour_is_a_smooth_bounded_curve_over_the_bands():
    torch.manual_seed(0)
    augment = ClipAugment(time_shift=False, colour_db=6.0)
    feats, draw = noise(16, 5, 64), augment.draw(16)
    curve = augment.apply(feats, draw) - feats
    assert (curve - curve[:, :1]).abs().max() < 1e-5  # the same at all times
    nepers = 6 * math.log(10) / 10
    assert 0.5 * nepers < curve.abs().max() <= nepers + 1e-5
    # Four straight pieces: no step above a piece's share of the range.
    assert curve.diff(dim=2).abs().max() <= 2 * nepers * 4 / 63 + 1e-5
    bent = curve[:, 0].diff(dim=1).diff(dim=1).abs() > 1e-4
    assert bent.sum(dim=1).max() <= 6
    ends = torch.stack([draw.colour[:, 0], draw.colour[:, -1]], 1)
    torch.testing.assert_close(curve[:, 0, [0, -1]], ends, atol=1e-5, rtol=0)
    unit = 10 / math.log(10)
    db = augment.apply(feats, draw, log_unit=unit) - feats
    torch.testing.assert_close(db, curve * unit, atol=1e-4, rtol=0)


def test_seed_decides_and_input_stays():
    augment = ClipAugment(mix_probability=0.5, colour_db=3)
    feats = noise(6, 12, 4)
    kept = feats.clone()
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(augment.apply(feats, augment.draw(6)))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(feats, kept)


@pytest.mark.parametrize(
    "option, value",
    [
        ("mix_probability", -0.1),
        ("mix_probability", 1.1),
        ("mix_gain_db", -1.0),
        ("colour_db", -1.0),
        ("shift_multiple", 0),
    ],
)
def test_options_are_checked(option, value):
    with pytest.raises(ValueError, match=f"{option}={value}"):
        ClipAugment(**{option: value})


def test_spec_augment_is_for_training_only():
    augment = SpecAugment(n_time_masks=4, n_freq_masks=4)
    feats = torch.ones(2, 40, 16)
    augment.eval()
    assert augment(feats) is feats
    torch.manual_seed(0)
    assert (augment.train()(feats) == 0).any()


def test_spec_augment_masks_are_whole_rows_of_zeros():
    torch.manual_seed(0)
    augment = SpecAugment(
        n_time_masks=1, time_width=10, n_freq_masks=1, freq_width=4
    )
    feats = torch.rand(64, 40, 16) + 1
    kept = feats.clone()
    masked = augment(feats)
    assert torch.equal(feats, kept)  # never in place
    assert masked.shape == feats.shape
    hidden = masked == 0
    assert torch.equal(masked[~hidden], feats[~hidden])
    frames, bands = hidden.all(dim=2), hidden.all(dim=1)
    assert torch.equal(hidden, frames.unsqueeze(2) | bands.unsqueeze(1))
    for spans, widest in ((frames, 10), (bands, 4)):
        assert spans.sum(dim=1).max() <= widest
        edges = spans.int().diff(dim=1).abs().sum(dim=1)
        assert edges.max() <= 2  # one span
        assert len(spans.sum(dim=1).unique()) > 2  # of drawn widths
        assert len({tuple(row.tolist()) for row in spans}) > 10  # per clip


def test_spec_augment_of_no_masks_and_of_short_clips():
    feats = torch.ones(2, 3, 4)
    none = SpecAugment(n_time_masks=0, n_freq_masks=0)
    assert torch.equal(none(feats), feats)
    torch.manual_seed(0)
    masked = SpecAugment(time_width=50, freq_width=8)(feats)
    assert masked.shape == feats.shape and masked.isfinite().all()


def test_spec_augment_is_deterministic_under_a_seed():
    feats, results = torch.ones(4, 40, 16), []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(SpecAugment()(feats))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("option", ["n_time_masks", "n_freq_masks"])
def test_spec_augment_options_are_checked(option):
    with pytest.raises(ValueError, match=f"{option}=-1"):
        SpecAugment(**{option: -1})


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 3), (2, 6, 2, 3)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.bool])
def test_roll_frames(shape, dtype):
    """The first frames turn, whatever they hold; the others stay."""
    feats = torch.randint(0, 2, shape).to(dtype)
    steps, turning = torch.tensor([2, 1]), torch.tensor([4, 0])
    rolled = roll_frames(feats, steps, turning)
    assert rolled.dtype == dtype
    assert torch.equal(rolled[0, :4], feats[0, :4].roll(2, dims=0))
    assert torch.equal(rolled[0, 4:], feats[0, 4:])
    assert torch.equal(rolled[1], feats[1])


def test_shift_frames_are_what_is_applied():
    """Features turned by hand in these frames are the augmented ones."""
    torch.manual_seed(0)
    augment = ClipAugment(shift_multiple=4)
    draw, lengths = augment.draw(3), torch.tensor([1.0, 0.5, 0.1])
    steps, turning = augment.shift_frames(draw, torch.tensor([30, 15, 3]))
    assert turning.tolist() == [28, 12, 0]
    assert (steps % 4 == 0).all() and (steps <= turning).all()
    feats = torch.randn(3, 30, 2)
    rolled = roll_frames(feats, steps, turning)
    assert torch.equal(augment.apply(feats, draw, lengths), rolled)
    still = ClipAugment(time_shift=False, shift_multiple=4)
    assert not still.shift_frames(draw, torch.tensor([30, 15, 3]))[0].any()
