"""Objectives are made here from a name and settings; every key and value is checked."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import Tail
from kdcache.objectives.adaptive_kl import AdaptiveKL
from kdcache.objectives.ctkd import CTKD
from kdcache.objectives.dist import DIST
from kdcache.objectives.divergences import JSD, TVD, Brier, ReverseKL, SkewKL, SkewReverseKL, SymmetricKL
from kdcache.objectives.dkd import DKD
from kdcache.objectives.double import DoubleDistillation
from kdcache.objectives.facts import NotNegative
from kdcache.objectives.hard_teacher import HardTeacher
from kdcache.objectives.kd import KD, FunctionMatching
from kdcache.objectives.logit_mse import LogitMSE
from kdcache.objectives.mlld import MLLD
from kdcache.objectives.nkd import NKD
from kdcache.objectives.no_teacher import ConfidencePenalty, LabelSmoothing
from kdcache.objectives.objective import Objective
from kdcache.objectives.pseudo_teachers import KDPartial, KDSim, KDTopK
from kdcache.objectives.ramps import Ramp
from kdcache.objectives.standardisation import LogitStandardisation
from kdcache.objectives.taid import TAID
from kdcache.objectives.targets import Combine
from kdcache.objectives.ttm import TTM, WTTM

TERMS: dict[str, Any] = {
    "kd": KD,
    "hard-teacher": HardTeacher,
    "label-smoothing": LabelSmoothing,
    "confidence-penalty": ConfidencePenalty,
    "kd-pt": KDPartial,
    "kd-topk": KDTopK,
    "kd-sim": KDSim,
    "dkd": DKD,
    "nkd": NKD,
    "dist": DIST,
    "logit-standardisation": LogitStandardisation,
    "mlld": MLLD,
    "ctkd": CTKD,
    "ttm": TTM,
    "wttm": WTTM,
    "logit-mse": LogitMSE,
    "reverse-kl": ReverseKL,
    "symmetric-kl": SymmetricKL,
    "brier": Brier,
    "jsd": JSD,
    "skew-kl": SkewKL,
    "skew-reverse-kl": SkewReverseKL,
    "tvd": TVD,
    "adaptive-kl": AdaptiveKL,
    "taid": TAID,
    "double-distillation": DoubleDistillation,
    "function-matching": FunctionMatching,
}

DEFAULT = "kd"  # where there is a store and no objective is named
WITHOUT_TEACHER = tuple(name for name, term in TERMS.items() if not term.facts.teacher)
FINITE = ("skew-reverse-kl", "jsd")  # under masked classes, the nearest to those that are not


def term_class(name: str) -> Any:
    """The class of a term. Raises InvalidInputError, which lists the names there are."""
    if name not in TERMS:
        raise InvalidInputError(f"objective {name!r} is unknown; the known ones are {', '.join(TERMS)}")
    return TERMS[name]


def parameters_of(name: str) -> dict[str, Any]:
    """The settings of an objective, with their defaults: those of its term, and the weights w_ce and w_kd."""
    kind = term_class(name)
    parameters = inspect.signature(kind).parameters
    settings = {key: parameter.default for key, parameter in parameters.items() if key not in kind.facts.needs}
    return {**settings, "w_ce": kind.facts.w_ce, "w_kd": kind.facts.w_kd}


def make_objective(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    head: Tensor | None = None,
    tail: Tail = "uniform",
    combine: Combine = "probabilities",
    weights: tuple[float, ...] = (),
    over_epochs: Mapping[str, Ramp] | None = None,
) -> Objective:
    """The objective of a name.

    settings: those of the term (alpha, temperature, ...), w_ce and w_kd. head [C, D]: the teacher's classifier, where
    the term needs it. The others are those of `Objective`. Raises InvalidInputError for an unknown name or key, listing
    the known ones, and for a value that does not fit.
    """
    values, defaults = dict(settings or {}), parameters_of(name)
    if unknown_keys := sorted(values.keys() - defaults.keys()):
        known_keys = ", ".join(f"{key} ({default})" for key, default in defaults.items())
        raise InvalidInputError(f"objective {name} has no setting {', '.join(unknown_keys)}; it has {known_keys}")
    kind = term_class(name)
    hints = get_type_hints(kind.__init__, include_extras=True) | {"w_ce": NotNegative, "w_kd": NotNegative}
    arguments = {key: _validated(value, hints[key], f"objective {name}: {key}") for key, value in values.items()}
    for key, ramp in dict(over_epochs or {}).items():
        for value in ramp.values:
            _validated(value, hints.get(key, NotNegative), f"objective {name}: {key} over epochs")
    w_ce, w_kd = arguments.pop("w_ce", None), arguments.pop("w_kd", None)
    if "head" in kind.facts.needs:
        arguments["head"] = head
    return Objective(
        kind(**arguments), w_ce=w_ce, w_kd=w_kd, tail=tail, combine=combine, weights=weights, over_epochs=over_epochs
    )


def _validated(value: Any, kind: Any, name: str) -> Any:
    if isinstance(value, bool):
        raise InvalidInputError(f"{name} is {value}; give a number")
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InvalidInputError(f"{name} is {value!r}: {error.errors()[0]['msg']}") from error


def describe(name: str) -> dict[str, Any]:
    """Field : value of one objective, as people read it."""
    kind = term_class(name)
    facts, settings = kind.facts, parameters_of(name)
    return {
        "objective": name,
        **facts.record(),
        "tails": list(facts.tails) if facts.teacher else [],
        "rows meet": facts.couples,
        "on many devices": "the whole batch on each" if facts.gathers else "each device's own rows",
        "settings": {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
    }
