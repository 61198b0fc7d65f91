"""The figures of a study's finished runs, arranged for tables and pictures.

Authors
 * The iusp_plugin authors 2026
"""

from collections import defaultdict

from study_statistics import (
    claim_difference,
    estimate,
    gain,
    gain_ratio,
    gap_closed,
)

LEVELS = ("coarse", "fine")
FIGURES = ("micro_auprc", "macro_auprc", "micro_f1")


class Results:
    """Finished runs by method, student and seed.

    Arguments
    ---------
    study : Study
        Declares methods, students and the split that is reported.
    records : dict of str to dict, optional
        Records by name; the study's own if left out.
    """

    def __init__(self, study, records=None):
        records = study.records() if records is None else records
        self.study = study
        self.split = reported_split(study, records)
        self.first = study.teachers[0]
        self.runs = defaultdict(dict)
        self.trials = defaultdict(list)
        self.teachers = {}
        for record in records.values():
            if record["stage"] == "teacher":
                self.teachers[record["teacher"]] = record
            elif record["stage"] == "search":
                self.trials[record["method"]].append(record)
            else:
                key = (self.label(record), record["student"])
                self.runs[key][record["seed"]] = record
        for trials in self.trials.values():
            trials.sort(key=lambda record: record["trial"])
        students = {student for _, student in self.runs}
        self.students = [s for s in study.declared["taps"] if s in students]
        labels = {label for label, _ in self.runs}
        order = list(study.methods)
        self.labels = sorted(
            labels,
            key=lambda label: ("@" in label, order.index(label.split("@")[0])),
        )

    def label(self, record):
        """Method of a run, with its teacher where that is not the first."""
        teacher = record.get("teacher", self.first)
        suffix = "" if teacher == self.first else f"@{teacher}"
        return record["method"] + suffix

    def distilled(self):
        """Labels of all methods but the plain one."""
        return [label for label in self.labels if self.terms(label)]

    def terms(self, label):
        """The terms of a method."""
        return self.study.methods[label.split("@")[0]]

    def plain_label(self):
        """The method without terms."""
        return next(m for m, terms in self.study.methods.items() if not terms)

    def values(
        self, label, student, level="coarse", figure="micro_auprc", split=None
    ):
        """One figure by seed.

        Arguments
        ---------
        label, student : str
            Which runs.
        level, figure : str
            Which figure.
        split : str, optional
            The reported one if left out.

        Returns
        -------
        dict of int to float
            Empty where there are no runs.
        """
        runs = self.runs.get((label, student), {})
        split = split or self.split
        return {
            seed: record["splits"][split][level][figure]
            for seed, record in sorted(runs.items())
            if level in record["splits"].get(split, {})
        }

    def teacher_value(
        self, label, level="coarse", figure="micro_auprc", split=None
    ):
        """The same figure of the teacher of a method; None without it.

        Arguments
        ---------
        label : str
            The method.
        level, figure : str
            Which figure.
        split : str, optional
            The reported one if left out.
        """
        _, _, teacher = label.partition("@")
        record = self.teachers.get(teacher or self.first)
        if record is None:
            return None
        levels = record["splits"].get(split or self.split, {})
        return levels[level][figure] if level in levels else None

    def plain(self, student, level="coarse", figure="micro_auprc"):
        """The plain student's figure by seed."""
        return self.values(self.plain_label(), student, level, figure)

    def rows(self):
        """A dict a method and student: estimates, gain, gap closed."""
        rows = []
        for student in self.students:
            for label in self.labels:
                values = self.values(label, student)
                if not values:
                    continue
                plain, teacher = self.plain(student), self.teacher_value(label)
                row = {
                    "student": student,
                    "method": label,
                    "seeds": sorted(values),
                    "figures": {
                        (level, figure): self._estimate(
                            label, student, level, figure
                        )
                        for level in LEVELS
                        for figure in FIGURES
                    },
                    "gain": None,
                    "closed": None,
                }
                if self.terms(label):
                    row["gain"] = gain(values, plain)
                    if teacher is not None:
                        row["closed"] = gap_closed(values, plain, teacher)
                rows.append(row)
        return rows

    def _estimate(self, label, student, level, figure):
        """Estimate of a figure; None where a run lacks it."""
        values = self.values(label, student, level, figure)
        return estimate(values.values()) if values else None

    def claims(self):
        """The claim by student: gains of SP and IUSP, d, ratio of gains."""
        claims = []
        for student in self.students:
            for suffix in ["", *(f"@{t}" for t in self.study.teachers[1:])]:
                iusp = self.values("iusp" + suffix, student)
                sp = self.values("sp" + suffix, student)
                plain = self.plain(student)
                difference = claim_difference(iusp, sp, plain)
                if difference is None:
                    continue
                claims.append(
                    {
                        "student": student,
                        "teacher": suffix[1:] or self.first,
                        "sp": gain(sp, plain),
                        "iusp": gain(iusp, plain),
                        "iusp_sp": gain(iusp, sp),
                        "d": difference,
                        "ratio": gain_ratio(iusp, sp, plain),
                    }
                )
        return claims

    def class_gains(self, label, student):
        """Estimate of the gain of each coarse tag, by its number.

        Arguments
        ---------
        label, student : str
            Which runs.
        """
        tags = self.values(label, student, figure="classwise_auprc")
        plain = self.plain(student, figure="classwise_auprc")
        gains = {}
        for tag in next(iter(tags.values()), {}):
            gains[tag] = gain(
                {seed: values[tag] for seed, values in tags.items()},
                {seed: values[tag] for seed, values in plain.items()},
            )
        return {tag: value for tag, value in gains.items() if value}


def reported_split(study, records):
    """The split that is reported, which all rows have.

    Arguments
    ---------
    study : Study
        Declares it; "auto" is test where there is one, else held_out, else
        validate.
    records : dict of str to dict
        Records by name.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If a run lacks the split that is declared.
    """
    rows = {n: r["splits"] for n, r in records.items() if r["stage"] == "row"}
    wanted = study.declared["report_split"]
    if wanted == "auto":
        for split in ("test", "held_out"):
            if rows and all(split in splits for splits in rows.values()):
                return split
        return "validate"
    for name, splits in rows.items():
        if wanted not in splits:
            raise ValueError(
                f"report_split is {wanted!r}, but {name} has only "
                f"{', '.join(splits)}; declare report_split: auto."
            )
    return wanted
