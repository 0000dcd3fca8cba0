"""catalogue: names, keys and values are checked; every objective says where it is from and how exact it is."""

import re
from importlib.resources import files
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from kdcache.errors import InvalidInputError
from kdcache.objectives.catalogue import (
    DEFAULT,
    FINITE,
    LOGIT_TERMS,
    WITHOUT_TEACHER,
    describe,
    make_objective,
    parameters_of,
)
from kdcache.objectives.kd import KD
from kdcache.objectives.listing import listing, records_of_classes, written
from kdcache.objectives.objective import Objective
from kdcache.objectives.ramps import Ramp
from tests.kits.labels import batch_of, full_labels, real_student, topk_labels, value_and_gradient

ROWS, CLASSES = 6, 40
HEAD = torch.randn(CLASSES, 4, generator=torch.Generator().manual_seed(3))
TAILS = ("uniform", "class-mean", "ghost", "none")
TAUGHT = [name for name, term in LOGIT_TERMS.items() if term.facts.teacher]


def logits(scale: float = 3.0) -> Any:
    return np.random.RandomState(0).normal(0, scale, (ROWS, CLASSES)).astype(np.float32)


def made(name: str, **common: Any) -> Objective:
    return make_objective(name, head=HEAD if name == "kd-sim" else None, **common)


def test_an_unknown_name_is_refused_with_the_list() -> None:
    known_names = ", ".join(LOGIT_TERMS)
    with pytest.raises(InvalidInputError, match=f"objective 'kdd' is unknown; the known ones are {known_names}"):
        make_objective("kdd")


def test_an_unknown_key_is_refused_with_the_list() -> None:
    with pytest.raises(
        InvalidInputError, match=r"objective jsd has no setting alpha, gamma; it has beta \(0.5\), temp"
    ):
        make_objective("jsd", {"gamma": 1, "alpha": 1})
    with pytest.raises(InvalidInputError, match="objective double-distillation has no setting k; it has w_ce"):
        make_objective("double-distillation", {"k": 1})


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("kd", {"w_ce": -1}, "objective kd: w_ce is -1: Input should be greater than or equal to 0"),
        ("dkd", {"alpha": True}, "objective dkd: alpha is True; give a number"),
        ("kd", {"temperature": 0}, "objective kd: temperature is 0: Input should be greater than 0"),
        ("kd", {"temperature": "hot"}, "objective kd: temperature is 'hot': Input should be a valid number"),
        ("jsd", {"beta": 1.0}, "objective jsd: beta is 1.0: Input should be less than 1"),
        ("kd-topk", {"k": 0}, "objective kd-topk: k is 0: Input should be greater than or equal to 1"),
        ("label-smoothing", {"epsilon": -0.1}, "epsilon is -0.1: Input should be greater than or equal to 0"),
        ("mlld", {"temperatures": (2.0, -1.0)}, "temperatures is .*: Input should be greater than 0"),
        ("taid", {"beta": 1.5}, "objective taid: beta is 1.5: Input should be less than 1"),
        ("taid", {"t_start": 0.9, "t_end": 0.5}, "t_start is 0.9 and t_end is 0.5"),
    ],
)
def test_values_out_of_range_are_refused_with_value_and_range(name: str, settings: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        make_objective(name, settings)


def test_text_from_the_command_line_becomes_numbers() -> None:
    assert make_objective("kd", {"temperature": "2.5"}).term.temperature == 2.5  # type: ignore[attr-defined]
    assert make_objective("kd-topk", {"k": "7"}).term.k == 7  # type: ignore[attr-defined]


def test_each_names_its_source_and_its_exactness(subtests: pytest.Subtests) -> None:
    for name, term in LOGIT_TERMS.items():
        with subtests.test(name):
            text = " ".join((term.__doc__ or "").split())
            inherited = " ".join((__import__(term.__module__, fromlist=["x"]).__doc__ or "").split())
            assert re.search(r"\b(19|20)\d\d\b", text), "a year"
            assert re.search(r"\b[Ee]xact|[Nn]eeds no store", text + inherited), "how exact it is"


def test_each_describes_itself(subtests: pytest.Subtests) -> None:
    shown = {"objective", "needs", "asks_at", "on_full", "on_top_k", "under_mixing", "tails", "rows_meet", "settings"}
    extra = {"kd-sim": ["head"], "kd-topk": ["k classes"]}
    extra |= {name: ["no masked classes"] for name in ("reverse-kl", "symmetric-kl", "adaptive-kl")}
    for name, term in LOGIT_TERMS.items():
        with subtests.test(name):
            said = describe(name)
            assert set(said) == shown | {"on_many_devices"}
            gathering = ("subclass", "dist", "mlld", "taid")
            assert (said["on_many_devices"] == "the whole batch on each") == (name in gathering)
            assert said["objective"] == name
            assert set(said["settings"]) == set(parameters_of(name)) >= {"w_ce", "w_kd"}
            assert said["needs"] == ["store" if term.facts.teacher else "no teacher", *extra.get(name, [])]


def test_the_listing_says_what_the_classes_say() -> None:
    records = records_of_classes()
    assert list(listing().values()) == records, "write it anew: python -m kdcache.objectives.listing"
    text = files("kdcache.objectives").joinpath("listing.json").read_text("utf-8")
    assert text == written(records)


def test_the_temperatures_and_classes_that_a_term_asks_for_are_its_settings() -> None:
    for name, term in LOGIT_TERMS.items():
        assert {*term.facts.asks_at, *filter(None, [term.facts.best])} <= parameters_of(name).keys(), name
    ramps = {"temperature": Ramp(((0.0, 8.0), (5.0, 2.0)))}
    wanted: dict[str, tuple[Objective, list[float], int]] = {
        "its own": (made("kd", settings={"temperature": 3.0}), [3.0], 1),
        "a ramp's": (made("kd", over_epochs=ramps), [8.0, 2.0], 1),
        "several": (made("mlld", settings={"temperatures": (2.0, 5.0)}), [2.0, 5.0], 1),
        "the student's alone": (made("kd-sim", settings={"temperature": 0.5}), [], 1),
        "learned": (made("ctkd"), [], 1),
        "the k best": (made("kd-topk", settings={"k": "7"}), [4.0], 7),
    }
    for case, (objective, temperatures, best) in wanted.items():
        assert (objective.temperatures, objective.best) == (temperatures, best), case


def test_what_is_advised_instead_is_what_it_is_said_to_be() -> None:
    assert DEFAULT in TAUGHT
    assert set(WITHOUT_TEACHER) == LOGIT_TERMS.keys() - set(TAUGHT)
    assert all(LOGIT_TERMS[name].facts.zeros and name in TAUGHT for name in FINITE)


def test_each_refuses_the_tails_that_it_cannot_take(subtests: pytest.Subtests) -> None:
    batch = batch_of(topk_labels(logits(), np.arange(ROWS), 5), y=torch.arange(ROWS))
    for name, tail in product(TAUGHT, TAILS):
        with subtests.test(name, tail=tail):
            if tail in LOGIT_TERMS[name].facts.tails:
                value, gradient = value_and_gradient(made(name, tail=tail), real_student(logits()), batch)
                assert value.isfinite()
                assert gradient.isfinite().all()
            else:
                with pytest.raises(InvalidInputError, match=rf"cannot take tail '{tail}'; it can take "):
                    made(name, tail=tail)


def test_what_cannot_meet_zeros_is_finite_with_a_tail_that_has_none(subtests: pytest.Subtests) -> None:
    """f32, a teacher and a student who are sure of different classes by hundreds of nats."""
    student = torch.from_numpy(logits(100.0)).flip(0)
    teacher = topk_labels(logits(100.0), np.arange(ROWS), 5, quantisation="high")
    for name in [name for name, term in LOGIT_TERMS.items() if not term.facts.zeros]:
        assert "none" not in LOGIT_TERMS[name].facts.tails
        for tail in LOGIT_TERMS[name].facts.tails:
            with subtests.test(name, tail=tail):
                loss = made(name, tail=tail)
                value, gradient = value_and_gradient(loss, student, batch_of(teacher, y=torch.arange(ROWS)))
                assert value.isfinite()
                assert gradient.isfinite().all()


def test_f32_logits_of_any_size_stay_finite(subtests: pytest.Subtests) -> None:
    student, y = torch.from_numpy(logits(300.0)).flip(0), np.arange(ROWS)
    teachers = {"full": full_labels(logits(300.0), y), "topk": topk_labels(logits(300.0), y, 5)}
    for name, encoding in product(LOGIT_TERMS, teachers):
        with subtests.test(name, encoding=encoding):
            batch = batch_of(teachers[encoding], y=torch.from_numpy(y))
            value, gradient = value_and_gradient(made(name), student, batch)
            assert value.dtype == torch.float32
            assert value.isfinite()
            assert gradient.isfinite().all()


def test_no_teacher_is_refused_where_one_is_needed(subtests: pytest.Subtests) -> None:
    for name in TAUGHT:
        with subtests.test(name), pytest.raises(InvalidInputError, match=r"needs a store.*--store, or set w_kd to 0"):
            made(name)(real_student(logits()), batch_of(y=torch.arange(ROWS)))


def test_without_its_term_an_objective_needs_no_store() -> None:
    assert torch.isfinite(Objective(KD(), w_kd=0.0)(real_student(logits()), batch_of(y=torch.arange(ROWS))))
    for name in ("label-smoothing", "confidence-penalty", "subclass"):
        assert torch.isfinite(made(name)(real_student(logits()), batch_of(y=torch.arange(ROWS))))


def test_kd_sim_without_a_head_names_the_flag() -> None:
    with pytest.raises(InvalidInputError, match="extract with --keep head"):
        make_objective("kd-sim")


def test_class_means_that_are_not_there_are_asked_for() -> None:
    whole = topk_labels(logits(), np.arange(ROWS), 5)
    bare = whole.with_class_means(None)
    with pytest.raises(InvalidInputError, match="carry no class means"):
        Objective(KD(), tail="class-mean")(real_student(logits()), batch_of(bare, y=torch.arange(ROWS)))


@pytest.mark.parametrize("name", TAUGHT)
def test_an_objective_by_labels_learns_nothing_from_rows_without_one(name: str) -> None:
    unlabelled = np.full(ROWS, -1)
    batch = batch_of(full_labels(logits(), unlabelled), y=torch.from_numpy(unlabelled))
    student = torch.from_numpy(logits(1.0) + 1.0)
    _, gradient = value_and_gradient(made(name, settings={"w_ce": 0.0, "w_kd": 1.0}), student, batch)
    assert bool((gradient == 0).all()) == LOGIT_TERMS[name].facts.by_labels
