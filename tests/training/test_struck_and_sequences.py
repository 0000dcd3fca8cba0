"""The loader leaves struck rows out of its epochs, and drift of either is judged by what there is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, ReplayError
from kdcache.store.manifest import Provenance
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.training.loader_options import LabelOptions
from kdcache.views.data import Data
from kdcache.views.draw import DrawnRows
from kdcache.views.replay import ReplayCheck, grade_replay
from tests.kits.batches import batches_left
from tests.kits.stores import make_case, write_store
from tests.kits.views import (
    Mix,
    Setting,
    altered,
    create_store,
    digits,
    drifted,
    extracted,
    extractor_of,
    make_setting,
    plan_of,
    teacher_of,
)

ROWS, STRUCK = 200, (3, 70, 90, 199)


def struck_store(path: Path, setting: Setting, struck: tuple[int, ...] = STRUCK) -> Store:
    """A sealed store of two views; what the extractor answers for struck samples is overwritten."""
    store, segment = create_store(path, setting)
    for block, arrays, counts in extracted(extractor_of(setting, segment), setting.dataset):
        positions = range(*segment.layout.block_rows(block))
        strikes = [position for position in struck if position in positions]
        segment.commit(block, arrays=arrays, counts=counts, provenance=Provenance(), struck=strikes)
    store.seal()
    return Store.open(path)


@pytest.fixture(scope="module")
def data() -> Data:
    return digits(ROWS)


@pytest.mark.parametrize("memory", [3000, 4_000_000_000])
@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_epochs_hold_the_rows_with_an_answer_in_every_view(tmp_path: Path, data: Data, mix: Mix, memory: int) -> None:
    store = struck_store(tmp_path / "a.kd", make_setting(data, teacher_of(), plan_of(mix=mix)))
    struck = np.union1d(store.struck(0), store.struck(1))
    assert len(struck) == (4 if mix == "none" else 12)
    loader = Loader(data, [store], batch_size=32, epochs=2, labels=LabelOptions(memory_bytes=memory))
    batches = list(batches_left(loader))
    for epoch in (0, 1):
        dealt = torch.cat([batch.positions for batch in batches if batch.epoch == epoch])
        assert sorted(dealt.tolist()) == np.setdiff1d(np.arange(ROWS), struck).tolist()
    for batch in batches:
        assert torch.equal(batch.teachers[0].logits, store.read(batch.view, batch.positions.numpy()).to().logits)
    one = Loader(data, [store], batch_size=32, epochs=1, views=ViewSpan(1, 2), positions=np.arange(60, 100))
    dealt = torch.cat([batch.positions for batch in one])
    assert sorted(dealt.tolist()) == np.setdiff1d(np.arange(60, 100), store.struck(1)).tolist()


def test_an_ensemble_leaves_out_what_one_store_strikes(tmp_path: Path, data: Data) -> None:
    setting = make_setting(data, teacher_of(), plan_of())
    stores = [struck_store(tmp_path / f"{row}.kd", setting, (row,)) for row in (3, 150)]
    dealt = torch.cat([batch.positions for batch in Loader(data, stores, batch_size=32, epochs=1)])
    assert sorted(dealt.tolist()) == np.setdiff1d(np.arange(ROWS), (3, 150)).tolist()
    with pytest.raises(InvalidInputError, match=r"all 2 positions are struck in some view"):
        Loader(data, stores, batch_size=32, epochs=1, positions=np.array([3, 150]))


def test_the_canary_is_judged_without_them(tmp_path: Path, data: Data) -> None:
    setting = make_setting(data, teacher_of(), plan_of())
    store = struck_store(tmp_path / "a.kd", setting)
    found = grade_replay(store, setting.dataset, 0)
    assert (found.grade, found.rows, found.differing) == ("equal", 63, 0)
    other = make_setting(altered(data, drifted), teacher_of(), plan_of()).dataset
    assert (grade_replay(store, other, 0).grade, grade_replay(store, other, 0).rows) == ("drift", 63)
    none = struck_store(tmp_path / "b.kd", setting, tuple(range(64)))
    with pytest.raises(ReplayError, match=r"all canary rows of view 0 are struck: no drift can be judged"):
        grade_replay(none, setting.dataset, 0)


def test_no_drift_of_texts_is_accepted(tmp_path: Path, data: Data) -> None:
    store = write_store(tmp_path / "a.kd", make_case(192, sequence=8))
    dataset = make_setting(data, teacher_of(), plan_of()).dataset
    with pytest.raises(InvalidInputError, match=r"drift was accepted for .*a\.kd, which holds texts"):
        ReplayCheck([store], dataset, range(192), accept_drift=True)
    check = ReplayCheck([store], dataset, range(192), accept_drift=False)
    positions, pixels = np.array([8, 9]), store.load(0, [8, 9]).arrays["pixels"]
    check.compare(0, 0, DrawnRows(positions, pixels, {}), pixels)
    other = pixels ^ np.array([0, 1], dtype=np.uint8)
    with pytest.raises(ReplayError, match=r"position 9 of view 0 is not the token that the teacher read"):
        check.compare(0, 0, DrawnRows(positions, other, {}), pixels)
