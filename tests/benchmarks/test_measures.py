"""The measures of rows against the student's forward passes over the same rows: less than a fifth of their CPU time."""

import time

import numpy as np
import pytest
import torch

from kdcache.measures.catalogue import ROW_MEASURES
from kdcache.measures.tally import Tally
from kdcache.networks.small import convnet
from tests.kits.measures import full_teacher, random_case, topk_teacher

ROWS, BATCH = 2048, 256
LIMIT = 0.2  # .01 at C = 10, .05 at C = 100 and .02 at C = 1000 were measured over 10,000 rows, on one core


@pytest.mark.parametrize(("classes", "side"), [(10, 28), (100, 32), (1000, 64)])
def test_measures_cost_less_than_a_fifth_of_the_forward_passes(classes: int, side: int) -> None:
    """A convnet of two stages and 16 channels; all measures of rows, from full and from top-10 soft labels."""
    case = random_case(ROWS, classes)
    teacher = case.teacher.astype(np.float32)
    network, images = convnet(num_classes=classes).eval(), torch.zeros(BATCH, 1, side, side)
    with torch.no_grad():
        network(images)
        start = time.process_time()
        for _ in range(2):
            network(images)
        forward = (time.process_time() - start) / 2 * ROWS / BATCH
    for soft in (full_teacher(teacher), topk_teacher(teacher, min(10, classes - 1))):
        batches = [
            (case.logits[rows].float(), soft.take(rows.numpy()), case.hard[rows], case.baseline[rows])
            for rows in torch.arange(ROWS).split(BATCH)
        ]
        Tally().update(*batches[0][:3], baseline=batches[0][3])
        tally = Tally()
        start = time.process_time()
        for logits, labels, hard, baseline in batches:
            tally.update(logits, labels, hard, baseline=baseline)
        values = tally.result()
        seconds = time.process_time() - start
        assert values.keys() == ROW_MEASURES.keys()
        assert seconds < LIMIT * forward, f"{seconds:.3f} s of {forward:.3f} s"
