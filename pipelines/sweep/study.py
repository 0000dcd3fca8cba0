"""A study lets Optuna propose the points of a sweep; its trials and their results lie in one file of the folder."""

import importlib.util
from pathlib import Path
from typing import Any, Self

from kdcache.errors import InvalidInputError, MismatchError
from kdcache.pipelines.sweep.results import Result
from kdcache.pipelines.sweep.space import Distribution, StudySearch

FILE = "study.journal"
NAME = "sweep"
ERROR = "error"


def require_optuna(search: StudySearch) -> None:
    """Raises InvalidInputError where Optuna is not installed, or cannot choose among the values of the space."""
    if importlib.util.find_spec("optuna") is None:
        raise InvalidInputError("[study] needs Optuna, which is not installed; pip install 'kdcache[optuna]'")
    for name, distribution in search.space.items():
        if any(not isinstance(value, str | int | float | bool) for value in distribution.choice or ()):
            raise InvalidInputError(f"[study] space {name}: Optuna chooses among numbers, texts, true and false only")


class Study:
    """An Optuna study in a sweep's folder. Trials that a kill left unfinished are asked again, with their values."""

    def __init__(self, optuna: Any, study: Any, search: StudySearch) -> None:
        self._optuna, self._study, self._search = optuna, study, search
        self.trials = search.trials

    @classmethod
    def open(cls, search: StudySearch, folder: Path) -> Self:
        """Open or begin the study of a folder. Raises MismatchError where the folder's study has another direction."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(folder / FILE)))
        study = optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True, direction=search.direction)
        if study.direction.name.lower() != search.direction:
            differences = [("direction", study.direction.name.lower(), search.direction)]
            raise MismatchError(
                f"{folder} holds another study:", differences, "choose another folder", ("the study", "the file")
            )
        # a sampler begins anew at each start: with an equal seed it would propose the same trials again
        study.sampler = _sampler(optuna, search, search.seed + len(study.get_trials(deepcopy=False)))
        return cls(optuna, study, search)

    @property
    def ended(self) -> int:
        """The count of trials that have a result or failed."""
        return sum(trial.state.is_finished() for trial in self._study.get_trials(deepcopy=False))

    @property
    def best(self) -> dict[str, Any] | None:
        """Swept values of the best trial; None before the first result."""
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        return dict(self._study.best_params) if trials else None

    def past(self) -> dict[int, dict[str, Any]]:
        """Swept values of ended trials by number."""
        trials = self._study.get_trials(deepcopy=False)
        return {trial.number: dict(trial.params) for trial in trials if trial.state.is_finished()}

    @property
    def failures(self) -> dict[int, str]:
        """Errors of failed trials by number."""
        trials = self._study.get_trials(deepcopy=False)
        return {trial.number: trial.user_attrs.get(ERROR, "") for trial in trials if trial.state.name == "FAIL"}

    def ask(self, count: int) -> dict[int, dict[str, Any]]:
        """Swept values, by number, of up to `count` trials to train, unfinished ones first; empty at the end."""
        unfinished_trials = {
            trial.number: dict(trial.params)
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state.name == "RUNNING" and trial.params.keys() == self._search.space.keys()
        }
        if unfinished_trials:
            return dict(list(unfinished_trials.items())[:count])
        proposals = {}
        for _ in range(min(count, self.trials - self.ended)):
            trial = self._study.ask()
            space = self._search.space
            proposals[trial.number] = {name: _suggest(trial, name, space[name]) for name in space}
        return proposals

    def tell(self, number: int, result: Result) -> None:
        """Tell Optuna the result of a trial: its metric, or that it failed."""
        value = getattr(result, self._search.metric)
        if result.status == "done" and value is not None:
            self._study.tell(number, value)
            return
        frozen_trial = self._study.get_trials(deepcopy=False)[number]
        trial = self._optuna.trial.Trial(self._study, frozen_trial._trial_id)
        trial.set_user_attr(ERROR, result.error or f"no {self._search.metric} was measured")
        self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)


def _sampler(optuna: Any, search: StudySearch, seed: int) -> Any:
    kinds = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    return kinds[search.sampler](seed=seed)


def _suggest(trial: Any, name: str, distribution: Distribution) -> Any:
    low, high = distribution.bounds
    if distribution.choice is not None:
        return trial.suggest_categorical(name, distribution.choice)
    if distribution.integer is not None:
        return trial.suggest_int(name, *distribution.integer)
    return trial.suggest_float(name, low, high, log=distribution.loguniform is not None)
