"""Trust by class: a held-out store tells how far each class learns from the teacher, and else from hard labels."""

from collections.abc import Sequence

import numpy as np

from kdcache.errors import InvalidInputError
from kdcache.objectives.catalogue import BY_ROWS, DEFAULT, facts_of, names_in, require_weighable, term_class
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.held_out_store import held_out_store
from kdcache.store.store import Store
from kdcache.views.data import Data
from kdcache.whole_store.confidence import class_margins
from kdcache.whole_store.labelled_pieces import require_one_label

WEIGHTS = ("w_ce", "w_kd")


def chosen_trust(
    settings: TrainSettings, data: Data, teachers: Sequence[Store], stores: Sequence[Store]
) -> tuple[float, ...]:
    """The share of trust of each class, by the held-out store that the settings name; empty without one. `teachers`: a
    store of each, `stores`: all that the student learns from.

    After Lukasik et al. 2021 (AdaAlpha), of which the abstract alone was at hand: a_y is the mean margin of the teacher
    on held-out rows of class y, p(y) less the largest probability of another class at T = 1, cut to 0..1. Raises
    InvalidInputError for a store or an objective that it does not go with, and a class without a held-out row.
    """
    if not settings.trust:
        return ()
    if len(teachers) != 1:
        raise InvalidInputError(f"--trust works with one --store; {len(teachers)} were given")
    if not data.is_labelled:
        raise InvalidInputError(
            f"--trust {settings.trust} weighs rows by their hard labels, and no row of the data set has one; give "
            "labels, or leave it out"
        )
    require_one_label(teachers[0], advice="train on an unmixed store")
    _require_objective(settings)
    name = settings.objective or DEFAULT
    if ":" not in name:  # one of the user's own may be made by a function, and is looked at once it is made
        require_weighable({name: term_class(name)}, "--trust")
    held_out = held_out_store(
        settings.trust, teachers, advice="trust by a store of the teacher that this student learns from"
    )
    for store in stores:
        if store.identity.dataset == held_out.identity.dataset:
            raise InvalidInputError(
                f"--trust {settings.trust} has the very rows of {store.folder.root}, on which the teacher was trained "
                "or this student learns: extract the teacher's answers to held-out rows, such as --data-set split=test"
            )
    margins = class_margins(held_out)
    if missing := np.flatnonzero(np.isnan(margins)).tolist():
        raise InvalidInputError(
            f"--trust {settings.trust} has no labelled row of {len(missing)} of {len(margins)} classes "
            f"({', '.join(map(str, missing[:5]))}): their trust is not known; extract rows of all classes"
        )
    return tuple(np.clip(margins, 0.0, 1.0).round(6).tolist())  # recorded: other machines differ in the last bits


def trust_notes(trust: Sequence[float], class_names: Sequence[str]) -> tuple[str, ...]:
    """A note on the mean trust, and the classes that are trusted least and most."""
    if not trust:
        return ()
    names = class_names if len(class_names) == len(trust) else [f"class {number}" for number in range(len(trust))]
    least, most = int(np.argmin(trust)), int(np.argmax(trust))
    return (
        f"the teacher is trusted {np.mean(trust):.2f} on average over classes, least in {names[least]} "
        f"({trust[least]:.2f}), most in {names[most]} ({trust[most]:.2f})",
    )


def _require_objective(settings: TrainSettings) -> None:
    name = settings.objective or DEFAULT
    if len(names_in(name)) > 1 or not facts_of(name).teacher:
        raise InvalidInputError(
            f"--trust weighs hard labels against one objective with a teacher, and --objective is {name}; name one of "
            f"{', '.join(part for part in BY_ROWS if facts_of(part).teacher)}"
        )
    given = {f"--set {key}={settings.set[key]}" for key in WEIGHTS if key in settings.set}
    given |= {f"--over-epochs {key}={settings.over_epochs[key]}" for key in WEIGHTS if key in settings.over_epochs}
    if given:
        raise InvalidInputError(
            f"--trust takes the place of w_ce and w_kd, and {', '.join(sorted(given))} was given too; give one of them"
        )
