"""Struck rows in extraction: they hold the marks of the format, and all other rows are what they would be anyway."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, SampleError
from kdcache.labels.encoding import Encoding
from kdcache.networks import extract_block
from kdcache.store.manifest import Provenance
from kdcache.store.store import Store
from kdcache.views.draw import ViewDataset
from kdcache.views.reading import is_strikable
from kdcache.views.view_stack import ViewRequest
from kdcache.views.workers import draw_requests
from kdcache.whole_store.verify import inspect_files
from tests.kits.views import (
    FULL,
    TOPK,
    Mix,
    Pictures,
    Setting,
    create_store,
    extract_store,
    extractor_of,
    make_setting,
    picture_data,
    pictures,
    plan_of,
    random_teacher,
    teacher_of,
)

ROWS, VIEWS = 150, 2
STAND_IN = np.zeros((3, 17, 15), dtype=np.uint8)


class Torn(Pictures):
    """Pictures of which those at `torn` cannot be read."""

    torn: frozenset[int] = frozenset()
    error: Callable[[], BaseException] = lambda: OSError("image file is truncated")

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index in self.torn:
            raise type(self).error()
        return super().__getitem__(index)


def torn_dataset(setting: Setting, torn: set[int], *, strikes: bool = True) -> ViewDataset:
    """The setting's views, where samples `torn` cannot be read."""
    whole = pictures(len(setting.order))
    samples = Torn(whole.images, whole.labels)
    object.__setattr__(samples, "torn", frozenset(torn))
    dataset = setting.dataset
    stand_in = STAND_IN if strikes else None
    return ViewDataset(samples, dataset.order, dataset.plan, dataset.transform, dataset.contents, stand_in=stand_in)


def struck_store(path: Path, setting: Setting, torn: set[int], workers: int = 0) -> Store:
    """A sealed store of a data set of which samples `torn` cannot be read."""
    store, segment = create_store(path, setting, views=VIEWS)
    extractor, dataset = extractor_of(setting, segment), torn_dataset(setting, torn)
    requests = (request for block in range(segment.layout.blocks) for request in extractor.requests(block))
    drawn_views = draw_requests(dataset, requests, workers)
    for block in range(segment.layout.blocks):
        answer = extractor.ask(block, drawn_views)
        arrays, counts = extractor.encode(answer)
        provenance = Provenance(device="test")
        segment.commit(block, arrays=arrays, counts=counts, provenance=provenance, struck=answer.struck)
    store.seal()
    return Store.open(path)


def setting_of(mix: Mix, encoding: Encoding) -> Setting:
    teacher = random_teacher(channels=3, classes=9)
    encoding = encoding.model_copy(update={"contents": "values"})
    return make_setting(picture_data(ROWS), teacher, plan_of("light", mix, padding=2), encoding)


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
@pytest.mark.parametrize("encoding", [TOPK, FULL], ids=["topk", "full"])
def test_all_other_rows_are_those_of_whole_samples(tmp_path: Path, mix: Mix, encoding: Encoding) -> None:
    setting = setting_of(mix, encoding)
    whole = extract_store(tmp_path / "whole.kd", setting, views=VIEWS)
    torn = {3, 7, 100, int(setting.order[0]), int(setting.order[ROWS - 1])}
    store = struck_store(tmp_path / "struck.kd", setting, torn)
    struck = {position for segment in store.segments for position in segment.struck().tolist()}
    assert {int(store.order[position]) for position in struck} == torn
    assert inspect_files(str(tmp_path / "struck.kd")).findings == ()
    for view in store.every_view:
        absent = store.struck(view)
        kept = np.setdiff1d(np.arange(ROWS), absent)
        assert len(absent) == len(torn) if mix == "none" else len(torn) < len(absent) <= 2 * len(torn)
        rows, expected = store.load(view, kept), whole.load(view, kept)
        for name, values in expected.arrays.items():
            np.testing.assert_array_equal(rows.arrays[name], values, err_msg=name)
        assert not store.segment_of(view).canary(view)[absent[absent < 64]].any()
    counts = [commit.counts for commit in store.segments[0].commits().values()]
    assert sum(count.labelled for count in counts) == sum(ROWS - len(store.struck(view)) for view in store.every_view)
    contents = store.segments[0].read(0, np.arange(ROWS), ["contents"]).arrays["contents"]
    assert not contents[sorted(struck)].any()
    assert (contents != 0).sum() == ROWS - len(torn)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(torn=st.sets(st.integers(0, ROWS - 1), min_size=1), mix=st.sampled_from(["none", "mixup"]))
@pytest.mark.slow
def test_any_samples_may_be_struck(tmp_path_factory: pytest.TempPathFactory, torn: set[int], mix: Mix) -> None:
    setting, folder = setting_of(mix, TOPK), tmp_path_factory.mktemp("struck")
    store = struck_store(folder / "a.kd", setting, torn)
    assert {int(store.order[p]) for segment in store.segments for p in segment.struck()} == torn
    assert inspect_files(str(folder / "a.kd")).findings == ()


def test_a_whole_block_may_be_struck(tmp_path: Path) -> None:
    setting = setting_of("none", TOPK.model_copy(update={"class_means": True}))
    store = struck_store(tmp_path / "a.kd", setting, set(setting.order[:64].tolist()), workers=1)
    assert store.struck(0).tolist() == list(range(64))
    np.testing.assert_array_equal(store.class_means(0), 0)


class Fussy(nn.Module):
    """A network that answers NaN where a picture has no contrast, as a stand-in has none."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        spread = images[:, 0].amax(dim=(1, 2)) - images[:, 0].amin(dim=(1, 2))
        logits: Tensor = self.network(images)
        return logits * (spread / spread)[:, None]


def test_the_answer_to_a_stand_in_does_not_matter(tmp_path: Path) -> None:
    plain = setting_of("none", TOPK)
    teacher = teacher_of(Fussy(plain.teacher.network), channels=3)
    setting = replace(plain, teacher=teacher)  # of equal weights
    assert torch.isnan(
        teacher.answer(teacher.preparation(torch.full((1, 3, 17, 15), 7, dtype=torch.uint8))).logits
    ).all()
    store = struck_store(tmp_path / "a.kd", setting, {5})
    assert len(store.struck(0)) == 1


def test_too_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_block, "STRUCK_MAX", 3)
    setting = setting_of("none", TOPK)
    torn = set(setting.order[64:68].tolist())
    with pytest.raises(InvalidInputError, match=r"4 samples of block 1 cannot be read, allowed are 3 a block: sample"):
        struck_store(tmp_path / "a.kd", setting, torn)


@pytest.mark.parametrize("workers", [0, 1])
def test_without_a_stand_in_the_sample_is_named(tmp_path: Path, workers: int) -> None:
    setting = setting_of("none", TOPK)
    _, segment = create_store(tmp_path / "a.kd", setting)
    requests = extractor_of(setting, segment).requests(0)
    index = int(setting.order[20])
    with pytest.raises(SampleError, match=f"sample {index} cannot be read.*truncated") as refused:
        list(draw_requests(torn_dataset(setting, {index}, strikes=False), requests, workers))
    assert refused.value.index == index


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "too many open files"), MemoryError(), SystemExit(3)])
def test_an_error_of_the_machine_strikes_nothing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Torn, "error", lambda: error)
    setting = setting_of("none", TOPK)
    with pytest.raises((SampleError, MemoryError)) as refused:
        torn_dataset(setting, {5})[request_of(setting, 5)]
    assert not isinstance(refused.value, SampleError) or not is_strikable(refused.value)


def request_of(setting: Setting, index: int) -> ViewRequest:
    return ViewRequest(ViewSpan.of(0), np.flatnonzero(setting.order == index))
