"""The benchmarks measure what they say, and their command runs.

Authors
 * The iusp_plugin authors 2026
"""

import json
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from iusp_plugin.losses import iusp_loss


@pytest.mark.parametrize(
    "value, text",
    [
        (0.0, "0"),
        (0.012345, "0.0123"),
        (0.9999, "1.00"),
        (1.0, "1.00"),
        (99.96, "100"),
        (123456.0, "123000"),
    ],
)
def test_significant_digits(bench, value, text):
    assert bench("report").significant(value) == text


def test_cells(bench):
    report = bench("report")
    ratio = {"value": 2.0, "low": 1.5, "high": 30.0}
    row = {"a": ratio, "b": report.at_least(ratio, 1.2), "c": (1, 23)}
    row |= {"d": report.at_most(ratio, 1.2), "e": report.at_most(ratio, None)}
    assert report.cell(row, "a", "ratio") == "2.00 (1.50 to 30.0)"
    assert report.cell(row, "b", "bar") == "1.2 met"
    assert report.cell(row, "c", "shape") == "1 x 23"
    assert report.cell(row, "d", "bar") == "1.2 **missed**"
    assert report.cell(row, "e", "bar") == "-"
    assert report.cell(row, "absent", "ms") == "-"


def test_a_table(bench):
    report = bench("report")
    columns = [("name", "n", "text"), ("took, ms", "s", "ms")]
    table = report.table("T", "Note.", columns, [{"n": "x", "s": 0.5}], "End.")
    assert report.markdown_table(table).splitlines() == [
        "## T",
        "",
        "Note.",
        "",
        "| name | took, ms |",
        "|---|---|",
        "| x | 500 |",
        "",
        "End.",
    ]


def test_ratios_of_times(bench):
    times = bench("timing").Times({"a": [2.0, 3.0, 8.0], "b": [1.0, 1.0, 2.0]})
    # Medians 3 and 1; ratios within repetitions 2, 3 and 4.
    assert times.ratio("a", "b") == {"value": 3.0, "low": 2.5, "high": 3.5}
    assert times.repetitions() == {"a": 3, "b": 3}


def test_every_repetition_times_each_contender_once(bench, monkeypatch):
    timing = bench("timing")
    took = {"slow": 1.0, "slower": 3.0, "hopeless": 30.0}
    calls = []

    def clock(call, count, device):
        calls.append(call())
        return took[calls[-1]]

    monkeypatch.setattr(timing, "_time", clock)
    contenders = {name: lambda name=name: name for name in took}
    effort = timing.Effort(seconds=40.0, fewest=1, most=100)
    times = timing.interleave(contenders, effort, optional=("hopeless",))
    assert times.seconds == {
        "slow": [1.0] * 10,
        "slower": [3.0] * 10,
        "hopeless": [30.0],
    }
    rounds = [tuple(calls[i : i + 2]) for i in range(3, 23, 2)]
    assert {frozenset(pair) for pair in rounds} == {
        frozenset(("slow", "slower"))
    }
    assert len(set(rounds)) == 2, "the order never changed"


def test_the_running_peak(bench):
    peak = bench("memory").running_peak
    assert peak([(3.0, -5), (1.0, 5), (2.0, 4), (4.0, 3)]) == 9
    assert peak([]) == 0


def test_peak_memory_of_known_allocations(bench):
    x = torch.zeros(1000)

    def call():
        both = (x + 1) + (x + 2)  # two, then their sum: three at once
        return both + 1  # the two are gone: two at once

    assert bench("memory").peak_memory(call) == 3 * 4000


@pytest.mark.parametrize("form", ["gram", "covariance"])
def test_products_are_counted_as_torch_counts_them(bench, form):
    t, d, k = 7, 5, 3
    student = torch.rand(1, t, d, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        iusp_loss(student, torch.rand(1, t, k), form=form).backward()
    work = bench("roofline").FORMS[form](t, d, k)
    assert work["products"] == counter.get_total_flops()


def test_random_shapes_keep_within_their_bounds(bench):
    settings = bench("settings")
    shapes = settings.random_shapes(40)
    assert len(set(shapes)) == 40
    assert shapes[:3] == settings.random_shapes(3)
    for batch, frames, *sizes in shapes:
        for n, (low, high) in zip(
            (batch, frames, *sizes), settings.RANGES, strict=True
        ):
            assert low <= n <= high
        assert batch * frames**2 <= settings.MOST_PAIRS


def test_the_truth_is_the_plain_way_in_float64(bench):
    contenders = bench("contenders")
    student, teacher = contenders.features((2, 6, 5, 4))
    wide = student.detach().double().requires_grad_(), teacher.double()
    value, gradient = contenders.step(contenders.plain_iusp, *wide)()
    true_value, true_gradient = contenders.truth(student, teacher)
    torch.testing.assert_close(value, true_value)
    torch.testing.assert_close(gradient, true_gradient)


def test_without_the_other_library(bench, monkeypatch):
    sp_table, settings = bench("sp_table"), bench("settings")
    monkeypatch.setattr(sp_table, "torchdistill_version", lambda: None)
    table = sp_table.sp(settings.Settings(quick=True))
    assert table["closing"] == "torchdistill is not installed."
    text = bench("report").markdown_table(table)
    assert "torchdistill (absent)" in text
    for row in table["rows"]:
        value = pytest.approx(row["plain_value"], rel=1e-4)
        assert row["ours_value"] == value


def test_parts_and_trials_do_not_replace_the_whole(bench):
    losses, settings = bench("losses"), bench("settings")
    assert losses.parse(["--only", "c,A"]).only == "AC"
    names = {
        losses.file_name(settings.Settings(device, quick), only)
        for device in ("cpu", "cuda")
        for quick in (False, True)
        for only in (losses.LETTERS, "AC")
    }
    assert len(names) == 8
    assert losses.file_name(settings.Settings(), losses.LETTERS) == (
        "losses.json"
    )


def test_the_command(project_root, tmp_path):
    script = project_root / "benchmarks" / "losses.py"
    options = ["--quick", "--threads", "1", "--output", str(tmp_path)]
    subprocess.run([sys.executable, str(script), *options], check=True)
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(files) == {"losses_quick.json", "losses_quick.md"}
    record = json.loads(files["losses_quick.json"])
    assert list(record["tables"]) == list("ABCDEFGH")
    for table in record["tables"].values():
        assert table["title"] in files["losses_quick.md"]
        assert table["rows"]
    for row in record["tables"]["A"]["rows"]:
        assert row["ours_value"] < 1e-4 and row["ours_grad"] < 1e-4
    assert record["machine"]["threads"] == 1
    for text in files.values():
        assert str(tmp_path) not in text and str(project_root) not in text
