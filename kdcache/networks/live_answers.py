"""Live answers of a teacher: log-probabilities for rows of a view that are drawn again.

Shape letters: R rows, C classes.
"""

import numpy as np
import numpy.typing as npt
import torch

from kdcache.base.arrays import IntArray
from kdcache.base.view_span import ViewSpan
from kdcache.labels.reduction import centre
from kdcache.networks.teacher import Teacher
from kdcache.views.draw import ViewDataset
from kdcache.views.mixing import mix_rows, with_partners
from kdcache.views.view_stack import Drawn, ViewRequest

Array = npt.NDArray[np.float32]
SURE_LOG_PROB = -12.0  # log-probability above which two answers are compared: below it gaps may be clamped


def drawn_again(dataset: ViewDataset, view: int, positions: IntArray) -> Drawn:
    """Some positions of a view and, after them, their partners in mixing."""
    all_positions = with_partners(dataset.plan, positions, view, len(dataset.order))
    return dataset[ViewRequest(ViewSpan.of(view), all_positions)]


def live_log_probs(teacher: Teacher, dataset: ViewDataset, drawn: Drawn, rows: int, *, at_once: bool = False) -> Array:
    """Log-probabilities [R, C] f32 of the teacher for the first `rows` rows that were drawn by `drawn_again`.
    `at_once`: by one forward of just these rows."""
    images = teacher.preparation(drawn.images[0])
    mixed = mix_rows(images, drawn.mixing[0], drawn.request.positions, rows, dataset.plan.mix)
    logits = (teacher.answer_at_once(mixed) if at_once else teacher.answer(mixed)).logits
    with torch.inference_mode():
        log_probs: Array = centre(logits, teacher.masked_classes).log_softmax(dim=-1).cpu().numpy()
    return log_probs
