"""What a study consists of: its declaration, and the runs that follow from it.

Authors
 * The iusp_plugin authors 2026
"""

import json
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from study_check import check_declaration, check_runs

HERE = Path(__file__).resolve().parent
# The losses that hparams/iusp.yaml knows, each with a weight of its own.
TERMS = ("kd", "sp", "iusp")
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
    script : str
        What trains, of this recipe.
    """

    name: str
    yaml: str
    options: dict = field(hash=False)
    facts: dict = field(hash=False)
    processes: int = 1
    script: str = "train.py"

    def command(self, python, folder):
        """Words of the command line.

        Arguments
        ---------
        python : str
            The interpreter.
        folder : str
            Where the run goes.
        """
        options = {**self.options, "output_folder": folder}
        words = [f"--{key}={value}" for key, value in options.items()]
        launcher = [str(python)]
        if self.processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone"]
            launcher += [f"--nproc_per_node={self.processes}"]
        files = [str(HERE / self.script), str(HERE / self.yaml)]
        return [*launcher, *files, *words]

    def shown(self):
        """The command as a reader can use it: without this machine's paths."""
        paths = ("data_folder", "teacher_folder", "cache_folder")
        words = [
            f"--{key}={value}"
            for key, value in self.options.items()
            if key not in paths
        ]
        if "data_folder" in self.options:
            words.append("--data_folder=FOLDER")
        return " ".join([f"python {self.script}", self.yaml, *words])


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
        check_declaration(path, declared, TERMS)
        self.declared = declared
        self._data_digest = None
        self.name = Path(path).stem
        self.output_folder = Path(declared["output_folder"])
        self.records_folder = Path(declared["records_folder"])
        self.settings_path = self.records_folder / "settings.json"
        self.terms = declared["terms"]
        self.methods = {
            name: terms if isinstance(terms, dict) else {t: {} for t in terms}
            for name, terms in declared["methods"].items()
        }
        self.teachers = list(declared["teachers"])
        self.search = declared["search"] or {"trials": 0}
        check_runs(path, self)

    @property
    def searched(self):
        """The terms that are searched; none without trials."""
        return list(self.terms) if self.search["trials"] else []

    def trials(self, term):
        """How many trials a term has: those drawn, then the refinements."""
        return self.search["trials"] + len(self.terms[term].get("refine", []))

    def data_digest(self):
        """Of the annotations; None for the synthetic soundscapes.

        Unlike train.py's own fingerprint it is the same on every machine.
        """
        folder = self.declared["data_folder"]
        if folder is not None and self._data_digest is None:
            files = sorted(Path(folder).glob("annotations*.csv"))
            if files:
                content = b"".join(path.read_bytes() for path in files)
                self._data_digest = sha256(content).hexdigest()[:16]
        return self._data_digest

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

    def student_run(
        self,
        method,
        student,
        seed,
        settings,
        teacher=None,
        variant=None,
        gradients=False,
    ):
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
        variant : str, optional
            Name of further options.
        gradients : bool
            Measure the gradients of the terms as well.
        """
        teacher = teacher or self.teachers[0]
        options = {"method": method, "student": student, "seed": seed}
        stage = "gradients" if gradients else "row"
        facts = {**options, "stage": stage, "settings": settings}
        label = method
        yaml = "hparams/student.yaml"
        if settings:
            yaml = "hparams/iusp.yaml"
            options |= self.teacher_options(teacher)
            options |= {f"{term}_weight": 0.0 for term in TERMS}
            for term, setting in settings.items():
                options |= self.term_options(term, setting, student)
            facts["teacher"] = teacher
            if teacher != self.teachers[0]:
                label += f"@{teacher}"
        options |= self._options(self.declared["student_options"])
        if variant:
            options |= self.declared["variants"][variant]
            facts["variant"] = variant
            label += f"+{variant}"
        name = (
            f"{'gradients' if gradients else 'rows'}/{label}/{student}/{seed}"
        )
        script = "gradients.py" if gradients else "train.py"
        return Run(name, yaml, options, facts, script=script)

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
                tap = self._tap(student, value)
                options[f"{term}_student_tap"] = tap["student"]
                options[f"{term}_teacher_tap"] = tap["teacher"]
            else:
                options[_COMMON.get(key, f"{term}_{key}")] = value
        return options

    def _tap(self, student, place):
        """What a place means in a student and in the teacher."""
        tap = self.declared["taps"][student][place]
        if isinstance(tap, dict):
            return tap
        teacher = self.declared["taps"]["cnn_teacher"][place]
        return {"student": tap, "teacher": teacher}

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
        taps, poolings = set(), set()
        students = [n for n in self.declared["taps"] if n != "cnn_teacher"]
        for setting in self._possible_settings():
            if "tap" in setting:
                poolings.add(setting.get("pooling", "none"))
                place = setting["tap"]
                for student in students:
                    if place not in self.declared["taps"][student]:
                        continue  # its runs do not ask for it
                    found = self._tap(student, place)["teacher"]
                    taps |= {found} if isinstance(found, str) else set(found)
        commands = {}
        weights = {f"{term}_weight": 0.0 for term in TERMS}
        weights |= {f"{term}_weight": 1.0 for term in self.terms}
        shared = weights | self.teacher_options(teacher)
        options = self._options(self.declared["student_options"])
        for tap in sorted(taps):
            for pooling in sorted(poolings):
                name = tap
                chosen = {"sp_teacher_tap": tap, "iusp_teacher_tap": tap}
                if pooling != "none":
                    name = f"{tap}-{pooling}"
                    chosen["sp_pooling"] = pooling
                commands[name] = shared | chosen | options
        # Without a tap, there is the soft targets' alone.
        return commands or {"logits": shared | options}

    def _possible_settings(self):
        """Settings, or parts of them, that hold all that may be asked for."""
        for name, term in self.terms.items():
            yield term["start"]
            for key, values in term["search"].items():
                yield from ({**term["start"], key: value} for value in values)
            for changes in term.get("refine", []):
                taps = term["search"].get("tap", [term["start"].get("tap")])
                yield from ({"tap": tap, **changes} for tap in taps if tap)
            for terms in self.methods.values():
                yield {**term["start"], **terms.get(name, {})}

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
                        chosen = {
                            term: {**settings[term], **changes}
                            for term, changes in self.methods[method].items()
                        }
                        run = self.student_run(
                            *(method, student, seed, chosen),
                            row.get("teacher"),
                            row.get("variant"),
                            row.get("gradients", False),
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
