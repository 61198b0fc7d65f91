"""The pictures of a study's report.

Authors
 * The iusp_plugin authors 2026
"""

from collections import defaultdict
from itertools import cycle

import numpy as np
from iusp_plugin.dataio.taxonomy import COARSE_TAGS
from matplotlib.figure import Figure
from study_search import score

# Colours that people with colour-blindness can tell apart (Okabe and Ito).
_COLOURS = (
    "#777777",
    "#e69f00",
    "#0072b2",
    "#d55e00",
    "#56b4e9",
    "#009e73",
    "#cc79a7",
    "#000000",
)
# As many as have no divisor in common with the colours: pairs differ.
_MARKERS = "osD^vP*Xh"
# Of a term that no method is named after.
_OTHER = {"color": "black"}


class Pictures:
    """Draws a study's results; a picture without data is None.

    Arguments
    ---------
    results : Results
        What was found.
    costs : dict
        What ``measure_costs`` returned.
    """

    def __init__(self, results, costs):
        self.results = results
        self.costs = costs["networks"]
        methods = list(results.study.methods)
        self.style = {
            method: {
                "color": _COLOURS[i % len(_COLOURS)],
                "marker": _MARKERS[i % len(_MARKERS)],
            }
            for i, method in enumerate(methods)
        }

    def methods(self):
        """Methods of the first teacher and without a variant.

        Pictures hold no others: those share colours and markers with these.
        """
        return [label for label in self.results.labels if label in self.style]

    def compared(self):
        """Of these, the ones that all students have: for a panel a student."""
        results = self.results
        return [
            label
            for label in self.methods()
            if all((label, s) in results.runs for s in results.students)
        ]

    def gains(self):
        """Gain in micro-AUPRC by student, smallest first, and by method."""
        results = self.results
        students = sorted(
            results.students, key=lambda s: self.costs[s]["params"]
        )
        labels = [label for label in self.methods() if results.terms(label)]
        if not students or not labels:
            return None
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axis = figure.subplots()
        rows = {(r["student"], r["method"]): r for r in results.rows()}
        for i, label in enumerate(labels):
            offset = 0.7 * ((i + 0.5) / len(labels) - 0.5)
            found = [
                (x + offset, rows[s, label]["gain"])
                for x, s in enumerate(students)
                if (s, label) in rows and rows[s, label]["gain"]
            ]
            _dots(axis, found, self.style[label], label)
        axis.axhline(0, color="#444444", linewidth=0.8)
        axis.set_xticks(
            range(len(students)),
            [f"{s}\n{self.costs[s]['params']:,}" for s in students],
        )
        axis.set_ylabel("gain over plain, micro-AUPRC")
        _legend(figure, axis)
        return figure

    def class_gains(self):
        """Gain in each coarse tag's AUPRC, a panel a student."""
        results = self.results
        if results.level != "coarse":
            return None
        labels = [m for m in self.compared() if results.terms(m)]
        panels = {
            student: {m: results.class_gains(m, student) for m in labels}
            for student in results.students
        }
        panels = {s: p for s, p in panels.items() if any(p.values())}
        if not panels:
            return None
        figure = Figure(
            figsize=(3.2 * len(panels) + 1.6, 5), layout="constrained"
        )
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        names = [tag.partition("_")[2] for tag in COARSE_TAGS]
        for axis, (student, panel) in zip(axes, panels.items(), strict=True):
            for i, label in enumerate(labels):
                offset = 0.7 * ((i + 0.5) / len(labels) - 0.5)
                found = [
                    (int(tag) - 1 + offset, value)
                    for tag, value in panel[label].items()
                ]
                _dots(axis, found, self.style[label], label, sideways=True)
            axis.axvline(0, color="#444444", linewidth=0.8)
            axis.set(title=student, xlabel="gain in AUPRC")
            axis.set_yticks(range(len(names)), names)
            axis.set_ylim(len(names) - 0.5, -0.5)
        _legend(figure, axes[0])
        return figure

    def costs_against_scores(self):
        """micro-AUPRC against parameters and against MACs."""
        results = self.results
        if not results.students:
            return None
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        means = defaultdict(dict)
        for row in results.rows():
            value = row["figures"][results.level, "micro_auprc"]
            if value and row["method"] in self.methods():
                means[row["student"]][row["method"]] = value.mean
        for axis, key, name in zip(
            axes,
            ("params", "macs"),
            ("parameters", "multiply-accumulates of a 10 s clip"),
            strict=True,
        ):
            for label in self.methods():
                found = [
                    (self.costs[student][key], by_label[label])
                    for student, by_label in means.items()
                    if label in by_label
                ]
                if found:
                    axis.plot(
                        *zip(*found, strict=True),
                        **self.style[label],
                        linestyle="none",
                        label=label,
                    )
            for student, by_label in means.items():
                axis.annotate(
                    student,
                    (self.costs[student][key], min(by_label.values())),
                    xytext=(0, -7),
                    textcoords="offset points",
                    rotation=90,
                    ha="center",
                    va="top",
                    fontsize=8,
                    color="#555555",
                )
            teacher = results.teacher_value("")
            if teacher is not None:
                cost = self.costs["cnn_teacher"][key]
                axis.plot([cost], [teacher], "k*", markersize=11)
                axis.annotate(
                    "teacher",
                    (cost, teacher),
                    xytext=(-8, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                )
            axis.set(xscale="log", xlabel=name)
        low, high = axes[0].get_ylim()
        # With room for the names.
        axes[0].set(ylabel="micro-AUPRC", ylim=(1.6 * low - 0.6 * high, high))
        _legend(figure, axes[0])
        return figure

    def learning_curves(self):
        """Mean micro-AUPRC after each epoch, on the clips tuned on."""
        results = self.results
        if not results.students:
            return None
        n = len(results.students)
        figure = Figure(figsize=(3.2 * n + 1.6, 3.8), layout="constrained")
        axes = figure.subplots(1, n, sharey=True, squeeze=False)[0]
        for axis, student in zip(axes, results.students, strict=True):
            for label in self.compared():
                by_epoch = defaultdict(list)
                for run in results.runs[label, student].values():
                    for epoch in run["curve"]:
                        by_epoch[int(epoch["epoch"])].append(
                            epoch["valid micro_auprc"]
                        )
                epochs = sorted(by_epoch)
                means = [np.mean(by_epoch[epoch]) for epoch in epochs]
                style = {"color": self.style[label]["color"], "label": label}
                axis.plot(epochs, means, **style)
            axis.set(title=student, xlabel="epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
        axes[0].set_ylabel(f"micro-AUPRC ({results.tuned})")
        _legend(figure, axes[0])
        return figure

    def gradients(self):
        """Length and angle of each term's gradient beside the labels'."""
        found = self.results.gradients
        if not found:
            return None
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        axes = figure.subplots(1, 2)
        for (label, student), record in sorted(found.items()):
            epochs = record["gradients"]
            names = [n for n in epochs[0]["losses"] if n != "label"]
            for name in names:
                style = {"color": self.style.get(name, _OTHER)["color"]}
                whole = name if name == label else f"{name} in {label}"
                for axis, key in zip(axes, ("ratio", "cosine"), strict=True):
                    axis.plot(
                        [e["epoch"] for e in epochs],
                        [e["losses"][name][key] for e in epochs],
                        label=f"{whole}, {student}",
                        **style,
                    )
        axes[0].set(yscale="log", ylabel="length, labels' = 1")
        axes[1].axhline(0, color="#444444", linewidth=0.8)
        axes[1].set(ylabel="cosine with the labels' gradient")
        for axis in axes:
            axis.set(xlabel="epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
        _legend(figure, axes[0])
        return figure

    def searches(self):
        """Score against weight in the search, a panel a term."""
        results = self.results
        trials = {t: results.trials[t] for t in results.study.terms}
        trials = {term: found for term, found in trials.items() if found}
        if not trials:
            return None
        figure = Figure(
            figsize=(3.2 * len(trials) + 1.6, 3.8), layout="constrained"
        )
        axes = figure.subplots(1, len(trials), sharey=True, squeeze=False)[0]
        for axis, (term, found) in zip(axes, trials.items(), strict=True):
            kinds = defaultdict(list)
            for record in found:
                setting = record["settings"][term]
                kind = [
                    str(setting[key])
                    for key in ("tap", "schedule", "similarity", "pooling")
                    if setting.get(key, "constant") != "constant"
                ]
                if "failed" not in record:
                    place = (setting["weight"], score(record))
                    kinds[", ".join(kind) or "constant"].append(place)
            for marker, (kind, places) in zip(
                cycle(_MARKERS), sorted(kinds.items()), strict=False
            ):
                axis.plot(
                    *zip(*places, strict=True),
                    marker,
                    color=self.style.get(term, _OTHER)["color"],
                    label=kind,
                )
            axis.set(title=term, xscale="log", xlabel="weight")
            axis.legend(fontsize=7, loc="lower left")
        axes[0].set_ylabel(f"micro-AUPRC ({results.tuned})")
        return figure


def _dots(axis, found, style, label, sideways=False):
    """Means with intervals at given places; see ``Pictures.gains``."""
    if not found:
        return
    places, values = zip(*found, strict=True)
    means = np.array([value.mean for value in values])
    ends = np.array([(value.low, value.high) for value in values])
    errors = np.abs(ends.T - means)
    errors = np.where(np.isfinite(errors), errors, 0.0)
    options = {"linestyle": "none", "capsize": 2, "markersize": 5}
    if sideways:
        axis.errorbar(
            means, places, xerr=errors, label=label, **options, **style
        )
    else:
        axis.errorbar(
            places, means, yerr=errors, label=label, **options, **style
        )


def _legend(figure, axis):
    """One legend for the whole picture, above it."""
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside upper center",
            ncols=int(figure.get_figwidth() / 1.6),
            frameon=False,
        )
