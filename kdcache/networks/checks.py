"""Checks before block 0: views must replay, and the teacher must know its own data set."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from kdcache.base.arrays import IntArray
from kdcache.base.progress import Progress, silent
from kdcache.base.view_span import ViewSpan
from kdcache.base.worker_start import DEFAULT_START
from kdcache.errors import InvalidInputError, TeacherSuspectError
from kdcache.networks.head_check import HeadCheck
from kdcache.networks.input_trials import permutation_of, surely_better
from kdcache.networks.row_trials import CHUNK, RowTrials
from kdcache.networks.steadiness import STEADY_ROWS
from kdcache.networks.teacher import Teacher
from kdcache.networks.teacher_check import TeacherCheck, twice_chance
from kdcache.views.data import Data
from kdcache.views.draw import ViewDataset, draw_view, own_generators, stack_views
from kdcache.views.fingerprint import fingerprint
from kdcache.views.readable import readable_positions
from kdcache.views.transforms import Transform, as_tensor, clean_transform, preset_size
from kdcache.views.view_stack import Drawn, ViewRequest
from kdcache.views.workers import draw_requests

PROBE_SAMPLES = 16  # times two views: 32 draws
CHECK_ROWS = 512
PERMUTED = 3.0  # a relabelling is named where it is right this many times as often


def require_determinism(dataset: ViewDataset, view: int, *, views_asked: int = 1) -> tuple[str, ...]:
    """Draw 32 views twice, the second time in another order and in a worker. Returns notes on views that are all equal,
    though several were asked for, and on a size that is not the transform's.

    Raises InvalidInputError where a draw differs: a transform with its own generator, or one that keeps state.
    """
    positions = probe_positions(len(dataset.order))
    expected = dataset[ViewRequest(ViewSpan(view, view + 2), positions)]
    hashes = {}
    requests = [ViewRequest(ViewSpan.of(v), np.array([p])) for v in (view + 1, view) for p in positions[::-1]]
    for item in draw_requests(dataset, requests, int(DEFAULT_START == "fork")):  # others cannot be given any transform
        hashes[item.request.views.start, int(item.request.positions[0])] = _hash(item, 0, 0)
    for v in (view, view + 1):
        for row, position in enumerate(positions.tolist()):
            if _hash(expected, v - view, row) != hashes[v, position]:
                raise InvalidInputError(
                    f"view {v} of {dataset.named_sample(int(dataset.order[position]))} differs when it is drawn again "
                    "in another order in a worker: the data set or the transform has a generator of its own or keeps "
                    "state; draw random numbers from the global generators of torch, random or numpy only"
                )
    return tuple(_view_notes(dataset, expected, view, views_asked))


def _view_notes(dataset: ViewDataset, drawn: Drawn, view: int, views_asked: int) -> Iterator[str]:
    plan, images = dataset.plan, drawn.images
    if views_asked > 1 and plan.mix == "none" and torch.equal(images[0], images[1]):
        yield (
            f"views {view} and {view + 1} are equal on all {images.shape[1]} samples that were looked at, and "
            f"{views_asked} views were asked for: the transform {plan.transform.name} seems to draw nothing at random"
        )
    size, (height, width) = preset_size(plan.transform), images.shape[-2:]
    if size and (height, width) != (size, size):
        yield f"views are {height} x {width} pixels, though {plan.transform.name} has size {size}: check the samples"


def probe_positions(rows: int) -> IntArray:
    """Up to 16 positions, evenly spaced."""
    return np.unique(np.linspace(0, rows - 1, min(PROBE_SAMPLES, rows)).astype(np.int64))


def _hash(item: Drawn, view: int, row: int) -> int:
    """The fingerprint of one view; `view` counts from the first of the request."""
    return fingerprint(item.images[view, row], item.mixing[view], row)


def check_teacher(
    teacher: Teacher,
    data: Data,
    *,
    order: IntArray,
    dataset: ViewDataset,
    min_accuracy: float | None,
    is_new: bool = True,
    head: HeadCheck | None = None,
    progress: Progress = silent,
) -> TeacherCheck:
    """Ask the teacher about clean rows: up to 64, and up to 500 more until the verdict is plain. A note says where the
    `head` that is kept does not give the answers.

    Raises InvalidInputError where its answers are probabilities and not taken as such, or the other way round. A store
    that stands (`is_new` false) goes on with them, under a note. Raises TeacherSuspectError where the teacher is
    unsteady; where its accuracy is below `min_accuracy` (default: twice chance); and where no `min_accuracy` vouches
    for it and another input preparation, or permuted classes, are right far more often. The error names them.
    """
    positions = readable_positions(dataset, np.arange(min(CHECK_ROWS, len(order)), dtype=np.int64))
    indices = order[positions]
    labels = data.labels[indices].astype(np.int64)
    has_label = labels >= 0
    rows = indices[has_label] if has_label.any() else indices[:STEADY_ROWS]
    transform = clean_transform(dataset.plan.transform) or dataset.transform
    limit = twice_chance(data.classes) if min_accuracy is None else min_accuracy
    trials = RowTrials(
        teacher,
        _clean_views(transform, data, rows),
        labels[has_label] if has_label.any() else np.full(len(rows), -1),
        limit if has_label.any() else 0.0,
        tries_others=min_accuracy is None and bool(has_label.any()),
        progress=progress,
        head=head,
    )
    trials.run(_permuted_gains)
    head_notes = () if head is None else head.notes()
    notes = (*trials.notes, *trials.answers.notes(teacher.answers.kind, is_new=is_new), *head_notes)
    if not has_label.any():
        return TeacherCheck(None, notes, trials.forward)
    predictions = trials.predictions
    labels = trials.labels[: len(predictions)]
    accuracy = float((predictions == labels).mean())
    suspicion = _suspicion(trials.better(), predictions, labels, data.class_names)
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
    return TeacherCheck(accuracy, notes, trials.forward)


def _clean_views(transform: Transform, data: Data, indices: IntArray) -> Iterator[Tensor]:
    """The clean views of some samples, 64 at a time."""
    for start in range(0, len(indices), CHUNK):
        with own_generators():
            yield stack_views([
                as_tensor(draw_view(transform, data.samples[index][0], 0, index, 0))
                for index in indices[start : start + CHUNK].tolist()
            ])  # fmt: skip


def _suspicion(accuracies: dict[str, float], predictions: IntArray, labels: IntArray, names: Sequence[str]) -> str:
    """One sentence on the best of the other input preparations, by their accuracies, and the permutation, where it is
    surely right more often than the teacher as it is; "" where none is."""
    permutation = permutation_of(predictions, labels)
    permuted_hits = predictions == np.array([permutation.get(label, label) for label in labels.tolist()])
    texts = {f"fed with {name} it would be": accuracy for name, accuracy in accuracies.items()}
    if surely_better(predictions == labels, permuted_hits):
        texts[_permutation_text(permutation, names)] = float(permuted_hits.mean())
    best = max(texts, key=lambda text: texts[text], default="")
    return f"{best} {texts[best]:.3f}; " if best else ""


def _permuted_gains(predictions: IntArray, labels: IntArray) -> int:
    """The rows that permuted classes may gain: those of labels that are mostly answered as one other class."""
    gains = 0
    for label in np.unique(labels).tolist():
        classes, counts = np.unique(predictions[labels == label], return_counts=True)
        if 2 * counts.max() > counts.sum() and int(classes[counts.argmax()]) != label:
            gains += int(counts.max())
    return gains


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
