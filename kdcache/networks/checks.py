"""Checks before block 0: views must replay, and the teacher must know its own data set."""

from collections.abc import Sequence

import numpy as np
import torch

from kdcache.base.arrays import IntArray
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, TeacherSuspectError
from kdcache.labels.reduction import centre
from kdcache.networks.input_trials import (
    STEADY_ROWS,
    InputPreparation,
    other_preparations,
    permutation_of,
    require_steady,
    surely_better,
)
from kdcache.networks.teacher import Teacher
from kdcache.views.draw import Drawn, ViewDataset, ViewRequest, draw_view, own_generators, stack_views
from kdcache.views.fingerprint import fingerprint
from kdcache.views.readable import readable_positions
from kdcache.views.sources import Data
from kdcache.views.transforms import Transform, as_tensor, clean_transform
from kdcache.views.workers import draw_requests

PROBE_SAMPLES = 16  # times two views: 32 draws
CHECK_ROWS = 512
AS_GIVEN = "as given"
PERMUTED = 3.0  # a relabelling is named where it is right this many times as often


def require_determinism(dataset: ViewDataset, view: int) -> None:
    """Draw 32 views twice, the second time in another order and in a worker.

    Raises InvalidInputError where a draw differs: a transform with its own generator, or one that keeps state.
    """
    positions = np.linspace(0, len(dataset.order) - 1, min(PROBE_SAMPLES, len(dataset.order))).astype(np.int64)
    positions = np.unique(positions)
    expected = dataset[ViewRequest(ViewSpan(view, view + 2), positions)]
    hashes = {}
    requests = [ViewRequest(ViewSpan.of(v), np.array([p])) for v in (view + 1, view) for p in positions[::-1]]
    for item in draw_requests(dataset, requests, 1):
        hashes[item.request.views.start, int(item.request.positions[0])] = _hash(item, 0, 0)
    for v in (view, view + 1):
        for row, position in enumerate(positions.tolist()):
            if _hash(expected, v - view, row) != hashes[v, position]:
                raise InvalidInputError(
                    f"view {v} of sample {int(dataset.order[position])} differs when it is drawn again in another "
                    "order in a worker: the data set or the transform has a generator of its own or keeps state; "
                    "draw random numbers from the global generators of torch, random or numpy only"
                )


def _hash(item: Drawn, view: int, row: int) -> int:
    """The fingerprint of one view; `view` counts from the first of the request."""
    return fingerprint(item.images[view, row], item.mixing[view], row)


def check_teacher(
    teacher: Teacher, data: Data, *, order: IntArray, dataset: ViewDataset, min_accuracy: float | None, batch_rows: int
) -> float | None:
    """Top-1 accuracy on up to 512 clean rows; None where none of them is labelled.

    Raises TeacherSuspectError where the teacher is unsteady; where its accuracy is below `min_accuracy` (default: twice
    chance); and where no `min_accuracy` vouches for it and another input preparation, or permuted classes, are right
    far more often. The error names them.
    """
    positions = readable_positions(dataset, np.arange(min(CHECK_ROWS, len(order)), dtype=np.int64))
    indices = order[positions]
    labels = data.labels[indices].astype(np.int64)
    has_label = labels >= 0
    rows = indices[has_label] if has_label.any() else indices[:STEADY_ROWS]
    transform = clean_transform(dataset.plan.transform) or dataset.transform
    trials = _predictions_by_preparation(teacher, data, rows, transform, batch_rows)
    if not has_label.any():
        return None
    labels = labels[has_label]
    predictions = trials.pop(AS_GIVEN)
    accuracy = float((predictions == labels).mean())
    limit = twice_chance(data.classes) if min_accuracy is None else min_accuracy
    suspicion = _suspicion(trials, predictions, labels, data.class_names)
    if accuracy < limit:
        advice = "check --mean and --std, channel order, --weights and class order, or lower --min-accuracy"
        raise TeacherSuspectError(
            f"the teacher's top-1 accuracy on {len(labels)} clean rows is {accuracy:.3f}, below {limit:.3f}; "
            f"{suspicion or _relabelling(predictions, labels, data.class_names, accuracy)}{advice}"
        )
    if suspicion and min_accuracy is None:
        advice = f"mend it, or vouch for this feeding with --min-accuracy {int(accuracy * 100) / 100:.2f}"
        raise TeacherSuspectError(
            f"the teacher's top-1 accuracy on {len(labels)} clean rows is {accuracy:.3f}; {suspicion}{advice}"
        )
    return accuracy


def twice_chance(classes: int) -> float:
    """The accuracy below which a teacher is suspect: 2 / C, for few classes a quarter of the way from chance to 1."""
    chance = 1.0 / max(classes, 2)
    return min(2.0 * chance, chance + (1.0 - chance) / 4.0)


def _predictions_by_preparation(
    teacher: Teacher, data: Data, indices: IntArray, transform: Transform, batch_rows: int
) -> dict[str, IntArray]:
    """Top classes [R] of clean rows by input preparation: the teacher's own, and others that may be the right ones."""
    predictions: dict[str, list[IntArray]] = {}
    for start in range(0, len(indices), batch_rows):
        with own_generators():
            views = stack_views([
                _clean_view(transform, data.samples[index][0], index)
                for index in indices[start : start + batch_rows].tolist()
            ])  # fmt: skip
        if not start:
            require_steady(teacher, views)
        preparations: dict[str, InputPreparation] = {AS_GIVEN: teacher.preparation}
        for name, prepare in (preparations | other_preparations(teacher, views[0])).items():
            logits, _ = teacher.answer(prepare(views))
            predictions.setdefault(name, []).append(centre(logits, teacher.masked_classes).argmax(dim=1).cpu().numpy())
    return {name: np.concatenate(batches) for name, batches in predictions.items()}


def _suspicion(trials: dict[str, IntArray], predictions: IntArray, labels: IntArray, names: Sequence[str]) -> str:
    """One sentence on the best of the other input preparations and the permutation, where it is surely right more often
    than the teacher as it is; "" where none is."""
    permutation = permutation_of(predictions, labels)
    permuted_labels = np.array([permutation.get(label, label) for label in labels.tolist()])
    hits = {f"fed with {name} it would be": classes == labels for name, classes in trials.items()}
    hits[_permutation_text(permutation, names)] = predictions == permuted_labels
    accuracies = {text: float(rows.mean()) for text, rows in hits.items() if surely_better(predictions == labels, rows)}
    best = max(accuracies, key=lambda text: accuracies[text], default="")
    return f"{best} {accuracies[best]:.3f}; " if best else ""


def _clean_view(transform: Transform, image: object, index: int) -> torch.Tensor:
    return as_tensor(draw_view(transform, image, 0, index, 0))


def _relabelling(predictions: IntArray, labels: IntArray, names: Sequence[str], accuracy: float) -> str:
    """One sentence where most labels have a class of their own as which they are mostly answered: then the classes are
    likely permuted. "" elsewhere."""
    guesses, hits = {}, 0
    for label in np.unique(labels).tolist():
        classes, counts = np.unique(predictions[labels == label], return_counts=True)
        guesses[label] = int(classes[counts.argmax()])
        hits += int(counts.max())
    share = hits / len(labels)
    if share < PERMUTED * max(accuracy, 1 / len(labels)) or len(set(guesses.values())) < len(guesses) / 2:
        return ""
    permutation = {label: guess for label, guess in guesses.items() if guess != label}
    return f"{_permutation_text(permutation, names)} {share:.3f}; "


def _permutation_text(permutation: dict[int, int], names: Sequence[str]) -> str:
    pairs = list(permutation.items())[:4]
    answers = ", ".join(f"{_class_text(names, label)} is answered as class {guess}" for label, guess in pairs)
    return f"with the classes permuted ({answers}) it would be"


def _class_text(names: Sequence[str], label: int) -> str:
    return f"{label} ({names[label]})" if label < len(names) else str(label)
