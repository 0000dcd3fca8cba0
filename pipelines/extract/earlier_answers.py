"""A teacher is asked again about some rows that stand in its store: their answers must be those that are stored.

Its weights, code and input are in the store's identity, and its answers may hang on more: a file, the environment,
layers that are not registered. Then two passes under one identity would come from two teachers.
"""

from collections.abc import Iterator

import numpy as np

from kdcache.base.arrays import IntArray
from kdcache.errors import DamagedError, MissingBlockError, TeacherSuspectError
from kdcache.networks.live_answers import SURE_LOG_PROB, drawn_again, live_log_probs, live_text_log_probs
from kdcache.networks.live_answers import Array as FloatArray
from kdcache.networks.precision import Precision
from kdcache.pipelines.extract.job import Job, TextJob
from kdcache.store.reading import EncodedRows
from kdcache.store.segment import Segment
from kdcache.store.store import Store

ROWS = 16  # of a block, of the first and of the last that is committed
STEADY: dict[Precision, float] = {"float32": 0.02, "bfloat16": 0.05, "float16": 0.05}  # of the spread, on any device


def require_same_answers(store: Store, job: Job) -> None:
    """Ask the job's teacher about rows of the first and of the last committed block again. Rows that are drawn
    otherwise are judged elsewhere, and left out.

    Raises TeacherSuspectError where its answers are farther from the stored ones than quantising, its precision and
    another device explain.
    """
    if store.identity.encoding.DRAWN:
        return  # its stored classes are draws, of which no log-probability is known
    for segment, positions in _rows(store):
        view = segment.views.start
        if job.data.sequence > 1:
            positions = positions[job.labels[positions] >= 0]  # the teacher's answers to others are not kept
        try:
            rows = store.load(view, positions)
        except (DamagedError, MissingBlockError):
            continue  # which `verify` tells
        answers = _answers(job, view, positions, rows)
        if answers is None:
            continue
        soft = rows.soft_labels()
        stored_log_probs = soft.log_probs(1.0)
        live = np.take_along_axis(answers, np.asarray(soft.classes).astype(np.int64), axis=-1)
        sure = (live > SURE_LOG_PROB) & np.isfinite(stored_log_probs)
        if not np.isfinite(answers).any(axis=-1).all() or not sure.any():
            continue
        difference = float(np.sqrt(np.square(stored_log_probs - live)[sure].mean()))
        spread = float(live[sure].std())
        error = store.identity.encoding.answer_error(float(answers.max()) - SURE_LOG_PROB)
        limit = error + STEADY[job.teacher.precision] * spread
        if difference > limit:
            raise TeacherSuspectError(
                f"the teacher answers {len(positions)} rows of view {view} that stand in {store.folder.root} otherwise "
                f"than they were answered (from {job.sample_name(int(positions[0]))} on): the log-probabilities differ "
                f"by {difference:.2g}, precision and quantising explain {limit:.2g}. Its weights and code are the "
                "store's, so its answers hang on something else: a file, the environment, a layer that is in no module "
                "list and has new weights in each process; restore or register it, or use another store path"
            )


def _answers(job: Job, view: int, positions: IntArray, rows: EncodedRows) -> FloatArray | None:
    """The teacher's log-probabilities [R, C] for stored rows; None where there is none, or they are drawn otherwise."""
    if not len(positions):
        return None
    if isinstance(job, TextJob):
        texts = job.teacher.texts_of(job.data.sequence, job.batch_rows)
        return live_text_log_probs(job.teacher, job.dataset, view, positions, texts)
    drawn = drawn_again(job.dataset, view, positions)
    if drawn.unread or not np.array_equal(rows.arrays["pixels"], drawn.pixels[0, : len(positions)]):
        return None
    return live_log_probs(job.teacher, job.dataset, drawn, len(positions))


def _rows(store: Store) -> Iterator[tuple[Segment, IntArray]]:
    """Some positions of the first and of the last committed block that are not struck, each with its segment."""
    blocks = [(segment, block) for segment in store.segments for block in sorted(segment.commits())]
    for segment, block in blocks[:1] + blocks[1:][-1:]:
        start, stop = segment.layout.block_rows(block)
        positions = np.unique(np.linspace(start, stop - 1, min(ROWS, stop - start)).astype(np.int64))
        positions = positions[~np.isin(positions, segment.struck(segment.views.start))]
        if len(positions):
            yield segment, positions
