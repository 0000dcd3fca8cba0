"""Checks before block 0: do views replay, and does the teacher know its own data set?"""

from collections.abc import Sequence

import numpy as np
import torch

from kdcache.base.arrays import IntArray
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, TeacherSuspectError
from kdcache.labels.reduction import centre
from kdcache.networks.input_trials import (
    STEADY_ROWS,
    Feeding,
    other_feedings,
    permutation_of,
    require_steady,
    surely_better,
)
from kdcache.networks.teacher import Teacher
from kdcache.views.draw import Drawn, ViewDataset, ViewRequest, draw_requests, draw_view, own_generators, stack_views
from kdcache.views.fingerprint import fingerprint
from kdcache.views.sources import Data
from kdcache.views.transforms import Transform, as_tensor, clean_transform

PROBE_SAMPLES = 16  # times two views: 32 draws
CHECK_ROWS = 512
GIVEN = "as given"
PERMUTED = 3.0  # a relabelling that is right so many times as often is worth naming


def require_determinism(dataset: ViewDataset, view: int) -> int:
    """Draw 32 views twice, the second time in another order and in a worker; returns the bytes of one view.

    Raises InvalidInputError where a draw differs: a transform with its own generator, or one that keeps state.
    """
    positions = np.linspace(0, len(dataset.order) - 1, min(PROBE_SAMPLES, len(dataset.order))).astype(np.int64)
    positions = np.unique(positions)
    once = dataset[ViewRequest(ViewSpan(view, view + 2), positions)]
    again = {}
    requests = [ViewRequest(ViewSpan.of(v), np.array([p])) for v in (view + 1, view) for p in positions[::-1]]
    for drawn in draw_requests(dataset, requests, 1):
        again[drawn.request.views.start, int(drawn.request.positions[0])] = _hash(drawn, 0, 0)
    for v in (view, view + 1):
        for row, position in enumerate(positions.tolist()):
            if _hash(once, v - view, row) != again[v, position]:
                raise InvalidInputError(
                    f"view {v} of sample {int(dataset.order[position])} differs when it is drawn again in another "
                    "order in a worker: the data set or the transform has a generator of its own or keeps state; "
                    "draw random numbers from the global generators of torch, random or numpy only"
                )
    return int(once.images[0, 0].nbytes)


def _hash(drawn: Drawn, view: int, row: int) -> int:
    return fingerprint(drawn.images[view, row], drawn.mixing[view], row)


def check_teacher(
    teacher: Teacher, data: Data, *, order: IntArray, dataset: ViewDataset, min_accuracy: float | None, batch_rows: int
) -> float | None:
    """Top-1 accuracy on up to 512 clean rows; None where none of them is labelled.

    Raises TeacherSuspectError for an unsteady teacher; below `min_accuracy` (default: twice chance); and, where
    no `min_accuracy` vouches for it, if another feeding or permuted classes are right far more often, naming which.
    """
    positions = np.arange(min(CHECK_ROWS, len(order)), dtype=np.int64)
    indices = order[positions]
    labels = data.labels[indices].astype(np.int64)
    known = labels >= 0
    clean = clean_transform(dataset.plan.transform) or dataset.transform
    asked = _predictions(teacher, data, indices[known] if known.any() else indices[:STEADY_ROWS], clean, batch_rows)
    if not known.any():
        return None
    labels = labels[known]
    predicted = asked.pop(GIVEN)
    right = predicted == labels
    accuracy = float(right.mean())
    limit = twice_chance(data.classes) if min_accuracy is None else min_accuracy
    found = _suspicion(asked, predicted, labels, data.class_names)
    if accuracy < limit:
        advice = "check --mean and --std, channel order, --weights and class order, or lower --min-accuracy"
        raise TeacherSuspectError(
            f"the teacher's top-1 accuracy on {len(labels)} clean rows is {accuracy:.3f}, below {limit:.3f}; "
            f"{found or _relabelling(predicted, labels, data.class_names, accuracy)}{advice}"
        )
    if found and min_accuracy is None:
        advice = f"mend it, or vouch for this feeding with --min-accuracy {int(accuracy * 100) / 100:.2f}"
        raise TeacherSuspectError(
            f"the teacher's top-1 accuracy on {len(labels)} clean rows is {accuracy:.3f}; {found}{advice}"
        )
    return accuracy


def twice_chance(classes: int) -> float:
    """Accuracy below which a teacher is suspect: 2 / C, or a quarter of the way from chance to 1 for few classes."""
    chance = 1.0 / max(classes, 2)
    return min(2.0 * chance, chance + (1.0 - chance) / 4.0)


def _predictions(
    teacher: Teacher, data: Data, indices: IntArray, transform: Transform, batch_rows: int
) -> dict[str, IntArray]:
    """Top classes of clean rows, by feeding: as the teacher is fed, and as else it could be meant to be."""
    predicted: dict[str, list[IntArray]] = {}
    for start in range(0, len(indices), batch_rows):
        with own_generators():
            views = stack_views([
                _clean_view(transform, data.samples[index][0], index)
                for index in indices[start : start + batch_rows].tolist()
            ])  # fmt: skip
        if not start:
            require_steady(teacher, views)
        feedings: dict[str, Feeding] = {GIVEN: teacher.preparation, **other_feedings(teacher, views[0])}
        for name, feed in feedings.items():
            logits, _ = teacher.answer(feed(views))
            predicted.setdefault(name, []).append(centre(logits, teacher.masked_classes).argmax(dim=1).cpu().numpy())
    return {name: np.concatenate(answers) for name, answers in predicted.items()}


def _suspicion(others: dict[str, IntArray], predicted: IntArray, labels: IntArray, names: Sequence[str]) -> str:
    """One sentence on what is right most often among the feedings and permutations that are surely right more often."""
    moved = permutation_of(predicted, labels)
    right = predicted == labels
    trials = {f"fed with {name} it would be": answers == labels for name, answers in others.items()}
    permuted = np.array([moved.get(label, label) for label in labels.tolist()])
    trials[_permuted(moved, names)] = predicted == permuted
    sure = {what: float(trial.mean()) for what, trial in trials.items() if surely_better(right, trial)}
    best = max(sure, key=lambda what: sure[what], default="")
    return f"{best} {sure[best]:.3f}; " if best else ""


def _clean_view(transform: Transform, image: object, index: int) -> torch.Tensor:
    return as_tensor(draw_view(transform, image, 0, index, 0))


def _relabelling(predicted: IntArray, labels: IntArray, names: Sequence[str], accuracy: float) -> str:
    """One sentence where each label has its own other prediction: then the classes are likely permuted."""
    best = {}
    for label in np.unique(labels).tolist():
        values, counts = np.unique(predicted[labels == label], return_counts=True)
        best[label] = (int(values[counts.argmax()]), int(counts.max()))
    fitted = sum(count for _, count in best.values()) / len(labels)
    moved = [(label, guess) for label, (guess, _) in best.items() if guess != label]
    if fitted < PERMUTED * max(accuracy, 1 / len(labels)) or len({guess for guess, _ in best.values()}) < len(best) / 2:
        return ""
    return f"{_permuted(dict(moved), names)} {fitted:.3f}; "


def _permuted(moved: dict[int, int], names: Sequence[str]) -> str:
    pairs = list(moved.items())[:4]
    shown = ", ".join(f"{_name(names, label)} is answered as class {guess}" for label, guess in pairs)
    return f"with the classes permuted ({shown}) it would be"


def _name(names: Sequence[str], label: int) -> str:
    return f"{label} ({names[label]})" if label < len(names) else str(label)
