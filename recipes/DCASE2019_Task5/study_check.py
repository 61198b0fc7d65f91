"""What is wrong with a study's declaration, before anything runs.

Authors
 * The iusp_plugin authors 2026
"""

import dataclasses
import re
from itertools import product
from pathlib import Path

from iusp_plugin.checks import near_names
from iusp_plugin.losses.weighted import SCHEDULES
from iusp_plugin.models import list_models

from speechbrain.utils.run_opts import RunOptions

HERE = Path(__file__).resolve().parent
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
OPTIONAL_KEYS = ("variants",)
ROW_KEYS = ("students", "methods", "seeds", "teacher", "variant", "gradients")
REPORTED = ("auto", "test", "held_out", "validate")


def check_declaration(path, declared, terms):
    """Raise if a declaration lacks something or names what is not there.

    Arguments
    ---------
    path : str or Path
        Its YAML, named in the error.
    declared : dict
        Its content.
    terms : sequence of str
        The losses that there are.

    Raises
    ------
    ValueError
        Names the thing and what was probably meant.
    """
    _check_names(path, "the study has the key", declared, KEYS + OPTIONAL_KEYS)
    missing = [key for key in KEYS if key not in declared]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}.")
    if not declared["teachers"] or not declared["rows"]:
        raise ValueError(f"{path} needs at least one teacher and one row.")
    _check_names(path, "there is the term", declared["terms"], terms)
    wanted = [declared["report_split"]]
    _check_names(path, "report_split is", wanted, REPORTED)
    students = [n for n in list_models() if n in declared["taps"]]
    known = {
        "students": students,
        "methods": declared["methods"],
        "teacher": declared["teachers"],
        "variant": declared.get("variants", {}),
    }
    for row in declared["rows"]:
        _check_names(path, "a row has the key", row, ROW_KEYS)
        for key, names in known.items():
            wanted = row.get(key, [])
            wanted = [wanted] if isinstance(wanted, str) else wanted
            _check_names(path, f"a row names the {key}", wanted, names)
    taps = declared["taps"]
    anywhere = sorted(set().union(*taps.values()))
    for method, used in declared["methods"].items():
        what = f"method {method!r} has the term"
        _check_names(path, what, used, declared["terms"])
        what = f"method {method!r} has the tap"
        _check_places(path, what, used, anywhere)
    for network, places in taps.items():
        what = f"without a teacher's tap of its own, {network} has the tap"
        paired = [p for p, tap in places.items() if not isinstance(tap, dict)]
        _check_names(path, what, paired, taps["cnn_teacher"])
    for row in declared["rows"]:
        for method, student in product(row["methods"], row["students"]):
            _check_places(
                path,
                f"a row wants {method!r} of {student}, which has the tap",
                declared["methods"][method],
                taps[student],
            )
    plain = [m for m, used in declared["methods"].items() if not used]
    if len(plain) != 1:
        raise ValueError(
            f"{path} has {len(plain)} methods without terms, {plain}; one is "
            "needed, the plain student that gains are measured from."
        )
    for name, term in declared["terms"].items():
        _check_term(path, name, term, taps)
    if declared["search"] and declared["search"]["trials"]:
        _check_search(path, declared, students)


def _check_term(path, name, term, taps):
    """Raise for a setting that no run could have."""
    settings = [term["start"], *term.get("refine", [])]
    for key, values in term["search"].items():
        choices = [v for v in values if isinstance(v, str)]
        settings += [{key: choice} for choice in choices]
    places = set.intersection(*(set(taps[network]) for network in taps))
    for setting in settings:
        for key, names in (("tap", places), ("schedule", SCHEDULES)):
            wanted = [setting[key]] if key in setting else []
            _check_names(
                path, f"the term {name!r} has the {key}", wanted, names
            )


def _check_places(path, what, used, places):
    """Raise for a tap of a method that is not among the places."""
    settings = used.values() if isinstance(used, dict) else ()
    wanted = [setting["tap"] for setting in settings if "tap" in setting]
    _check_names(path, what, wanted, places)


def _check_search(path, declared, students):
    """Raise for a search that could not be fair, or not be run."""
    search = declared["search"]
    lacking = [key for key in ("student", "seed") if key not in search]
    if lacking:
        raise ValueError(f"{path}: search lacks {', '.join(lacking)}.")
    what = "the search names the student"
    _check_names(path, what, [search["student"]], students)
    counts = {
        name: len(term.get("refine", []))
        for name, term in declared["terms"].items()
    }
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"{path}: the terms have unequally many entries under refine, "
            f"{counts}; each method gets the same number of trials."
        )
    for name, term in declared["terms"].items():
        lacking = sorted(set(term["search"]) - set(term["start"]))
        if lacking:
            raise ValueError(
                f"{path}: the term {name!r} searches {', '.join(lacking)}, "
                "but its start says nothing of it."
            )
    empty = [n for n, term in declared["terms"].items() if not term["search"]]
    if empty:
        raise ValueError(
            f"{path}: {search['trials']} trials are wanted, but nothing is "
            f"declared under search of {', '.join(empty)}."
        )


def check_runs(path, study):
    """Raise if an option of any run is none of its YAML's, nor of the host's.

    Arguments
    ---------
    path : str or Path
        The study's YAML, named in the error.
    study : Study
        What is declared.

    Raises
    ------
    ValueError
        Names the option and what was probably meant.
    """
    settings = study.start_settings()
    runs = [study.teacher_run(label) for label in study.teachers]
    runs += study.rows(settings)
    for term in study.searched:
        refined = study.terms[term].get("refine", [])
        for setting in ({}, *refined):
            whole = {**settings[term], **setting}
            runs.append(study.trial_run(term, 0, whole))
    host = [field.name for field in dataclasses.fields(RunOptions)]
    known, seen = {}, set()
    for run in runs:
        if run.yaml not in known:
            text = (HERE / run.yaml).read_text(encoding="utf-8")
            known[run.yaml] = re.findall(r"^(\w+):", text, flags=re.M) + host
        if (run.yaml, *run.options) not in seen:
            seen.add((run.yaml, *run.options))
            what = f"{run.name} would be run with the option"
            _check_names(path, what, run.options, known[run.yaml])


def _check_names(path, what, wanted, known):
    """Raise for the first name that is not known."""
    for name in wanted:
        if name not in known:
            raise ValueError(
                f"{path}: {what} {name!r}. " + near_names(str(name), known)
            )
