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
from kdcache.networks.text_teacher import TextTeacher
from kdcache.views.draw import ViewDataset
from kdcache.views.mixing import mix_rows, with_partners
from kdcache.views.texts import rows_of_texts
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


def live_text_log_probs(
    teacher: TextTeacher, dataset: ViewDataset, view: int, positions: IntArray, texts: int
) -> Array:
    """Log-probabilities [R, C] f32 of the teacher for ascending positions of tokens, by forwards of so many texts."""
    sequence, parts = dataset.sequence, []
    needed = np.unique(positions // sequence)
    for start in range(0, len(needed), texts):
        chosen = needed[start : start + texts]
        tokens = teacher.prepared(dataset[ViewRequest(ViewSpan.of(view), chosen)].images[0])
        rows = rows_of_texts(chosen, sequence)
        for first, logits in teacher.chunks(tokens):
            places = np.flatnonzero(np.isin(rows[first : first + len(logits)], positions))
            with torch.inference_mode():
                answers = centre(logits[torch.from_numpy(places).to(logits.device)], teacher.masked_classes)
                parts.append(answers.log_softmax(dim=-1).cpu().numpy())
    return np.concatenate(parts)
