"""objectives of taps: small cases by hand, what must not change the loss, and rows that are alike or empty."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kdcache.objectives.catalogue import TAP_TERMS, make_objective
from kdcache.objectives.objective import Objective
from kdcache.objectives.outputs import Outputs
from kdcache.objectives.pkt import neighbour_difference
from kdcache.objectives.rkd import RKD, angle_difference
from kdcache.objectives.sp import gram_difference
from tests.kits.tap_cases import TapCase, term_loss, term_of

FEATURES = TapCase({"features": (3,)}, ({"features": (3,)},), last="features")
MAPS = TapCase({"a": (3, 4, 4)}, ({"m": (3, 4, 4)},))
LEARNED = ("hint", "crd", "srrl", "simkd", "mgd")


def rkd_of(student: Tensor, teacher: Tensor, **settings: float) -> Tensor:
    objective = FEATURES.objective("rkd", **settings)
    batch = replace(FEATURES.batch, features=(teacher,))
    return term_loss(objective, Outputs(torch.zeros(len(student), 5).double(), student), batch)


def test_at_by_hand() -> None:
    """Two places: |F|^2 is (9, 16) against (1, 0), unit vectors (9, 16) / 337 ** .5 and (1, 0)."""
    case = replace(MAPS, student={"a": (2, 1, 2)}, teachers=({"m": (2, 1, 2)},), rows=1)
    student = torch.tensor([[[[3.0, 0.0]], [[0.0, -4.0]]]]).double()
    batch = replace(case.batch, taps=({"m": torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]])},))
    loss = term_loss(case.objective("at"), Outputs(torch.zeros(1, 5).double(), None, {"a": student}), batch)
    first, second = 9 / math.sqrt(337), 16 / math.sqrt(337)
    assert loss.item() == pytest.approx(((first - 1) ** 2 + second**2) / 2)


def test_sp_by_hand() -> None:
    """Orthogonal rows have the Gram 1; equal rows 1 / 2 ** .5 everywhere."""
    orthogonal, equal = torch.eye(2).double(), torch.ones(2, 2).double()
    half = math.sqrt(0.5)
    assert gram_difference(orthogonal, equal).item() == pytest.approx((2 * (1 - half) ** 2 + 2 * half**2) / 4)


def test_rkd_by_hand() -> None:
    """Three rows on a line at 0, 1, 3 (mean distance 2) against 0, 1, 2 (mean 4/3): no angle differs."""
    student, teacher = (torch.tensor([[a, 0, 0], [b, 0, 0], [c, 0, 0]]).double() for a, b, c in ((0, 1, 3), (0, 1, 2)))
    pairs = [(1 / 2, 3 / 4), (3 / 2, 3 / 2), (2 / 2, 3 / 4)]
    expected = 2 * sum(0.5 * (s - t) ** 2 for s, t in pairs) / 9
    assert rkd_of(student, teacher, distance=1.0, angle=50.0).item() == pytest.approx(expected)


def test_pkt_by_hand() -> None:
    """The teacher's row 0 is as near to both others, the student's only to row 1."""
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]).double()
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
    tiny = 1e-7
    # kernel of the teacher: (0, 1) .5, (0, 2) .5, (1, 2) 0; of the student: (0, 1) 1, (0, 2) 0, (1, 2) 0
    row_0 = 0.5 * math.log((0.5 + tiny) / (1 + tiny)) + 0.5 * math.log((0.5 + tiny) / tiny)
    row_1 = math.log((1 + tiny) / (1 + tiny))
    row_2 = math.log((1 + tiny) / tiny)  # the student's row 2 has no neighbour at all
    assert neighbour_difference(student, teacher).item() == pytest.approx((row_0 + row_1 + row_2) / 3)


@pytest.mark.parametrize("name", [name for name in TAP_TERMS if name not in LEARNED])
def test_equal_taps_cost_nothing(name: str) -> None:
    case = FEATURES if name in ("rkd", "pkt") else MAPS
    objective, batch = case.objective(name), case.batch
    tap = batch.tap(0, objective.teacher_taps[0][0]).double()
    outputs = Outputs(case.outputs.logits, tap) if case is FEATURES else Outputs(case.outputs.logits, None, {"a": tap})
    fit = getattr(objective.term, "fit", None)
    if fit is not None:
        fit([(outputs, batch)])
    assert abs(term_loss(objective, outputs, batch).item()) < 1e-12


def test_projections_that_are_the_identity_cost_nothing() -> None:
    hint, batch = MAPS.objective("hint"), MAPS.batch
    outputs = Outputs(MAPS.outputs.logits, None, {"a": batch.tap(0, "m").double()})
    with torch.no_grad():
        term_of(hint).projections[0].weight.copy_(torch.eye(3)[..., None, None])  # type: ignore[index,union-attr]
        term_of(hint).projections[0].bias.zero_()  # type: ignore[index,union-attr]
    assert term_loss(hint, outputs, batch).item() == 0
    srrl, batch = FEATURES.objective("srrl"), FEATURES.batch
    with torch.no_grad():
        term_of(srrl).connectors[0].weight.copy_(torch.eye(3))  # type: ignore[index,union-attr]
        term_of(srrl).connectors[0].bias.zero_()  # type: ignore[index,union-attr]
    assert term_loss(srrl, Outputs(FEATURES.outputs.logits, batch.features[0].double()), batch).item() == 0


def test_what_changes_nothing(subtests: pytest.Subtests) -> None:
    scales = torch.tensor([0.5, 2.0, 3.0, 0.1, 7.0]).double()
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())

    def value(name: str, change: Any) -> float:
        case = FEATURES if name in ("rkd", "pkt") else MAPS
        outputs = case.outputs
        features = None if outputs.features is None else change(outputs.features)
        changed = Outputs(outputs.logits, features, {label: change(tap) for label, tap in outputs.taps.items()})
        return term_loss(case.objective(name), changed, case.batch).item()

    changes: dict[str, list[tuple[str, Any]]] = {
        "at": [("channels in another order", lambda tap: tap[:, [2, 0, 1]]), ("signs", lambda tap: -tap),
               ("the length of each row", lambda tap: tap * scales[:, None, None, None])],
        "sp": [("the length of all rows", lambda tap: 3 * tap),
               ("channels in another order", lambda tap: tap[:, [2, 0, 1]])],
        "rkd": [("the length of all rows", lambda tap: 3 * tap), ("a rotation", lambda tap: tap @ turn),
                ("a shift", lambda tap: tap + 5)],
        "pkt": [("the length of each row", lambda tap: tap * scales[:, None]), ("a rotation", lambda tap: tap @ turn)],
    }  # fmt: skip
    for name, listed in changes.items():
        for label, change in listed:
            with subtests.test(name, change=label):
                assert value(name, change) == pytest.approx(value(name, lambda tap: tap), rel=1e-9)


def test_what_the_length_of_a_row_does_to_sp_is_its_column_alone() -> None:
    """Rows of the Gram are divided by their length: a scale of one row leaves its own row as it was."""
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).double()
    scaled = rows * torch.tensor([5.0, 1, 1, 1]).double()[:, None]
    assert gram_difference(rows, scaled) > 1e-3
    assert gram_difference(rows, 5 * rows) < 1e-20


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("name", ["at", "sp", "rkd", "pkt", "crd", "srrl", "hint", "mgd"])
def test_rows_that_are_equal_or_empty_have_finite_gradients(name: str, rows: int) -> None:
    """A dead student gives zeros, and copies of a picture equal rows; the teacher's stay as they are."""
    case = replace(FEATURES if name in ("rkd", "pkt", "crd", "srrl") else MAPS, rows=rows)
    for fill in (0.0, 1.0):
        objective, outputs = case.objective(name).float(), case.outputs
        taps = {label: torch.full(tap.shape, fill, requires_grad=True) for label, tap in outputs.taps.items()}
        features = torch.full((rows, 3), fill, requires_grad=True) if outputs.features is not None else None
        loss = term_loss(objective, Outputs(outputs.logits.float(), features, taps), case.batch)
        leaf = taps["a"] if features is None else features
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e4


def test_rkd_in_chunks_is_rkd() -> None:
    generator = torch.Generator().manual_seed(2)
    student = torch.randn(11, 4, generator=generator).double().requires_grad_()
    teacher = torch.randn(11, 6, generator=generator).double()
    whole = angle_difference(student, teacher)
    (expected,) = torch.autograd.grad(whole, student)
    for largest in (1, 3 * 11 * 11):
        loss = angle_difference(student, teacher, largest=largest)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.item() == pytest.approx(whole.item(), rel=1e-12)
        assert torch.allclose(gradient, expected, rtol=1e-10)


def test_the_weights_of_rkd_choose_its_parts() -> None:
    outputs, batch = FEATURES.outputs, FEATURES.batch
    losses = {
        (distance, angle): term_loss(FEATURES.objective("rkd", distance=distance, angle=angle), outputs, batch).item()
        for distance, angle in ((1.0, 0.0), (0.0, 1.0), (25.0, 50.0), (0.0, 0.0))
    }
    assert losses[25.0, 50.0] == pytest.approx(25 * losses[1.0, 0.0] + 50 * losses[0.0, 1.0])
    assert losses[0.0, 0.0] == 0
    assert isinstance(FEATURES.objective("rkd").term, RKD)


def test_two_layers_of_two_stores_are_named_once_each() -> None:
    case = TapCase(
        {"a": (3, 4, 4), "b": (4, 2, 2)}, ({"m": (4, 4, 4), "n": (3, 2, 2)}, {"o": (2, 3, 3), "n": (5, 2, 2)})
    )
    objective = make_objective("hint", {"student_tap": "a + b", "teacher_tap": "m+n, o+n"}, sizes=case.sizes)
    assert isinstance(objective, Objective)
    assert objective.student_taps == ("a", "b")
    assert objective.teacher_taps == (("m", "n"), ("o", "n"))
