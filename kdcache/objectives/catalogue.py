"""Objectives are made here from a name and settings; every key and value is checked."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from kdcache.base.specs import call, load_callable
from kdcache.errors import InvalidInputError
from kdcache.labels.soft_labels import Tail
from kdcache.objectives.adaptive_kl import AdaptiveKL
from kdcache.objectives.aligned import Aligned
from kdcache.objectives.at import AT
from kdcache.objectives.crd import CRD
from kdcache.objectives.ctkd import CTKD
from kdcache.objectives.dist import DIST
from kdcache.objectives.divergences import JSD, TVD, Brier, ReverseKL, SkewKL, SkewReverseKL, SymmetricKL
from kdcache.objectives.dkd import DKD
from kdcache.objectives.double import DoubleDistillation
from kdcache.objectives.facts import Facts, NotNegative
from kdcache.objectives.hard_teacher import HardTeacher
from kdcache.objectives.hint import Hint
from kdcache.objectives.joined import Joint
from kdcache.objectives.kd import KD, FunctionMatching
from kdcache.objectives.logit_mse import LogitMSE
from kdcache.objectives.mgd import MGD
from kdcache.objectives.mlld import MLLD
from kdcache.objectives.nkd import NKD
from kdcache.objectives.no_teacher import ConfidencePenalty, LabelSmoothing
from kdcache.objectives.objective import OWN, Objective, weighs_rows
from kdcache.objectives.pkt import PKT
from kdcache.objectives.pseudo_teachers import KDPartial, KDSim, KDTopK
from kdcache.objectives.ramps import Ramp
from kdcache.objectives.rkd import RKD
from kdcache.objectives.simkd import SimKD
from kdcache.objectives.sp import SP
from kdcache.objectives.srrl import SRRL
from kdcache.objectives.standardisation import LogitStandardisation
from kdcache.objectives.subclass import Subclass
from kdcache.objectives.taid import TAID
from kdcache.objectives.tap_pairs import Sizes
from kdcache.objectives.targets import Combine
from kdcache.objectives.ttm import TTM, WTTM

LOGIT_TERMS: dict[str, Any] = {
    "kd": KD,
    "hard-teacher": HardTeacher,
    "label-smoothing": LabelSmoothing,
    "confidence-penalty": ConfidencePenalty,
    "subclass": Subclass,
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
TAP_TERMS: dict[str, Any] = {
    "hint": Hint,
    "at": AT,
    "sp": SP,
    "rkd": RKD,
    "pkt": PKT,
    "crd": CRD,
    "srrl": SRRL,
    "simkd": SimKD,
    "mgd": MGD,
    "aligned": Aligned,
}
"""Terms that hold taps of the student against those of a store; see `tap_pairs` for the settings that name them."""
TERMS = LOGIT_TERMS | TAP_TERMS

OF_WHOLE = ("w_ce", "label_smoothing")  # settings of a sum's first term, which counts the hard labels for all
DEFAULT = "kd"  # where there is a store and no objective is named
WITHOUT_TEACHER = tuple(name for name, term in TERMS.items() if not term.facts.teacher)
BY_ROWS = tuple(name for name, term in TERMS.items() if weighs_rows(term))  # whose rows can be weighed
BY_DRAWS = tuple(name for name, term in LOGIT_TERMS.items() if term.facts.teacher and term.facts.by_kl)
FINITE = ("skew-reverse-kl", "jsd")  # under masked classes, the nearest to those that are not


def term_class(name: str) -> Any:
    """The class of a term by its name, or a factory of the user's own by package.module:callable or file.py:callable.
    Raises InvalidInputError, which lists the names there are."""
    if ":" in name:
        return load_callable(name, "objective")
    if name not in TERMS:
        raise InvalidInputError(
            f"objective {name!r} is unknown; the known ones are {', '.join(TERMS)}, several joined by +, and your own "
            "as package.module:callable or file.py:callable"
        )
    return TERMS[name]


def facts_of(name: str) -> Facts:
    """The facts of the term of a name; those that hold for any term where a user's own states none."""
    facts = getattr(term_class(name), "facts", None)
    return facts if isinstance(facts, Facts) else OWN


def name_of(term: object) -> str:
    """The name of a term; of a user's own its class's."""
    return next((name for name, kind in TERMS.items() if type(term) is kind), type(term).__name__)


def names_in(name: str) -> list[str]:
    """The names of the terms of `kd+hint`. Raises InvalidInputError for an empty one and one that comes twice."""
    names = [part.strip() for part in name.split("+")]
    if "" in names or len(set(names)) < len(names):
        raise InvalidInputError(
            f"objective {name!r} joins {names}; write different names with one + between, as kd+hint"
        )
    return names


def require_weighable(terms: Mapping[str, object], flag: str) -> None:
    """Raises InvalidInputError for a term, by its name, whose rows cannot be weighed, with the names of those that
    can."""
    if wrong := [name for name, term in terms.items() if not weighs_rows(term)]:
        raise InvalidInputError(
            f"{flag} weighs the rows of a batch, and objective {wrong[0]} is no mean over rows that can be weighed; "
            f"use one of {', '.join(BY_ROWS)}"
        )


def parameters_of(name: str) -> dict[str, Any]:
    """The settings of an objective, with their defaults: those of its term, the weights w_ce and w_kd, and the
    smoothing of hard labels."""
    kind, facts = term_class(name), facts_of(name)
    parameters = inspect.signature(kind).parameters
    settings = {key: parameter.default for key, parameter in parameters.items() if key not in {*facts.needs, "sizes"}}
    return {**settings, "w_ce": facts.w_ce, "w_kd": facts.w_kd, "label_smoothing": 0.0}


def settings_of_parts(name: str, settings: Mapping[str, Any], noun: str = "setting") -> list[dict[str, Any]]:
    """The settings of each term of `kd+hint`, from keys such as `temperature`, which one of them has, or `hint.w_kd`.

    w_ce and label_smoothing are those of the whole. Raises InvalidInputError for a key that none has, listing the known
    ones, and for one that several have."""
    names = names_in(name)
    labels = [part.rpartition(":")[2] for part in names]
    known = [parameters_of(part) for part in names]
    parts: list[dict[str, Any]] = [{} for _ in names]
    unknown_keys = []
    for key, value in settings.items():
        label, _, short = key.rpartition(".")
        holders = [n for n in range(len(names)) if short in known[n] and label in ("", labels[n], names[n])]
        holders = holders[:1] if short in OF_WHOLE and not label else holders
        if not holders:
            unknown_keys.append(key)
            continue
        if len(holders) > 1:
            choices = " or ".join(f"{labels[n]}.{short}" for n in holders)
            raise InvalidInputError(f"{noun} {key} of objective {name} is that of several terms; write {choices}")
        parts[holders[0]][short] = value
    if unknown_keys:
        keys = ", ".join(
            f"{f'{label}.' if len(names) > 1 else ''}{key} ({default})"
            for label, settings_of_one in zip(labels, known, strict=True)
            for key, default in settings_of_one.items()
            if default is not inspect.Parameter.empty
        )
        raise InvalidInputError(f"objective {name} has no {noun} {', '.join(sorted(unknown_keys))}; it has {keys}")
    return parts


def make_objective(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    head: Tensor | None = None,
    sizes: Sizes | None = None,
    tail: Tail = "uniform",
    combine: Combine = "probabilities",
    weights: tuple[float, ...] = (),
    over_epochs: Mapping[str, Ramp] | None = None,
    trust: Sequence[float] = (),
    subclasses: int = 1,
) -> Objective | Joint:
    """An objective is made of a name and settings; `kd+hint` is the sum of two.

    Args:
        name: A name that `kdcache objectives` lists, or `package.module:callable` or `file.py:callable` of your own.
        settings: Those of the term (alpha, temperature, ...), w_ce and w_kd; of a sum also with the term's name before
            a point, `hint.w_kd`.
        head: [C, D] the weight of the teacher's classifier, where the term needs it.
        sizes: Shapes that student and stores give, where the term sees taps.
        tail: See `Objective`, as for all that follow.
        combine: The way in which several stores become one teacher.
        weights: A weight of each store.
        over_epochs: Ramps by the name of a number.
        trust: Shares by class at which the teacher is trusted.
        subclasses: Logits that stand for each class.

    Raises InvalidInputError for an unknown name or key, listing the known ones, and for a value that does not fit.

    Examples:
        >>> objective = make_objective("dkd", {"beta": 2.0, "w_ce": 1.0})
        >>> round(objective(logits, batch).item(), 3)
        0.648
    """
    names, ramps = names_in(name), dict(over_epochs or {})
    all_settings = settings_of_parts(name, settings or {})
    all_ramps = settings_of_parts(name, ramps, "number to change over epochs") if len(names) > 1 else [ramps]
    if trust and len(names) > 1:
        raise InvalidInputError(f"trust by class weighs one objective, and {name} is {len(names)}; name one of them")
    options: dict[str, Any] = {"tail": tail, "combine": combine, "weights": weights, "trust": trust}
    options["subclasses"] = subclasses
    parts = [
        _make_one(part, values, head, sizes, **options, over_epochs=own_ramps)
        for part, values, own_ramps in zip(names, all_settings, all_ramps, strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    for part, values in zip(parts[1:], all_settings[1:], strict=True):
        part.w_ce = values.get("w_ce", 0.0)  # the first counts the hard labels for all
    return Joint(parts)


def _make_one(name: str, values: dict[str, Any], head: Tensor | None, sizes: Sizes | None, **options: Any) -> Objective:
    kind, facts = term_class(name), facts_of(name)
    function: Any = kind if inspect.isroutine(kind) else kind.__init__
    hints = get_type_hints(function, include_extras=True)
    hints |= {"w_ce": NotNegative, "w_kd": NotNegative, "label_smoothing": NotNegative}
    arguments = {
        key: _validated(value, hints.get(key, Any), f"objective {name}: {key}") for key, value in values.items()
    }
    for key, ramp in options["over_epochs"].items():
        for value in ramp.values:
            _validated(value, hints.get(key, NotNegative), f"objective {name}: {key} over epochs")
    w_ce, w_kd = arguments.pop("w_ce", facts.w_ce), arguments.pop("w_kd", facts.w_kd)
    smoothing = arguments.pop("label_smoothing", 0.0)
    if "head" in facts.needs:
        arguments["head"] = head
    if "taps" in facts.sees or "sizes" in inspect.signature(kind).parameters:
        if sizes is None:
            raise InvalidInputError(
                f"objective {name} sees taps of student and store: make it with sizes=Sizes(...), as kdcache train does"
            )
        arguments["sizes"] = sizes
    term = call(kind, arguments, f"objective {name}") if ":" in name else kind(**arguments)
    if ":" in name and not callable(term):
        raise InvalidInputError(
            f"objective {name} gave a {type(term).__name__}; it must give a term, called as term(outputs, targets, "
            "batch)"
        )
    return Objective(term, w_ce=w_ce, w_kd=w_kd, label_smoothing=smoothing, **options)


def _validated(value: Any, kind: Any, name: str) -> Any:
    if isinstance(value, bool):
        raise InvalidInputError(f"{name} is {value}; give a number")
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InvalidInputError(f"{name} is {value!r}: {error.errors()[0]['msg']}") from error


def describe(name: str) -> dict[str, Any]:
    """Field : value of one objective, as people read it."""
    facts, settings = facts_of(name), parameters_of(name)
    return {
        "objective": name,
        **facts.record(),
        "tails": list(facts.tails) if facts.teacher else [],
        "rows_meet": facts.couples,
        "on_many_devices": "the whole batch on each" if facts.gathers else "each device's own rows",
        "settings": {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
    }
