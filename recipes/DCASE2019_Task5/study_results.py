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


def headline(levels):
    """Figures of the tags that lead: the coarse ones where they are.

    Arguments
    ---------
    levels : dict of str to dict
        A split's figures by level.
    """
    return levels["coarse" if "coarse" in levels else "fine"]


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
        halves = study.declared["shared"].get("validate_on") == "even"
        self.tuned = "tuning half" if halves else "validation"
        self.runs = defaultdict(dict)
        self.trials = defaultdict(list)
        self.gradients = {}
        self.teachers = {}
        self.undeclared = set()
        for record in records.values():
            if record["stage"] == "teacher":
                self.teachers[record["teacher"]] = record
            elif record["stage"] == "search":
                self.trials[record["method"]].append(record)
            elif record["method"] not in study.methods:
                self.undeclared.add(record["method"])
            elif record["stage"] == "gradients":
                self.gradients[self.label(record), record["student"]] = record
            else:
                key = (self.label(record), record["student"])
                self.runs[key][record["seed"]] = record
        levels = {
            level
            for runs in self.runs.values()
            for record in runs.values()
            for level in record["splits"][self.split]
        }
        self.level = "fine" if levels == {"fine"} else "coarse"
        for trials in self.trials.values():
            trials.sort(key=lambda record: record["trial"])
        students = {student for _, student in self.runs}
        self.students = [s for s in study.declared["taps"] if s in students]
        labels = {label for label, _ in self.runs}
        order = list(study.methods)

        def rank(label):
            method, teacher, variant = split_label(label)
            return variant, teacher, order.index(method)

        self.labels = sorted(labels, key=rank)

    def label(self, record):
        """Method of a run, @ another teacher, + a variant."""
        label = record["method"]
        if record.get("teacher", self.first) != self.first:
            label += f"@{record['teacher']}"
        if "variant" in record:
            label += f"+{record['variant']}"
        return label

    def distilled(self):
        """Labels of all methods but the plain one."""
        return [label for label in self.labels if self.terms(label)]

    def terms(self, label):
        """The terms of a method."""
        return self.study.methods[split_label(label)[0]]

    def plain_label(self, label=""):
        """The method without terms, in the variant of another label."""
        variant = split_label(label)[2]
        plain = next(m for m, terms in self.study.methods.items() if not terms)
        return f"{plain}+{variant}" if variant else plain

    def values(
        self, label, student, level=None, figure="micro_auprc", split=None
    ):
        """One figure by seed.

        Arguments
        ---------
        label, student : str
            Which runs.
        level, figure : str
            Which figure; of the tags that lead if left out.
        split : str, optional
            The reported one if left out.

        Returns
        -------
        dict of int to float
            Empty where there are no runs.
        """
        runs = self.runs.get((label, student), {})
        split, level = split or self.split, level or self.level
        return {
            seed: record["splits"][split][level][figure]
            for seed, record in sorted(runs.items())
            if level in record["splits"].get(split, {})
        }

    def teacher_value(
        self, label, level=None, figure="micro_auprc", split=None
    ):
        """The same figure of the teacher of a method; None without it.

        Arguments
        ---------
        label : str
            The method.
        level, figure : str
            Which figure; of the tags that lead if left out.
        split : str, optional
            The reported one if left out.
        """
        teacher = split_label(label)[1]
        record = self.teachers.get(teacher or self.first)
        if record is None:
            return None
        levels = record["splits"].get(split or self.split, {})
        level = level or self.level
        return levels[level][figure] if level in levels else None

    def plain(self, label, student, level=None, figure="micro_auprc"):
        """The figure by seed of the plain student that a method is set off.

        Arguments
        ---------
        label, student : str
            The runs that are compared with it.
        level, figure : str
            Which figure; of the tags that lead if left out.
        """
        return self.values(self.plain_label(label), student, level, figure)

    def rows(self):
        """A dict a method and student: estimates, gain, gap closed."""
        rows = []
        for student in self.students:
            for label in self.labels:
                values = self.values(label, student)
                if not values:
                    continue
                plain = self.plain(label, student)
                teacher = self.teacher_value(label)
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
        suffixes = {label.removeprefix("iusp") for label in self.labels}
        suffixes = sorted(x for x in suffixes if not x or x[0] in "@+")
        for student in self.students:
            for suffix in suffixes:
                iusp = self.values("iusp" + suffix, student)
                sp = self.values("sp" + suffix, student)
                plain = self.plain("iusp" + suffix, student)
                # All columns of a row are of the same seeds.
                shared = sorted(iusp.keys() & sp.keys() & plain.keys())
                iusp, sp, plain = (
                    {seed: values[seed] for seed in shared}
                    for values in (iusp, sp, plain)
                )
                difference = claim_difference(iusp, sp, plain)
                if difference is None:
                    continue
                claims.append(
                    {
                        "student": student,
                        "setting": suffix or self.first,
                        "sp": gain(sp, plain),
                        "iusp": gain(iusp, plain),
                        "iusp_sp": gain(iusp, sp),
                        "d": difference,
                        "ratio": gain_ratio(iusp, sp, plain),
                    }
                )
        return claims

    def beside(self):
        """Each run's paired differences from plain, SP and IUSP students.

        Those are of the same student and seed, of the first teacher and in
        no variant: the differences tell what another method, teacher or
        variant adds.

        Returns
        -------
        list of dict
            One a student and method: student, method, and an estimate or
            None by the name of what it is set beside.
        """
        plain = self.plain_label()
        bases = [name for name in (plain, "sp", "iusp") if name in self.labels]
        rows = []
        for student in self.students:
            for label in self.labels:
                if label in bases or (label, student) not in self.runs:
                    continue
                values = self.values(label, student)
                row = {"student": student, "method": label}
                for base in bases:
                    row[base] = gain(values, self.values(base, student))
                rows.append(row)
        return rows

    def fits(self):
        """How far the labels are fitted after the last epoch.

        Returns
        -------
        list of dict
            One a student and method: student, method, and estimates of the
            label loss of the training clips, as augmented, and of the clips
            that epochs were chosen on.
        """
        rows = []
        for student in self.students:
            for label in self.labels:
                runs = self.runs.get((label, student), {}).values()
                if runs:
                    last = [record["curve"][-1] for record in runs]
                    row = {"student": student, "method": label}
                    for split in ("train", "valid"):
                        losses = [epoch[f"{split} label"] for epoch in last]
                        row[split] = estimate(losses)
                    rows.append(row)
        return rows

    def gradient_means(self):
        """Each term's gradient beside the labels', early and later.

        Returns
        -------
        list of dict
            One a term and run: student, method, term, and for "ratio" and
            "cosine" the means over the first quarter of the epochs and over
            the others.
        """
        rows = []
        for (label, student), record in sorted(self.gradients.items()):
            epochs = [entry["losses"] for entry in record["gradients"]]
            first = max(1, len(epochs) // 4)
            for term in self.terms(label):
                row = {"student": student, "method": label, "term": term}
                for key in ("ratio", "cosine"):
                    values = [losses[term][key] for losses in epochs]
                    parts = (values[:first], values[first:] or values[:first])
                    row[key] = [sum(part) / len(part) for part in parts]
                rows.append(row)
        return rows

    def closest(self):
        """The best method of each student, and how far its teacher is.

        The best is chosen on the clips that epochs were chosen on, and its
        figures are those of the reported ones. Methods with another teacher
        are left out.

        Returns
        -------
        list of dict
            One a student and variant.
        """
        found = []
        variants = sorted({split_label(label)[2] for label in self.labels})
        for student in self.students:
            for variant in variants:
                means = {}
                for label in self.distilled():
                    _, teacher, own = split_label(label)
                    tuned = self.values(label, student, split="validate")
                    if own == variant and not teacher and tuned:
                        means[label] = estimate(tuned.values()).mean
                if not means:
                    continue
                best = max(means, key=means.get)
                values = self.values(best, student)
                plain = self.plain(best, student)
                teacher = self.teacher_value(best)
                if not plain or teacher is None:
                    continue
                found.append(
                    {
                        "student": student,
                        "method": best,
                        "seeds": sorted(values),
                        "value": estimate(values.values()),
                        "teacher": teacher,
                        "below": estimate(teacher - v for v in values.values()),
                        "closed": gap_closed(values, plain, teacher),
                    }
                )
        return found

    def class_gains(self, label, student):
        """Estimate of the gain of each coarse tag, by its number.

        Arguments
        ---------
        label, student : str
            Which runs.
        """
        tags = self.values(label, student, figure="classwise_auprc")
        plain = self.plain(label, student, figure="classwise_auprc")
        gains = {}
        for tag in next(iter(tags.values()), {}):
            gains[tag] = gain(
                {seed: values[tag] for seed, values in tags.items()},
                {seed: values[tag] for seed, values in plain.items()},
            )
        return {tag: value for tag, value in gains.items() if value}


def split_label(label):
    """Method, teacher and variant of a label; empty for the first ones.

    Arguments
    ---------
    label : str
        As ``Results.label`` writes it.

    Example
    -------
    >>> split_label("sp@second+long"), split_label("sp")
    (('sp', 'second', 'long'), ('sp', '', ''))
    """
    method, _, variant = label.partition("+")
    method, _, teacher = method.partition("@")
    return method, teacher, variant


def reported_split(study, records):
    """The split that is reported, which all rows have (or the teachers).

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
    by_stage = {
        stage: {
            n: r["splits"] for n, r in records.items() if r["stage"] == stage
        }
        for stage in ("row", "teacher")
    }
    rows = by_stage["row"] or by_stage["teacher"]
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
