"""objectives of taps: value and gradient of each are those of an f64 reference, written from its paper in loops."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kdcache.objectives.catalogue import TAP_TERMS
from kdcache.objectives.objective import Objective
from kdcache.objectives.outputs import Outputs
from tests.kits.tap_cases import CLASSES, TapCase, leaves, term_loss, term_of
from tests.kits.tap_references import REFERENCES, Arrays, best_matching

MAPS = TapCase({"a": (3, 4, 4), "projector": (4, 4, 4)}, ({"m": (4, 4, 4)},))
SMALLER = TapCase({"a": (3, 5, 3), "projector": (4, 5, 3)}, ({"m": (4, 3, 4)},))
POOLED = TapCase(
    {"a": (3, 4, 4), "a@2x2": (3, 2, 2), "projector": (4, 2, 2)}, ({"m@2x2": (4, 2, 2)},), {"student_tap": "a@2x2"}
)
TOKENS = TapCase({"a": (5, 3)}, ({"m": (7, 4)},))
VECTORS = TapCase({"features": (3,)}, ({"features": (4,)},), last="features")
LAYERS = TapCase(
    {"a": (3, 4, 4), "b": (4, 2, 2)},
    ({"m": (4, 4, 4), "n": (3, 2, 2)}, {"m": (2, 3, 3), "n": (5, 2, 2)}),
    {"student_tap": "a+b", "teacher_tap": "m+n"},
    weights=(3.0, 1.0),
    mixed=True,
)
STORES = TapCase(
    {"features": (3,)}, ({"features": (4,)}, {"features": (6,)}), weights=(3.0, 1.0), mixed=True, last="features"
)
BY_MAP = replace(MAPS, student={"a": (3, 4, 4), "features": (3,)}, settings={"student_tap": "a", "teacher_tap": "m"})
HEADED = replace(MAPS, student={"a": (3, 2, 3), "features": (3,)}, teachers=({"features": (4,)},))

CASES: dict[str, list[TapCase]] = {
    "hint": [MAPS, SMALLER, POOLED, TOKENS, replace(VECTORS, settings={"student_tap": "features"}), LAYERS],
    "at": [MAPS, SMALLER, POOLED, TOKENS, LAYERS, replace(MAPS, settings={"power": 1.0})],
    "sp": [MAPS, SMALLER, POOLED, TOKENS, VECTORS, LAYERS],
    "rkd": [VECTORS, STORES, BY_MAP, replace(VECTORS, settings={"distance": 0.0, "angle": 2.0})],
    "pkt": [VECTORS, STORES, BY_MAP],
    "crd": [VECTORS, STORES, replace(VECTORS, mixed=True), replace(VECTORS, settings={"constant": "paper", "dim": 3})],
    "srrl": [
        VECTORS, STORES, replace(VECTORS, masked=(1, 3)), replace(HEADED, settings={"student_tap": "a"}),
        replace(VECTORS, settings={"feature": 0.5, "regression": 3.0}),
    ],
    "simkd": [MAPS, SMALLER, replace(HEADED, student={"a": (3, 2, 3), "projector": (4, 2, 3)})],
    "mgd": [MAPS, SMALLER, POOLED, replace(LAYERS, settings={**LAYERS.settings, "ratio": 0.25})],
    "aligned": [MAPS, SMALLER, POOLED, TOKENS, LAYERS, replace(LAYERS, settings={**LAYERS.settings, "map": "learned"})],
}  # fmt: skip
EACH = [(name, number) for name, cases in CASES.items() for number in range(len(cases))]


def test_every_objective_of_taps_has_a_reference() -> None:
    assert CASES.keys() == REFERENCES.keys() == TAP_TERMS.keys()


@pytest.mark.parametrize(("name", "number"), EACH)
def test_the_value_and_the_gradient_are_the_reference_s(name: str, number: int) -> None:
    """The gradient by central differences of the reference, along three random directions of taps and parameters."""
    case = CASES[name][number]
    objective, outputs = case.objective(name), case.outputs
    arrays = arrays_of(name, case, objective, outputs)
    loss = term_loss(objective, outputs, case.batch)
    value = REFERENCES[name](arrays)
    assert value > 1e-4
    assert loss.item() == pytest.approx(value, rel=1e-9)
    moved = [leaf for leaf in leaves(objective, outputs).items() if leaf[0].removeprefix(".") in names_in(arrays)]
    gradients = torch.autograd.grad(loss, [leaf for _, leaf in moved], allow_unused=True)
    reached = {label: gradient for (label, _), gradient in zip(moved, gradients, strict=True) if gradient is not None}
    assert reached.keys() == needed(objective)
    for direction in directions(reached):
        slope = sum(float((gradient * direction[label]).sum()) for label, gradient in reached.items())
        ahead, behind = (REFERENCES[name](shifted(arrays, direction, step)) for step in (1e-6, -1e-6))
        assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_the_student_s_taps_passes_gradcheck(name: str) -> None:
    case = CASES[name][0]
    objective, outputs = case.objective(name), case.outputs
    tap = leaves(objective, outputs)[next(iter(needed(objective)))]

    def loss(values: torch.Tensor) -> torch.Tensor:
        label = next(iter(needed(objective)))
        given = (
            replace(outputs, features=values)
            if label == "features"
            else replace(outputs, taps={**outputs.taps, label: values})
        )
        return term_loss(objective, given, case.batch)

    assert torch.autograd.gradcheck(loss, tap)


@pytest.mark.parametrize("name", CASES)
def test_f32_agrees_with_f64(name: str) -> None:
    for case in CASES[name][:2]:
        wide, outputs = case.objective(name), case.outputs
        narrow = case.objective(name).float()
        taps = {label: tap.detach().float().requires_grad_() for label, tap in outputs.taps.items()}
        features = None if outputs.features is None else outputs.features.detach().float().requires_grad_()
        small = Outputs(outputs.logits.float(), features, taps)
        losses = term_loss(wide, outputs, case.batch), term_loss(narrow, small, case.batch)
        assert losses[1].dtype == torch.float32
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=2e-5)
        label = next(iter(needed(wide)))
        pairs = ((wide, outputs), (narrow, small))
        gradients = [
            torch.autograd.grad(loss, leaves(objective, given)[label])[0]
            for loss, (objective, given) in zip(losses, pairs, strict=True)
        ]
        assert float((gradients[1] - gradients[0]).norm()) <= 1e-4 * float(gradients[0].norm())


@pytest.mark.parametrize("name", CASES)
def test_the_state_brings_an_equal_loss_back(name: str) -> None:
    """Into an objective of other weights that was never fitted."""
    case = CASES[name][-1]
    trained = case.objective(name)
    fresh = replace(case, seed=1).objective(name)
    for matching in getattr(fresh.term, "matchings", []):
        matching.channels.fill_(-1)
    fresh.load_state_dict({key: value.clone() for key, value in trained.state_dict().items()})
    losses = [term_loss(objective, case.outputs, case.batch).item() for objective in (trained, fresh)]
    if name == "srrl":  # the classifier is the store's, which is another for another seed
        fresh.term.head_0.copy_(trained.term.head_0)  # type: ignore[operator,union-attr]
        losses[1] = term_loss(fresh, case.outputs, case.batch).item()
    assert losses[0] == losses[1]


def arrays_of(name: str, case: TapCase, objective: Objective, outputs: Outputs) -> Arrays:
    """What the reference of an objective is given, from the same case."""
    term, batch = term_of(objective), case.batch
    taps = leaves(objective, outputs)
    teachers = [
        {tap: batch.tap(number, tap).double().numpy() for tap in of_store}
        for number, of_store in enumerate(case.teachers)
    ]
    shares = [1.0] if len(teachers) == 1 else [0.75, 0.25]
    student_names = str(case.settings.get("student_tap", case.last)).split("+")
    if name in ("rkd", "pkt", "crd", "srrl") and "student_tap" not in case.settings:
        student_names = ["features"]
    own = [
        str(case.settings["teacher_tap"]).split("+") if "teacher_tap" in case.settings else [*of]
        for of in case.teachers
    ]
    student = {label: tap.detach().numpy() for label, tap in taps.items() if not label.startswith(".")}
    return Arrays(
        student=student,
        teachers=teachers,
        parameters={label[1:]: tap.detach().numpy() for label, tap in taps.items() if label.startswith(".")},
        pairs=[list(zip(student_names, names, strict=True)) for names in own],
        shares=shares,
        other={**case.settings, **others(name, case, term, student, teachers, student_names, own)},
    )


def others(name: str, case: TapCase, term: Any, student: Any, teachers: Any, names: Any, own: Any) -> dict[str, Any]:
    batch = case.batch
    if name == "srrl":
        return {"heads": [(one.weight.double().numpy(), one.bias.numpy()) for one in case.heads], "masked": case.masked}
    if name == "mgd":
        sizes = [[min(*pair) for pair in zip(student[s].shape[2:], teachers[n][t].shape[2:], strict=True)]
                 for n, of_store in enumerate(own) for s, t in zip(names, of_store, strict=True)]  # fmt: skip
        return {"masks": [term.masks(batch, index, (h, w)).double().numpy() for index, (h, w) in enumerate(sizes)]}
    if name == "aligned":
        means = [
            [class_means(class_shares(case, n), values) for values in (student[s], teachers[n][t])]
            for n, of_store in enumerate(own)
            for s, t in zip(names, of_store, strict=True)
        ]
        return {"matchings": [best_matching(*pair) for pair in means]}
    if name == "crd":
        assert batch.negatives is not None
        return {
            "negatives": [features.double().numpy() for features in batch.negatives.features],
            "weights": negative_weights(case),
            "z": [float(z.exp()) for z in term.log_z],
        }
    return {}


def class_means(shares: Any, values: Any) -> Any:
    """[classes, channels]: weighted means of the rows' means over places."""
    places = {4: (2, 3), 3: (1,)}.get(values.ndim, ())
    return shares.T @ values.mean(axis=places) / shares.sum(0)[:, None]


def class_shares(case: TapCase, number: int) -> Any:
    """[B, classes]: labels by lambda, the best class of the store's teacher where there is none."""
    batch, shares = case.batch, np.zeros((case.rows, CLASSES))
    top = batch.teachers[number].logits.argmax(-1)
    for row in range(case.rows):
        first = int(batch.y[row]) if batch.y[row] >= 0 else int(top[row])
        if batch.y2 is None or batch.lam is None:
            shares[row, first] += 1
        else:
            second = int(batch.y2[row]) if batch.y2[row] >= 0 else int(top[row])
            shares[row, first] += float(batch.lam[row])
            shares[row, second] += 1 - float(batch.lam[row])
    return shares[:, shares.sum(0) > 0]


def negative_weights(case: TapCase) -> list[list[float]]:
    batch = case.batch
    negatives = batch.negatives
    assert negatives is not None
    rows = []
    for row in range(case.rows):
        lam = 1.0 if batch.lam is None else float(batch.lam[row])
        labels = [(int(batch.y[row]), lam)] + ([] if batch.y2 is None else [(int(batch.y2[row]), 1 - lam)])
        weights = []
        for position, y in zip(negatives.positions.tolist(), negatives.y.tolist(), strict=True):
            share = sum(part for label, part in labels if label == y and y >= 0)
            weights.append(0.0 if position == int(batch.positions[row]) else 1 - share)
        rows.append(weights)
    return rows


def needed(objective: Objective) -> set[str]:
    """Labels of the leaves that a loss must reach: the taps that the term names, and its parameters."""
    return {*objective.student_taps, *(f".{name}" for name, _ in term_of(objective).named_parameters())}


def names_in(arrays: Arrays) -> set[str]:
    return {*arrays.student, *arrays.parameters}


def directions(gradients: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        yield {
            label: torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for label, value in gradients.items()
        }


def shifted(arrays: Arrays, direction: dict[str, torch.Tensor], step: float) -> Arrays:
    """The arrays a step further along a direction."""
    moved = {label: step * value.numpy() for label, value in direction.items()}
    student = {name: tap + moved.get(name, 0.0) for name, tap in arrays.student.items()}
    parameters = {name: value + moved.get(f".{name}", 0.0) for name, value in arrays.parameters.items()}
    return replace(arrays, student=student, parameters=parameters)
