"""Live checks compare a store with views that are drawn again, and with a teacher that is asked again."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kdcache.base.arrays import IntArray
from kdcache.base.devices import chosen_device
from kdcache.base.progress import Activity, Progress
from kdcache.base.records import differences
from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, lines_of_differences
from kdcache.networks.answers import Answers, are_probabilities, unit_sums
from kdcache.networks.build import build_network
from kdcache.networks.first_views import first_views, give_shapes, has_lazy
from kdcache.networks.live_answers import SURE_LOG_PROB, drawn_again, live_log_probs, live_text_log_probs
from kdcache.networks.preparation import Preparation
from kdcache.networks.teacher import Teacher
from kdcache.networks.text_teacher import TextTeacher
from kdcache.networks.weights import load_weights, weights_digest
from kdcache.pipelines.verify.live_outputs import compare_outputs
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.store.store import Store
from kdcache.views.contents import content_fingerprint
from kdcache.views.data import Data
from kdcache.views.draw import ViewDataset
from kdcache.views.other_data import data_words, explanation
from kdcache.views.replay import grade_replay, require_decoder
from kdcache.views.texts import rows_of_texts, texts_of_order
from kdcache.views.transforms import PRESETS, build_transform, require_transform
from kdcache.views.view_stack import ViewRequest
from kdcache.views.workers import draw_requests
from kdcache.whole_store.output_values import outputs_here
from kdcache.whole_store.verify import Check

BATCH = 256
CONTROL_FACTOR = 4.0
KIND_ROWS = 32  # that show how the teacher answers
SHOWN = 5  # samples that a message lists

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Replay:
    """A replay: a store, its data set, and the views of the data set under the store's plan."""

    store: Store
    data: Data
    dataset: ViewDataset


def compare_data(store: Store, data: Data, settings: VerifySettings, progress: Progress) -> tuple[Check, list[str]]:
    """The data set against the store's, and lines on what was added, removed, changed or renamed where it is
    another."""
    unequal_fields = differences(store.identity.dataset, data.identity(), "dataset.")
    if not unequal_fields:
        return Check(name="data set", passed=True, detail=f"{len(data)} samples, ids and labels equal"), []
    words = data_words(settings.data, settings.data_set)
    lines = explanation(store, data, "name the data set that the store was made from", words, progress).splitlines()
    differing = lines_of_differences(unequal_fields, ("the store", "the data set"))
    return Check(name="data set", passed=False, detail="; ".join(map(str.strip, differing))), lines


def open_replay(store: Store, data: Data, settings: VerifySettings) -> Replay:
    """Open the replay. Raises InvalidInputError where the store's transform is a user's own and is not named by the
    settings, or another one is."""
    require_decoder(store.manifest.provenance, data.decoder, store=str(store.folder.root))
    spec = store.identity.plan.transform
    name, arguments = settings.transform, settings.transform_set
    if not name and spec.name in PRESETS:
        name, arguments = spec.name, spec.arguments
    if not name:
        raise InvalidInputError(f"the store's transform is {spec.name}, not a preset; name it again with --transform")
    transform, named_spec = build_transform(name, arguments, spec)
    require_transform(named_spec, spec, str(store.folder.root), "name the transform that the store was made with")
    kinds = store.identity.encoding.kinds_of_contents
    order = texts_of_order(store.order, data.sequence)
    return Replay(store, data, ViewDataset(data.samples, order, store.identity.plan, transform, kinds, data.ids))


def compare_contents(replay: Replay, positions: IntArray) -> Check:
    """Compare the content fingerprints of some samples with those of every segment; of texts the positions are of all
    of their tokens."""
    positions = positions[:: replay.data.sequence]
    store, samples = replay.store, replay.data.samples
    contents = store.identity.encoding.contents
    assert contents is not None
    indices = (store.order[positions] // replay.data.sequence).tolist()
    drawn = np.asarray(
        [content_fingerprint(samples, i, samples[i][0] if contents == "values" else None, contents) for i in indices],
        dtype=np.uint32,
    )
    changed = np.zeros(len(positions), dtype=bool)
    for segment in store.segments:
        changed |= drawn != segment.read(segment.views.start, positions, ["contents"]).arrays["contents"]
    names = ", ".join(str(indices[row]) for row in np.flatnonzero(changed)[:SHOWN])
    detail = f"the {contents} of {len(positions)} samples, {int(changed.sum())} differ"
    return Check(name="contents", passed=not changed.any(), detail=detail + (f": samples {names}" if names else ""))


def compare_pixels(replay: Replay, positions: IntArray, settings: VerifySettings, progress: Progress) -> Check:
    """Draw all views of some positions again and compare every fingerprint."""
    store, sequence = replay.store, replay.data.sequence
    wrong_by_view: dict[int, int] = {}
    view_count, total = 0, len(positions) * len(store.every_view)
    requests = _requests(store.every_view, np.unique(positions // sequence))
    with closing(draw_requests(replay.dataset, requests, settings.workers, settings.worker_start)) as items:
        for drawn_views in items:
            view = drawn_views.request.views.start
            batch_positions = rows_of_texts(drawn_views.request.positions, sequence)
            wrong_count = int((store.load(view, batch_positions).arrays["pixels"] != drawn_views.pixels[0]).sum())
            wrong_by_view[view] = wrong_by_view.get(view, 0) + wrong_count
            view_count += len(batch_positions)
            progress(Activity("replaying", "views"), view_count, total)
    count = sum(wrong_by_view.values())
    detail = f"{view_count} views of {len(positions)} rows drawn again, {count} differ"
    worst_view = max(wrong_by_view, key=lambda view: wrong_by_view[view], default=0)
    if count and sequence == 1 and 0 in store.segment_of(worst_view).commits():  # the canary lies in block 0
        grade = grade_replay(store, replay.dataset, worst_view)
        versions = ", ".join(grade.versions) or "none"
        detail += f"; view {worst_view} is graded {grade.grade}, {grade.levels:.1f} levels off"
        detail += f"; versions that differ: {versions}"
    return Check(name="pixels", passed=not count, detail=detail)


def _requests(every_view: tuple[int, ...], positions: IntArray) -> Iterator[ViewRequest]:
    for view in every_view:
        for start in range(0, len(positions), BATCH):
            yield ViewRequest(ViewSpan.of(view), positions[start : start + BATCH])


def compare_teacher(replay: Replay, positions: IntArray, settings: VerifySettings, progress: Progress) -> list[Check]:
    """Ask the teacher again about some positions of the first view.

    The tolerance is the error of quantising, plus four times the difference between the teacher's answers to the same
    rows in other batches. Reports max |delta log p| at T = 1 over classes with log p > -12, and rows whose top class
    flips by more than the tolerance.
    """
    identity = replay.store.identity
    identity.encoding.require_log_probs("verify --teacher")
    if replay.data.sequence > 1:
        positions = positions[replay.store.labels[positions] >= 0]  # others were not asked about
        if not len(positions):
            detail = "no token of the texts that were drawn counts: look at more, with --rows 0 at all"
            return [Check(name="teacher answers", passed=False, detail=detail)]
    teacher = _open_teacher(replay, settings, positions)
    digest = weights_digest(teacher.network)
    if digest != identity.teacher.weights:
        detail = f"the store's teacher has weights {identity.teacher.weights[:16]}, this one {digest[:16]}"
        reason = "not run: other weights give other answers"
        return [
            Check(name="teacher weights", passed=False, detail=detail),
            Check(name="teacher answers", passed=False, detail=reason),
        ]
    checks = [Check(name="teacher weights", passed=True, detail=f"sha256 {digest[:16]}")]
    view = replay.store.every_view[0]
    is_told = identity.teacher.answers == "logits" and replay.data.sequence == 1
    if is_told and (text := _probabilities_text(replay, teacher, view, positions)):
        checks.append(Check(name="teacher kind", passed=False, detail=text))
    progress(f"asking the teacher about {len(positions):,} rows, twice", 0, 0)
    answers = _ask(replay, teacher, view, positions)
    if isinstance(teacher, TextTeacher):
        repeated_answers = live_text_log_probs(teacher, replay.dataset, view, positions, 1)
    else:
        other_rows = (teacher.forward_rows or BATCH // 4) - 1
        repeated_answers = _ask(replay, teacher, view, positions[::-1].copy(), other_rows)[::-1]
    control = _largest_difference(repeated_answers, answers)
    soft = replay.store.read(view, positions)
    stored_log_probs, classes = soft.log_probs(1.0), np.asarray(soft.classes).astype(np.int64)
    live_log_probs = np.take_along_axis(answers, classes, axis=-1)
    difference = _largest_difference(stored_log_probs, live_log_probs)
    span = float(answers.max(initial=0.0)) - SURE_LOG_PROB
    tolerance = identity.encoding.answer_error(span) + CONTROL_FACTOR * control
    top_classes = np.take_along_axis(classes, stored_log_probs.argmax(axis=-1)[:, None], axis=-1)
    lead = answers.max(axis=-1) - np.take_along_axis(answers, top_classes, axis=-1)[:, 0]
    flips = int((lead > tolerance).sum())
    detail = f"{len(positions)} rows of view {view}: max |delta log p| {difference:.2g}, tolerance {tolerance:.2g} "
    detail += f"(live against live {control:.2g}), {flips} top classes flipped"
    checks.append(Check(name="teacher answers", passed=difference <= tolerance and not flips, detail=detail))
    if outputs_here(replay.store.segment_of(view)):
        checks.append(compare_outputs(replay.store, replay.dataset, teacher, view, positions))
    return checks


def _probabilities_text(replay: Replay, teacher: Teacher, view: int, positions: IntArray) -> str:
    """One sentence where the teacher answers probabilities, which the store takes as logits; "" where it does not."""
    images = teacher.preparation(replay.dataset[ViewRequest(ViewSpan.of(view), positions[:KIND_ROWS])].images[0])
    with first_views(teacher.network, images, "teacher", precision=teacher.precision):
        sums = unit_sums(teacher.raw_answer(images).logits)
    if not are_probabilities(sums):
        return ""
    return f"all {len(sums)} rows asked lie in 0..1 and sum to 1: probabilities, which the store takes as logits"


def _largest_difference(log_probs: Array, live_log_probs: Array) -> float:
    """The largest difference between log-probabilities, among live ones that are not tiny; masked ones are -inf."""
    sure = live_log_probs > SURE_LOG_PROB
    return float(np.abs(log_probs[sure] - live_log_probs[sure]).max())


def _open_teacher(replay: Replay, settings: VerifySettings, positions: IntArray) -> Teacher:
    """The teacher that the settings name; lazy modules take their shapes from a view of the first position."""
    identity = replay.store.identity.teacher
    network = build_network(
        settings.teacher,
        settings.teacher_set,
        len(identity.class_map) or replay.data.classes * identity.subclasses or identity.classes,
        "teacher",
    )
    if settings.weights:
        load_weights(network, settings.weights)
    preparation = Preparation(identity.mean, identity.std, chosen_device(settings.device))
    if has_lazy(network):
        request = ViewRequest(ViewSpan.of(replay.store.every_view[0]), positions[:1])
        give_shapes(network, preparation(replay.dataset[request].images[0]), "teacher")
    return (Teacher if replay.data.sequence == 1 else TextTeacher)(
        network,
        preparation=preparation,
        precision=identity.precision,
        masked_classes=identity.masked_classes,
        answers=Answers.of(identity),
    )


def _ask(replay: Replay, teacher: Teacher, view: int, positions: IntArray, forward_rows: int | None = None) -> Array:
    """Log-probabilities [R, C] f32 of the live teacher for some positions of a view, as extract asks it or by forwards
    of `forward_rows` rows."""
    if isinstance(teacher, TextTeacher):
        texts = teacher.texts_of(replay.data.sequence, BATCH)
        return live_text_log_probs(teacher, replay.dataset, view, positions, texts)
    answers, batch = [], forward_rows or BATCH
    for start in range(0, len(positions), batch):
        rows = positions[start : start + batch]
        drawn_views = drawn_again(replay.dataset, view, rows)
        answers.append(
            live_log_probs(teacher, replay.dataset, drawn_views, len(rows), at_once=forward_rows is not None)
        )
    return np.concatenate(answers)
