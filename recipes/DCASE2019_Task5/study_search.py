"""The search of a study: Optuna proposes, train.py answers.

Authors
 * The iusp_plugin authors 2026
"""

import json

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from study_queue import claim


class Search:
    """Trials of each term, in one SQLite file, shared by all workers.

    A trial that was interrupted is gone on with, for its setting is in the
    file; a lost file is made anew from the records.

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
        """One term's trials."""
        return optuna.create_study(
            storage=self.storage,
            study_name=term,
            direction="maximize",
            load_if_exists=True,
        )

    def _restore(self, term):
        """Put recorded trials into a new file; propose the start first."""
        trials = self._open(term)
        if trials.trials:
            return
        records = sorted(
            (
                record
                for name, record in self.study.records().items()
                if name.startswith(f"search/{term}/")
            ),
            key=lambda record: record["trial"],
        )
        for record in records:
            trials.add_trial(
                create_trial(
                    params=record["settings"][term],
                    distributions=self.spaces[term],
                    value=score(record),
                )
            )
        if not records:
            trials.enqueue_trial(self.study.terms[term]["start"])

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
            for term, space in self.spaces.items():
                trials = self._open(term)
                known = trials.get_trials(deepcopy=False)
                open_ = [t for t in known if t.state == TrialState.RUNNING]
                taken = sum(t.state != TrialState.WAITING for t in known)
                if not open_ and taken < self.study.search["trials"]:
                    seed = self.study.search["seed"] + taken
                    trials.sampler = optuna.samplers.TPESampler(
                        n_startup_trials=5, seed=seed
                    )
                    open_ = [trials.ask(space)]
                for trial in open_:
                    facts = (term, trial.number, trial.params)
                    runs[self.study.trial_run(*facts)] = trial.number
        # The terms advance together, so that no worker idles at the end.
        return sorted(runs, key=runs.get)

    def tell(self, run, record):
        """Write a trial's score down.

        Arguments
        ---------
        run : Run
            The trial's.
        record : dict
            Its record.
        """
        with claim(self.lock, wait=True):
            trials = self._open(run.facts["method"])
            number = run.facts["trial"]
            if trials.trials[number].state == TrialState.RUNNING:
                trials.tell(number, score(record))

    def counts(self):
        """How many trials are done, and how many there will be."""
        done = 0
        for term in self.spaces:
            states = [TrialState.COMPLETE]
            done += len(self._open(term).get_trials(states=states))
        return done, len(self.spaces) * self.study.search["trials"]

    def settings(self):
        """The best setting of each term, or None while trials are missing."""
        done, wanted = self.counts()
        if done < wanted:
            return None
        chosen = self.study.start_settings()
        for term in self.spaces:
            chosen[term] = self._open(term).best_trial.params
        return chosen


def score(record):
    """What a trial is judged by: never the clips that are reported."""
    levels = record["splits"]["validate"]
    level = "coarse" if "coarse" in levels else "fine"
    return levels[level]["micro_auprc"]


def _distribution(values):
    """Optuna's form of a declared space."""
    if all(isinstance(value, int | float) for value in values):
        low, high = values
        return FloatDistribution(float(low), float(high), log=True)
    return CategoricalDistribution(values)


def read_settings(path):
    """The settings kept in a file; None without one."""
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8"))["settings"]
