"""tally: parts are the whole, what is missing is left out, and errors name the thing and both values."""

import pickle
from itertools import permutations
from math import log

import numpy as np
import pytest
import torch

from kdcache.errors import InvalidInputError
from kdcache.labels.reduction import topk_of_log_probs
from kdcache.labels.sampled_labels import SampledLabels
from kdcache.labels.topk_labels import read_topk
from kdcache.measures.catalogue import GROUPS, ROW_MEASURES
from kdcache.measures.tally import Tally
from kdcache.training.metrics import Validation
from tests.kits.labels import batch_of
from tests.kits.measures import figures, full_teacher, logs, measured, random_case, topk_teacher

TEACHERS = {"full": lambda logits: full_teacher(logits), "topk": lambda logits: topk_teacher(logits, 5)}


@pytest.mark.parametrize("kind", TEACHERS)
def test_parts_are_the_whole_in_any_order(kind: str) -> None:
    case = random_case(classes=30)
    teacher = TEACHERS[kind](case.teacher)
    whole = measured(case.logits, teacher, case.hard, case.baseline)
    assert whole.keys() == ROW_MEASURES.keys()
    parts = []
    for rows in torch.arange(300).split([1, 0, 63, 7, 200, 29]):
        part = Tally()
        part.update(case.logits[rows], teacher.take(rows.numpy()), case.hard[rows], baseline=case.baseline[rows])
        parts.append(part)
    for order in list(permutations(range(6)))[::144]:
        first, *others = [parts[place] for place in order]
        total = sum(others, start=first + Tally())
        for name, value in total.result().items():
            assert value.value == pytest.approx(whole[name].value, rel=1e-12, abs=1e-12)
            assert value.by_class == pytest.approx(whole[name].by_class, rel=1e-12, abs=1e-12)
            assert value.model_copy(update={"value": 0, "by_class": ()}) == whole[name].model_copy(
                update={"value": 0, "by_class": ()}
            )
    one_by_one = Tally()
    for rows in torch.arange(300).split(41):
        one_by_one.update(case.logits[rows], teacher.take(rows.numpy()), case.hard[rows], baseline=case.baseline[rows])
    values = {name: value.value for name, value in one_by_one.result().items()}
    assert values == pytest.approx({name: value.value for name, value in whole.items()}, rel=1e-12, abs=1e-12)


def test_adding_changes_neither_part() -> None:
    case = random_case()
    part, other = Tally(), Tally()
    part.update(case.logits[:100], hard=case.hard[:100])
    other.update(case.logits[100:], hard=case.hard[100:])
    before = part.result(), other.result()
    total = part + other
    total.update(case.logits, hard=case.hard)
    assert (part.result(), other.result()) == before


def test_a_tally_travels_between_processes() -> None:
    case = random_case()
    tally = Tally(k=3)
    tally.update(case.logits, topk_teacher(case.teacher, 4), case.hard)
    copy = pickle.loads(pickle.dumps(tally))
    assert copy.result() == tally.result()
    assert (copy + tally).result()["nll"].rows == 2 * tally.result()["nll"].rows


def test_missing_parts_leave_measures_out() -> None:
    case = random_case()
    labels = {name for name, measure in ROW_MEASURES.items() if measure.facts.needs == ("labels",)}
    teacher = {name for name, measure in ROW_MEASURES.items() if measure.facts.needs == ("teacher",)}
    assert measured(case.logits, hard=case.hard).keys() == labels
    assert measured(case.logits, full_teacher(case.teacher)).keys() == teacher
    assert measured(case.logits, full_teacher(case.teacher), torch.full((300,), -1)).keys() == teacher
    assert measured(case.logits) == Tally().result() == (Tally() + Tally()).result() == {}
    empty = Tally()
    empty.update(case.logits[:0], full_teacher(case.teacher[:0]), case.hard[:0])
    assert empty.result() == {}


def test_rows_without_a_label_do_not_count() -> None:
    case = random_case()
    known = torch.from_numpy(case.known)
    teacher = full_teacher(case.teacher)
    values = measured(case.logits, teacher, case.hard)
    labelled = measured(case.logits[known], teacher.take(case.known), case.hard[known])
    for name, measure in ROW_MEASURES.items():
        if "labels" in measure.facts.needs and "baseline" not in measure.facts.needs:
            assert values[name].rows == case.known.sum()
            assert values[name].value == pytest.approx(labelled[name].value, rel=1e-12, abs=1e-12)


def test_only_the_measures_asked_for_are_counted() -> None:
    case = random_case()
    tally = Tally(["nll", "accuracy"])
    tally.update(case.logits, full_teacher(case.teacher), case.hard)
    assert list(tally.result()) == ["nll", "accuracy"]
    assert tally._sums.keys() == {"accuracy", "likelihood"}


def test_soft_labels_of_numpy_and_torch_and_narrow_logits_are_taken() -> None:
    case = random_case()
    numbers, tensors = full_teacher(case.teacher), full_teacher(case.teacher).to(dtype=torch.float64)
    assert figures(case.logits, numbers) == figures(case.logits, tensors)
    half = figures(case.logits.half(), numbers, case.hard)
    assert half["kl_to_teacher"] == pytest.approx(figures(case.logits, numbers)["kl_to_teacher"], abs=2e-3)
    assert figures(case.logits.requires_grad_(), numbers, case.hard)["accuracy"] == half["accuracy"]


def test_validation_in_training_says_the_same() -> None:
    case = random_case()
    soft = topk_teacher(case.teacher, 4).to(dtype=torch.float64)
    validation = Validation()
    validation.update(case.logits, batch_of(soft, y=case.hard))
    values = figures(case.logits, soft, case.hard)
    results = validation.results()
    assert results.keys() == {"accuracy", "nll", "ece", "agreement", "kl_to_teacher"}
    assert {name: values[name] for name in results} == pytest.approx(results, rel=1e-9)


def test_a_tail_of_which_the_mass_alone_is_known_will_do() -> None:
    """Answers from outside: the two best of four classes and their probabilities."""
    rows = topk_of_log_probs(np.array([[2, 0]]), np.log([[0.5, 0.3]]), np.array([[0]]), 2)
    soft = read_topk(rows, 4, ())
    values = measured(logs([[0.25, 0.25, 0.25, 0.25]]), soft, [0])
    assert values["teacher_margin"].value == pytest.approx(0.2, abs=1e-12)
    assert values["teacher_label_rank"].value == 2.0
    assert values["total_variation"].value == pytest.approx((0.25 + 0.05 + 0.3) / 2, abs=1e-9)
    even = 0.5 * log(2) + 0.3 * log(1.2) + 0.2 * log(0.4)
    assert values["kl_to_teacher"].value == pytest.approx(even, abs=1e-9)
    assert values["kl_to_teacher"].exactness == "sketch"


def test_results_are_records_of_plain_numbers() -> None:
    case = random_case()
    values = measured(case.logits, full_teacher(case.teacher), case.hard)
    record = values["balanced_accuracy"].model_dump(mode="json")
    assert (record["unit"], record["rows"], record["exactness"]) == ("share", int(case.known.sum()), "exact")
    assert len(record["by_class"]) == 12


BATCH = random_case(6, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": torch.zeros(2, 3, 4)}, r"logits have the shape \(2, 3, 4\); measures take \[B, C\]"),
        ({"logits": BATCH.logits * torch.nan}, "logits of the student hold nan in 6 of 6 rows, first in row 0"),
        ({"logits": BATCH.logits / torch.tensor([1, 1, 1, 0, 1, 1])[:, None]}, "inf in 1 of 6 rows, first in row 3"),
        ({"hard": torch.zeros(5, dtype=torch.int64)}, r"hard labels are int64 of the shape \(5,\); logits of 6 rows"),
        ({"hard": torch.zeros(6)}, r"hard labels are float32 .* take integers \[6\]"),
        ({"hard": torch.full((6,), 4)}, "hard labels hold the class 4; logits of 4 classes take -1 to 3"),
        ({"hard": torch.full((6,), -2)}, "hard labels hold the class -2"),
        ({"baseline": torch.full((6,), -1)}, "decisions of the baseline hold the class -1; .* take 0 to 3"),
        ({"soft": full_teacher(np.zeros((6, 5)))}, "soft labels are of 5 classes and the logits of 4"),
        ({"soft": full_teacher(np.zeros((7, 4)))}, r"soft labels have the shape \(7, 4\) for logits of 6 rows"),
        ({"soft": full_teacher(np.full((6, 4), np.nan))}, "soft labels of row 0 hold NaN"),
        (
            {"soft": topk_teacher(BATCH.teacher, 2), "k": 3},
            "top 3 classes are to be compared and the soft labels hold 2",
        ),
        ({"soft": full_teacher(BATCH.teacher, (1,)), "k": 4}, "top 4 classes .* soft labels hold 3"),
        (
            {
                "soft": SampledLabels(
                    np.zeros((6, 0)), np.zeros(6), 4, draws=np.zeros((6, 3), int), draw_temperature=1.0
                )
            },
            "cannot be had of 3 draws at T = 1",
        ),
    ],
)
def test_errors_name_the_thing_and_both_values(arguments: dict, message: str) -> None:
    arguments = {"logits": BATCH.logits, "soft": None, "hard": None, "baseline": None, "k": None} | arguments
    tally = Tally(k=arguments.pop("k"))
    with pytest.raises(InvalidInputError, match=message):
        tally.update(arguments.pop("logits"), arguments.pop("soft"), arguments.pop("hard"), **arguments)
    assert tally.result() == {}


def test_tallies_of_different_things_do_not_add_up() -> None:
    four, five, other = Tally(), Tally(), Tally(["nll"])
    four.update(BATCH.logits)
    five.update(torch.zeros(2, 5))
    with pytest.raises(InvalidInputError, match="classes of a tally are 4, and 5 were to be added"):
        four + five
    with pytest.raises(InvalidInputError, match="classes of a tally are 4, and 5"):
        four.update(torch.zeros(2, 5))
    with pytest.raises(InvalidInputError, match="measures of a tally are"):
        four + other
    with pytest.raises(InvalidInputError, match=r"top classes \(k\) of a tally are 2, and 3"):
        Tally(k=2) + Tally(k=3)
    with pytest.raises(InvalidInputError, match="measure kl, acc is unknown; known are accuracy, top5_accuracy"):
        Tally(["nll", "kl", "acc"])


def test_every_group_counts_its_rows() -> None:
    for group in GROUPS.values():
        assert {tuple(measure.facts.needs) for measure in group.measures.values()} == {group.needs}
