"""Objectives by name: the names of the field, made from settings with every key and value checked."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from kdcache.errors import InvalidInputError
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
from kdcache.objectives.standardisation import LogitStandardisation
from kdcache.objectives.taid import TAID
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


def term_class(name: str) -> Any:
    """The class of a term. Raises InvalidInputError, which lists the names there are."""
    if name not in TERMS:
        raise InvalidInputError(f"objective {name!r} is unknown; the known ones are {', '.join(TERMS)}")
    return TERMS[name]


def parameters_of(name: str) -> dict[str, Any]:
    """Settings of a term and their defaults."""
    signature = inspect.signature(term_class(name))
    return {key: each.default for key, each in signature.parameters.items() if key != "head"}


def make_objective(
    name: str, settings: Mapping[str, Any] | None = None, *, head: Tensor | None = None, **common: Any
) -> Objective:
    """An objective by its name. `settings` are the term's own (alpha, temperature, ...), `common` those of `Objective`;
    `head` [C, D] is the teacher's classifier, for kd-sim.

    Raises InvalidInputError for an unknown name or key, listing the known ones, and for a value that does not fit.
    """
    given, known = dict(settings or {}), parameters_of(name)
    if unknown := sorted(given.keys() - known.keys()):
        listed = ", ".join(f"{key} ({default})" for key, default in known.items()) or "none"
        raise InvalidInputError(f"objective {name} has no setting {', '.join(unknown)}; it has {listed}")
    kind = term_class(name)
    hints = get_type_hints(kind.__init__, include_extras=True)
    checked = {key: _checked(value, hints[key], f"objective {name}: {key}") for key, value in given.items()}
    for key, ramp in dict(common.get("over_epochs") or {}).items():
        for _, value in ramp.points:
            _checked(value, hints.get(key, NotNegative), f"objective {name}: {key} over epochs")
    if "head" in inspect.signature(kind).parameters:
        checked["head"] = head
    return Objective(kind(**checked), **common)


def _checked(value: Any, kind: Any, what: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InvalidInputError(f"{what} is {value!r}: {error.errors()[0]['msg']}") from error


def describe(name: str) -> dict[str, Any]:
    """Field : value of one objective, for people."""
    kind = term_class(name)
    facts = kind.facts
    weights = {"w_ce": facts.w_ce, "w_kd": facts.w_kd}
    settings = {**parameters_of(name), **weights}
    return {
        "objective": name,
        **facts.record(),
        "tails": list(facts.tails) if facts.teacher else [],
        "rows meet": facts.couples,
        "on many devices": "the whole batch on each" if facts.gathers else "each device's own rows",
        "settings": {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
    }
