"""extract, stopped again and again at any place: it goes on to the same bytes, whatever draws the views."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdcache.errors import InterruptedRunError
from kdcache.pipelines.extract.stage import extract
from kdcache.store.store import Store
from tests.kits import stages
from tests.kits.stages import BLOCKS, ROWS, Stage, committed, stop_after
from tests.kits.stores import all_files

stage = stages.stage


Attempt = tuple[int, int, int]  # progress calls until it is stopped, workers, rows of a teacher batch
ATTEMPTS = st.lists(st.tuples(st.integers(1, 7), st.sampled_from([0, 1, 2]), st.sampled_from([64, 256])), max_size=3)


def stopped_again_and_again(stage: Stage, path: Path, attempts: list[Attempt]) -> None:
    """Extract as often as there are attempts, each stopped; then once more to the end."""
    for count, workers, batch_size in attempts:
        stop, progress = stop_after(count)
        try:
            extract(stage.asked(path, workers=workers, batch_size=batch_size), progress=progress, stop=stop)
        except InterruptedRunError:
            assert not (path / "kdcache/seals").exists()
    before = committed(path)
    summary = extract(stage.asked(path))
    assert (summary.blocks_done_before, summary.blocks, summary.rows) == (before, BLOCKS, 2 * ROWS)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attempts=ATTEMPTS)
def test_a_stopped_extraction_goes_on_to_the_same_bytes(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory, attempts: list[Attempt]
) -> None:
    """Whenever it is stopped and whatever draws the views: bytes depend on the teacher's batches alone."""
    path = tmp_path_factory.mktemp("resumed") / "digits.kd"
    stopped_again_and_again(stage, path, [(count, workers, 256) for count, workers, _ in attempts])
    assert all_files(path) == all_files(Path(stage.store))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attempts=ATTEMPTS)
def test_batches_of_other_sizes_change_last_bits_at_most(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory, attempts: list[Attempt]
) -> None:
    path = tmp_path_factory.mktemp("resumed") / "digits.kd"
    stopped_again_and_again(stage, path, attempts)
    found, whole, rows = Store.open(path), Store.open(stage.store), np.arange(ROWS)
    for view in whole.every_view:
        left, right = found.load(view, rows).arrays, whole.load(view, rows).arrays
        assert np.array_equal(left["pixels"], right["pixels"])
        agrees = (left["classes"] == right["classes"]).all(axis=-1)
        assert agrees.mean() > 0.99  # equal but for classes whose logits tie to the last bits
        for name in ("gaps", "label"):
            steps = np.abs(left[name].astype(np.int64) - right[name].astype(np.int64))
            assert steps[agrees].max() <= 1
        tails = [store.read(view, rows).tail * 128 for store in (found, whole)]  # arrays hold residuals
        assert np.abs(tails[0] - tails[1])[agrees].max() <= 1
