"""The search of a study: Optuna proposes, train.py answers.

Authors
 * The iusp_plugin authors 2026
"""

import json
import math

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from study_queue import claim
from study_results import headline


class Search:
    """Trials of each term, in one SQLite file, shared by all workers.

    First as many as declared are drawn; then each of the term's ``refine``
    changes the best setting so far. A drawn trial that was interrupted is gone
    on with, for its setting is in the file; a lost file is made anew from the
    records, which alone decide what is best.

    Arguments
    ---------
    study : Study
        Declares the spaces and the number of trials.
    launcher : Launcher
        Knows the locks.
    """

    def __init__(self, study, launcher):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = study
        self.lock = launcher.lock("search")
        path = study.output_folder / "search.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.storage = f"sqlite:///{path.resolve()}"
        self.drawn = study.search["trials"]
        self.spaces = {
            term: {
                key: _distribution(values)
                for key, values in study.terms[term]["search"].items()
            }
            for term in study.searched
        }
        with claim(self.lock, wait=True):
            for term in self.spaces:
                self._restore(term)

    def _open(self, term):
        """One term's drawn trials."""
        return optuna.create_study(
            storage=self.storage,
            study_name=term,
            direction="maximize",
            load_if_exists=True,
        )

    def _records(self, term):
        """A term's finished trials, in their order."""
        found = [
            record
            for name, record in self.study.records().items()
            if name.startswith(f"search/{term}/")
        ]
        return sorted(found, key=lambda record: record["trial"])

    def _restore(self, term):
        """Put recorded trials into a new file; propose the start first."""
        trials = self._open(term)
        if trials.trials:
            return
        records = self._records(term)[: self.drawn]
        for record in records:
            setting = record["settings"][term]
            failed = "failed" in record
            trials.add_trial(
                create_trial(
                    params={key: setting[key] for key in self.spaces[term]},
                    distributions=self.spaces[term],
                    value=None if failed else score(record),
                    state=TrialState.FAIL if failed else TrialState.COMPLETE,
                )
            )
        if not records:
            start = self.study.terms[term]["start"]
            drawn = {key: start[key] for key in self.spaces[term]}
            trials.enqueue_trial(drawn)

    def next_runs(self):
        """The open trial of each term that is not finished.

        One at a time, so what is proposed does not depend on the number of
        workers.

        Returns
        -------
        list of Run
            The terms that are behind come first; others may have claimed
            some.
        """
        runs = {}
        with claim(self.lock, wait=True):
            for term in self.spaces:
                proposal = self._propose(term)
                if proposal:
                    number, setting = proposal
                    run = self.study.trial_run(term, number, setting)
                    runs[run] = number
        # The terms advance together, so that no worker idles at the end.
        return sorted(runs, key=runs.get)

    def _propose(self, term):
        """Number and setting of a term's next trial; None at the end."""
        records = self._records(term)
        number = len(records) - self.drawn
        if number >= 0:
            changes = self.study.terms[term].get("refine", [])[number:]
            if not changes:
                return None
            best = max(records, key=score)["settings"][term]
            return records[-1]["trial"] + 1, {**best, **changes[0]}
        trials = self._open(term)
        known = trials.get_trials(deepcopy=False)
        open_ = [t for t in known if t.state == TrialState.RUNNING]
        if not open_:
            taken = sum(t.state != TrialState.WAITING for t in known)
            trials.sampler = optuna.samplers.TPESampler(
                n_startup_trials=5, seed=self.study.search["seed"] + taken
            )
            open_ = [trials.ask(self.spaces[term])]
        start = self.study.terms[term]["start"]
        return open_[0].number, {**start, **open_[0].params}

    def tell(self, run, record):
        """Write a trial's score down.

        Arguments
        ---------
        run : Run
            The trial's.
        record : dict
            Its record.
        """
        number = run.facts["trial"]
        if number >= self.drawn:
            return
        with claim(self.lock, wait=True):
            trials = self._open(run.facts["method"])
            if trials.trials[number].state != TrialState.RUNNING:
                return
            if "failed" in record:
                trials.tell(number, state=TrialState.FAIL)
            else:
                trials.tell(number, score(record))

    def settings(self):
        """The best setting of each term, or None while trials are missing."""
        chosen = self.study.start_settings()
        for term in self.spaces:
            records = self._records(term)
            if len(records) < self.study.trials(term):
                return None
            chosen[term] = max(records, key=score)["settings"][term]
        return chosen


def score(record):
    """What a trial is judged by: never the clips that are reported."""
    if "failed" in record:
        return -math.inf
    return headline(record["splits"]["validate"])["micro_auprc"]


def _distribution(values):
    """Optuna's form of a declared space."""
    if all(isinstance(value, int | float) for value in values):
        low, high = values
        return FloatDistribution(float(low), float(high), log=True)
    return CategoricalDistribution(values)


def read_settings(study):
    """What the search has found; None while it is not finished.

    Arguments
    ---------
    study : Study
        Knows the file.

    Raises
    ------
    ValueError
        If another search was declared when it was found.
    """
    path = study.settings_path
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    now = declared_search(study)
    if found.get("declared", now) != now:
        raise ValueError(
            f"{path} was found by a search that was declared differently. "
            "Choose another --records_folder and --output_folder, or delete "
            "that file: then the trials that are missing are done."
        )
    return found["settings"]


def declared_search(study):
    """The declaration of a search, to tell it from another.

    Arguments
    ---------
    study : Study
        What is declared.

    Returns
    -------
    dict
    """
    keys = ("start", "search", "refine")
    terms = {
        name: {key: term[key] for key in keys if key in term}
        for name, term in study.terms.items()
    }
    return {**study.search, "terms": terms}
