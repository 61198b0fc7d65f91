"""What a study consists of: its declaration, and the runs that follow from it.

Authors
 * The iusp_plugin authors 2026
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from iusp_plugin.checks import near_names
from iusp_plugin.models import list_models

KEYS = (
    "data_folder",
    "output_folder",
    "records_folder",
    "shared",
    "report_split",
    "student_options",
    "distilled_options",
    "teachers",
    "taps",
    "terms",
    "search",
    "methods",
    "rows",
)
# Options of a term, and of train.py, that are not <term>_<option>.
_COMMON = {"temperature": "temperature"}


@dataclass(frozen=True)
class Run:
    """One training: of a teacher, a search trial or a row of the study.

    Arguments
    ---------
    name : str
        Folder of the run, relative; its record is ``<name>.json``.
    yaml : str
        YAML of train.py.
    options : dict
        Options of train.py.
    facts : dict
        What the record says of it: method, student, seed, teacher, stage.
    processes : int
        More than one: by torchrun, on as many GPUs.
    """

    name: str
    yaml: str
    options: dict = field(hash=False)
    facts: dict = field(hash=False)
    processes: int = 1

    def command(self, script, python, folder):
        """Words of the command line, with the run in that folder."""
        options = {**self.options, "output_folder": folder}
        words = [f"--{key}={value}" for key, value in options.items()]
        launcher = [str(python)]
        if self.processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone"]
            launcher += [f"--nproc_per_node={self.processes}"]
        return [*launcher, script, self.yaml, *words]


class Study:
    """A declared study.

    Arguments
    ---------
    path : str or Path
        Its YAML.
    overrides : dict
        Top-level values that replace the YAML's.
    """

    def __init__(self, path, overrides=None):
        with open(path, encoding="utf-8") as stream:
            declared = load_hyperpyyaml(stream, overrides or {})
        _check(path, declared)
        self.declared = declared
        self.name = Path(path).stem
        self.output_folder = Path(declared["output_folder"])
        self.records_folder = Path(declared["records_folder"])
        self.terms = declared["terms"]
        self.methods = declared["methods"]
        self.teachers = list(declared["teachers"])
        self.search = declared["search"] or {"trials": 0}

    @property
    def searched(self):
        """The terms that are searched; none without trials."""
        return list(self.terms) if self.search["trials"] else []

    def record_path(self, run):
        """Where a run's record lies."""
        return self.records_folder / f"{run.name}.json"

    def folder(self, run):
        """Where a finished run lies."""
        return self.output_folder / "runs" / run.name

    def teacher_run(self, label):
        """The training of a teacher."""
        options = self._options(self.declared["teachers"][label])
        processes = options.pop("processes", 1)
        facts = {"stage": "teacher", "method": "teacher", "teacher": label}
        facts |= {"student": "cnn_teacher", "seed": options["seed"]}
        yaml = "hparams/teacher.yaml"
        return Run(f"teacher/{label}", yaml, options, facts, processes)

    def trial_run(self, term, number, setting):
        """The training of a search's trial.

        Arguments
        ---------
        term : str
            Which loss, alone.
        number : int
            Of the trial.
        setting : dict
            Its weight, tap and so on.
        """
        student, seed = self.search["student"], self.search["seed"]
        run = self.student_run(term, student, seed, {term: setting})
        facts = {**run.facts, "stage": "search", "trial": number}
        name = f"search/{term}/{number}"
        return Run(name, run.yaml, run.options, facts)

    def student_run(self, method, student, seed, settings, teacher=None):
        """The training of a student.

        Arguments
        ---------
        method : str
            Name of the method, whose terms are the settings' keys.
        student : str
            Name of the network.
        seed : int
            Of the run.
        settings : dict of str to dict
            Each term's weight, tap and so on.
        teacher : str, optional
            Label of the teacher; the first one if left out.
        """
        teacher = teacher or self.teachers[0]
        options = {"method": method, "student": student, "seed": seed}
        facts = {**options, "stage": "row", "settings": settings}
        name = f"{method}/{student}/{seed}"
        yaml = "hparams/student.yaml"
        if settings:
            yaml = "hparams/iusp.yaml"
            options |= self.teacher_options(teacher)
            options |= {f"{term}_weight": 0.0 for term in self.terms}
            for term, setting in settings.items():
                options |= self.term_options(term, setting, student)
            facts["teacher"] = teacher
            if teacher != self.teachers[0]:
                name = f"{method}@{teacher}/{student}/{seed}"
        options |= self._options(self.declared["student_options"])
        return Run(f"rows/{name}", yaml, options, facts)

    def teacher_options(self, teacher):
        """What train.py and cache_teacher.py are told of a teacher."""
        folder = self.output_folder / "runs" / "teacher" / teacher
        return {
            **self.declared["distilled_options"],
            "teacher_folder": str(folder),
            "teacher_width": self.declared["teachers"][teacher]["width"],
            "use_teacher_cache": True,
        }

    def term_options(self, term, setting, student):
        """One term's setting as options of train.py.

        Arguments
        ---------
        term : str
            Name of the loss.
        setting : dict
            Its weight, tap and so on.
        student : str
            Network whose tap is meant.
        """
        options = {}
        for key, value in setting.items():
            if key == "tap":
                taps = self.declared["taps"]
                options[f"{term}_student_tap"] = taps[student][value]
                options[f"{term}_teacher_tap"] = taps["cnn_teacher"][value]
            else:
                options[_COMMON.get(key, f"{term}_{key}")] = value
        return options

    def cache_commands(self, teacher):
        """Options of cache_teacher.py for all that the runs will ask for.

        Arguments
        ---------
        teacher : str
            Label of the teacher.

        Returns
        -------
        dict of str to dict
            By name of the part.
        """
        places = set()
        for term in self.terms.values():
            if "tap" in term["start"]:
                places.add(term["start"]["tap"])
                places |= set(term["search"].get("tap", ()))
        commands = {}
        for place in sorted(places):
            tap = self.declared["taps"]["cnn_teacher"][place]
            options = {f"{term}_weight": 1.0 for term in self.terms}
            options |= self.teacher_options(teacher) | {"teacher_tap": tap}
            options |= self._options(self.declared["student_options"])
            commands[place] = options
        return commands

    def rows(self, settings):
        """All runs of the rows, in their order: seed by seed.

        Arguments
        ---------
        settings : dict of str to dict
            What the search has found for each term.

        Returns
        -------
        list of Run
        """
        runs = {}
        for row in self.declared["rows"]:
            for seed in row["seeds"]:
                for student in row["students"]:
                    for method in row["methods"]:
                        chosen = {t: settings[t] for t in self.methods[method]}
                        run = self.student_run(
                            *(method, student, seed, chosen),
                            row.get("teacher"),
                        )
                        runs.setdefault(run.name, run)
        return list(runs.values())

    def start_settings(self):
        """Each term's setting without a search."""
        return {name: dict(term["start"]) for name, term in self.terms.items()}

    def records(self):
        """The records of all finished runs, by name."""
        folder = self.records_folder
        return {
            str(path.relative_to(folder).with_suffix("")): json.loads(
                path.read_text(encoding="utf-8")
            )
            for path in sorted(folder.rglob("*.json"))
            if path.parent != folder
        }

    def _options(self, options):
        """The shared options, the data folder, and those given."""
        data = {"data_folder": self.declared["data_folder"]}
        if data["data_folder"] is None:
            data = {}
        return {**data, **self.declared["shared"], **options}


def _check(path, declared):
    """Raise if a declaration lacks something or names what is not there."""
    for key in declared:
        if key not in KEYS:
            raise ValueError(
                f"{path}: {key!r} is no key of a study. "
                + near_names(key, KEYS)
            )
    missing = [key for key in KEYS if key not in declared]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}.")
    if not declared["teachers"] or not declared["rows"]:
        raise ValueError(f"{path} needs at least one teacher and one row.")
    known = {
        "students": [n for n in list_models() if n in declared["taps"]],
        "methods": declared["methods"],
        "teacher": declared["teachers"],
    }
    for row in declared["rows"]:
        for key, names in known.items():
            wanted = row.get(key, [])
            for name in [wanted] if isinstance(wanted, str) else wanted:
                if name not in names:
                    raise ValueError(
                        f"{path}: a row names the {key} {name!r}. "
                        + near_names(name, names)
                    )
    for method, terms in declared["methods"].items():
        for term in terms:
            if term not in declared["terms"]:
                raise ValueError(
                    f"{path}: method {method!r} has the term {term!r}. "
                    + near_names(term, declared["terms"])
                )
