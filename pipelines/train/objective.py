"""The objective is built from train's settings; stores that lack what it needs are refused before the first step."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdcache.base.specs import parse_arguments
from kdcache.errors import InvalidInputError, MissingBlockError
from kdcache.labels.encoding import Encoding
from kdcache.labels.encodings import read_as
from kdcache.objectives.catalogue import (
    BY_DRAWS,
    DEFAULT,
    FINITE,
    WITHOUT_TEACHER,
    facts_of,
    make_objective,
    names_in,
)
from kdcache.objectives.joined import AnyObjective, Joint, Phases, objectives_in
from kdcache.objectives.objective import OWN, Objective
from kdcache.objectives.ramps import Ramp
from kdcache.objectives.tap_pairs import Sizes
from kdcache.objectives.targets import normalised_weights
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.held_out_store import held_out_store
from kdcache.pipelines.train.subclasses import student_subclasses, takes_classes
from kdcache.store.store import Store
from kdcache.whole_store.calibrate import fit_temperature

OF_PLAIN = {"label_smoothing"}  # settings that shape plain cross-entropy too
PLAIN = {"w_ce": 1.0, "w_kd": 0.0}  # weights of plain cross-entropy, whatever the term


@dataclass(frozen=True)
class Part:
    """An objective of a training, from `epoch` on, by its name and settings."""

    epoch: int
    name: str
    settings: dict[str, Any]


def build_objective(
    settings: TrainSettings,
    stores: list[Store],
    temperature: float | None,
    sizes: Callable[[], Sizes] | None = None,
    *,
    trust: Sequence[float] = (),
) -> AnyObjective:
    """The objective that the settings describe; without stores and without a name, plain cross-entropy.

    `temperature` is the settings' or the calibrated one. `sizes` gives those of student and stores to a term that sees
    taps. `trust` [C] is the first objective's. Raises InvalidInputError or MissingBlockError for arrays that the stores
    lack, naming the flag of extract that would have kept them.
    """
    if not stores and not settings.objective:
        _require_plain(settings)
        return make_objective(DEFAULT, PLAIN | settings.set, subclasses=student_subclasses(settings, stores))
    if settings.then and settings.kd_epochs is not None:
        raise InvalidInputError(
            f"--then and --kd-epochs both change the objective; give --then EPOCH:{DEFAULT},w_ce=1,w_kd=0"
        )
    parts = [_first_part(settings, temperature), *(_parse_part(text) for text in settings.then)]
    if settings.kd_epochs is not None:
        parts.append(Part(settings.kd_epochs, parts[0].name, {**parts[0].settings, **PLAIN}))
    for part in parts[1:]:
        if not 1 <= part.epoch < settings.epochs:
            flag = "--then" if settings.then else "--kd-epochs"
            raise InvalidInputError(
                f"{flag} names epoch {part.epoch}, the run has {settings.epochs}; give 1 to {settings.epochs - 1}"
            )
    objectives = [(parts[0].epoch, _make(parts[0], settings, stores, sizes, is_first=True, trust=trust))]
    objectives += [(part.epoch, _make(part, settings, stores, sizes, is_first=False)) for part in parts[1:]]
    return objectives[0][1] if len(objectives) == 1 else Phases(objectives)


def chosen_temperature(settings: TrainSettings, stores: list[Store]) -> float | None:
    """The settings' temperature; for calibrated, the temperature fitted to the held-out store."""
    if settings.temperature != "calibrated":
        return settings.temperature
    if not settings.calibration_store and len(settings.val_store) > 1:
        raise InvalidInputError(
            f"--temperature calibrated is fitted to one held-out store, --val-store names {len(settings.val_store)}; "
            "give --calibration-store"
        )
    url = settings.calibration_store or "".join(settings.val_store)
    if len(stores) != 1:
        raise InvalidInputError(f"--temperature calibrated works with one --store; {len(stores)} were given")
    if not url:
        raise InvalidInputError(
            "--temperature calibrated needs a held-out store; give --calibration-store, a store of the same teacher on "
            "rows that it was not trained on"
        )
    advice = "calibrate with a store of the teacher that this student learns from"
    store = held_out_store(url, stores, advice=advice)
    fit = fit_temperature(store)
    if fit.at_bound:
        raise InvalidInputError(f"no temperature can be fitted to {url}: {fit.note}; or give a --temperature")
    if fit.temperature < 1 and not read_as(stores[0].identity.encoding, settings.top_k).COMPLETE:
        raise InvalidInputError(
            f"the temperature fitted to {url} is {fit.temperature:.4g}, and {stores[0].folder.root} is used as "
            "top-k, whose tail is known from T = 1 up; extract it with --encoding full, or give a --temperature"
        )
    return fit.temperature


def _require_plain(settings: TrainSettings) -> None:
    """Raises InvalidInputError where settings of an objective would be ignored."""
    objective_settings = (
        "set", "then", "over_epochs", "kd_epochs", "temperature", "ensemble_weights", "curriculum",
        "select_set",
    )  # fmt: skip
    names = [name for name in objective_settings if getattr(settings, name) != TrainSettings.model_fields[name].default]
    if settings.set.keys() <= OF_PLAIN:
        names = [name for name in names if name != "set"]
    if names:
        flags = ", ".join("--" + name.replace("_", "-") for name in names)
        raise InvalidInputError(
            f"{flags} shape an objective, and without a store there is plain cross-entropy; give --store, or an "
            f"--objective that needs none: {', '.join(WITHOUT_TEACHER)}"
        )


def _first_part(settings: TrainSettings, temperature: float | None) -> Part:
    arguments = dict(settings.set)
    if temperature is not None:
        if "temperature" in arguments:
            raise InvalidInputError(
                f"--temperature is {temperature} and --set temperature is {arguments['temperature']}; give it once"
            )
        arguments["temperature"] = temperature
    if duplicates := sorted(settings.over_epochs.keys() & arguments.keys()):
        raise InvalidInputError(f"{', '.join(duplicates)} is given as a number and by --over-epochs; give it once")
    return Part(0, settings.objective or DEFAULT, arguments)


def _parse_part(text: str) -> Part:
    """The part that a text such as `10:nkd,gamma=1.0,w_ce=1` describes. Raises InvalidInputError."""
    head, _, arguments = text.partition(",")
    epoch, colon, name = head.partition(":")
    if not colon or not epoch.strip().isdecimal():
        raise InvalidInputError(f"--then {text!r} is not EPOCH:NAME or EPOCH:NAME,key=value,...; write --then 10:nkd")
    pairs = [pair.strip() for pair in re.split(r",(?![^\[]*\])", arguments) if pair.strip()]
    if bad_pairs := [pair for pair in pairs if "=" not in pair]:
        raise InvalidInputError(f"--then {text!r}: {bad_pairs[0]!r} is not key=value; write --then {head},gamma=1.0")
    return Part(int(epoch), name.strip(), parse_arguments(pairs, "--then"))


def _make(
    part: Part,
    settings: TrainSettings,
    stores: list[Store],
    sizes: Callable[[], Sizes] | None,
    *,
    is_first: bool,
    trust: Sequence[float] = (),
) -> Objective | Joint:
    facts = [facts_of(name) for name in names_in(part.name)]
    uses_teacher = any(one.teacher for one in facts)
    if uses_teacher and not stores:
        raise InvalidInputError(
            f"objective {part.name} needs a store and none is given; give --store, or leave --objective out for plain "
            "training"
        )
    if takes_classes(settings, stores) and any("head" in (*one.needs, *one.keeps) for one in facts):
        raise InvalidInputError(
            f"objective {part.name} uses the teacher's classifier, which answers subclasses, and --subclasses 1 learns "
            "from classes; leave --subclasses out"
        )
    ramps = {name: Ramp.parse(str(text), name) for name, text in settings.over_epochs.items()} if is_first else {}
    objective = make_objective(
        part.name,
        part.settings,
        head=_head(part.name, stores) if any("head" in one.needs for one in facts) else None,
        sizes=sizes() if sizes is not None and any("taps" in one.sees or one is OWN for one in facts) else None,
        tail=settings.tail if uses_teacher else "uniform",
        combine=settings.combine,
        weights=settings.ensemble_weights,
        over_epochs=ramps,
        trust=trust,
        subclasses=student_subclasses(settings, stores),
    )
    weights = [weight for term in objectives_in(objective) for weight in (term.w_ce, term.w_kd)]
    if not any(weights) and not {key.rpartition(".")[2] for key in ramps} & {"w_ce", "w_kd"}:
        raise InvalidInputError(
            f"w_ce and w_kd of objective {part.name} are {'both' if len(weights) == 2 else 'all'} 0: there is nothing "
            "to learn; raise one"
        )
    for term, name in zip(objectives_in(objective), names_in(part.name), strict=True):
        if settings.accumulate > 1 and term.facts.gathers:
            raise InvalidInputError(
                f"--accumulate {settings.accumulate} passes a batch in parts, and in objective {name} the rows of a "
                "batch meet; leave --accumulate out, or choose an objective that is a mean over rows, such as kd"
            )
        if term.facts.teacher:
            _require_stores(term, replace(part, name=name), settings, stores)
    return objective


def _head(name: str, stores: list[Store]) -> Tensor:
    if len(stores) != 1:
        raise InvalidInputError(f"objective {name} uses one teacher's classifier; {len(stores)} stores were given")
    if not stores[0].identity.encoding.head:
        raise MissingBlockError(
            f"objective {name} needs the teacher's classifier, which {stores[0].folder.root} does not hold; extract "
            "with --keep head"
        )
    return torch.from_numpy(stores[0].head()["weight"].copy())


def _require_stores(objective: Objective, part: Part, settings: TrainSettings, stores: list[Store]) -> None:
    normalised_weights(settings.ensemble_weights, len(stores))
    if len(stores) > 1:
        _require_ensemble(settings)
    for store in stores:
        encoding = read_as(store.identity.encoding, settings.top_k)
        _require_known(objective, part.name, encoding, settings, several=len(stores) > 1)
        _require_finite(objective, part.name, store)
        if not encoding.COMPLETE:
            _require_classes(objective, part.name, settings, store)


def _require_known(
    objective: Objective, name: str, encoding: Encoding, settings: TrainSettings, *, several: bool
) -> None:
    """Raises InvalidInputError for an objective that asks for more than an encoding knows."""
    facts = objective.facts
    if not facts.by_kl:
        encoding.require_log_probs(f"objective {name}", f"an objective that draws serve: {', '.join(BY_DRAWS)}")
    if several and settings.combine != "losses":
        encoding.require_log_probs(f"--combine {settings.combine}")
    if facts.sketch:
        encoding.require_sketch(f"objective {name}")
    for temperature in objective.temperatures:
        encoding.require_temperature(temperature, tail=settings.tail if facts.by_kl else "uniform")


def _require_ensemble(settings: TrainSettings) -> None:
    if settings.combine in ("logits", "predictions") and settings.tail == "none":
        raise InvalidInputError(
            f"--combine {settings.combine} needs a tail: without one, classes outside any member's top k have no "
            "logit; use --tail uniform, or --combine probabilities"
        )
    if settings.combine != "losses" and settings.tail == "ghost":
        raise InvalidInputError(
            "--tail ghost has other classes outside the top k for each store; use --combine losses, or another tail"
        )


def _require_finite(objective: Objective, name: str, store: Store) -> None:
    masked_classes = store.identity.teacher.masked_classes
    if objective.facts.zeros or not masked_classes:
        return
    raise InvalidInputError(
        f"objective {name} is infinite where the teacher's probability is 0, and {store.folder.root} masks classes "
        f"{list(masked_classes)[:5]}; use {' or '.join(FINITE)}, which are finite"
    )


def _require_classes(objective: Objective, name: str, settings: TrainSettings, store: Store) -> None:
    encoding, space = store.identity.encoding, store.identity.space
    k = read_as(encoding, settings.top_k).kept(space)
    if objective.best > k:
        flag = f"--top-k {objective.best}"
        advice = f"give {flag}" if encoding.kept(space) >= objective.best else f"extract with {flag}"
        raise InvalidInputError(
            f"objective {name} needs {objective.best} classes, {store.folder.root} gives {k}; {advice}"
        )
    if settings.tail == "class-mean":
        if store.identity.encoding.COMPLETE:
            raise InvalidInputError(
                f"--tail class-mean: {store.folder.root} keeps all logits and no class means; leave --top-k out"
            )
        store.class_means(store.every_view[0])
