"""replay: the canary tells equal from a few levels off, and both from another picture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from torch import Tensor

from kdcache.base.view_span import ViewSpan
from kdcache.errors import ReplayError
from kdcache.store.manifest import Provenance
from kdcache.store.store import Store
from kdcache.views.data import Data
from kdcache.views.draw import DrawnRows, ViewDataset
from kdcache.views.replay import (
    DRIFT_LEVELS,
    ExcusedDrift,
    Grade,
    ReplayCheck,
    ReplayGrade,
    grade_replay,
    require_replay,
)
from kdcache.views.transforms import build_transform
from kdcache.views.view_stack import ViewRequest
from tests.kits.views import altered, digits, drifted, extract_store, make_setting, negative, plan_of, teacher_of

ROWS = 130


@pytest.fixture(scope="module")
def data() -> Data:
    return digits(ROWS)


@pytest.fixture(scope="module")
def store(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Store:
    setting = make_setting(data, teacher_of(), plan_of(mix="mixup"))
    return extract_store(tmp_path_factory.mktemp("replay") / "a.kd", setting)


def views_of(store: Store, data: Data, name: str = "light") -> ViewDataset:
    return ViewDataset(data.samples, store.order, store.identity.plan, build_transform(name, {})[0])


def lighter(levels: int) -> Callable[[Tensor, int], Tensor]:
    def change(image: Tensor, index: int) -> Tensor:
        return torch.where(image > 200, image - levels, image + levels)  # 0..240, so nothing is clamped

    return change


@pytest.mark.parametrize(
    ("change", "grade"),
    [
        (None, "equal"),
        (drifted, "drift"),
        (lighter(3), "drift"),
        (lighter(20), "another picture"),
        (negative, "another picture"),
        (lambda image, index: image.flip(2), "another picture"),
    ],
)
@pytest.mark.parametrize("view", [0, 1])
def test_grades(
    store: Store, data: Data, change: Callable[[Tensor, int], Tensor] | None, grade: Grade, view: int
) -> None:
    found = grade_replay(store, views_of(store, data if change is None else altered(data, change)), view)
    assert (found.grade, found.rows) == (grade, 64)
    if grade == "equal":
        assert (found.levels, found.differing) == (0, 0)
    else:
        assert found.differing >= 62  # a byte of a hash agrees by chance once in 256
        assert (found.levels <= DRIFT_LEVELS) == (grade == "drift")


def test_one_other_picture_among_the_canary_decides(store: Store, data: Data) -> None:
    victim = int(store.order[5])
    changed = altered(data, lambda image, index: negative(image, index) if index == victim else image)
    found = grade_replay(store, views_of(store, changed), 0)
    assert (found.grade, found.differing) == ("another picture", 1)


def test_another_transform_is_another_picture(store: Store, data: Data) -> None:
    assert grade_replay(store, views_of(store, data, "none"), 0).grade == "another picture"


def test_another_view_is_another_picture(store: Store, data: Data) -> None:
    plan = store.identity.plan.model_copy(update={"seed": 99})
    other = ViewDataset(data.samples, store.order, plan, build_transform("light", {})[0])
    assert grade_replay(store, other, 0).grade == "another picture"


@pytest.mark.parametrize(
    ("change", "accept", "message"),
    [
        (negative, True, r"view 1 of position 9 \(sample \d+\) is not the view the teacher saw: another picture"),
        (negative, False, "other pictures, or another transform: use the data set and transform the store was made"),
        (drifted, False, r"drift, of 64 canary rows 6\d differ, the worst by [12]\.\d of 255.*--accept-drift"),
        (None, True, "the canary replays exactly, so it is this sample that changed: restore its file"),
    ],
)
def test_refusals_say_where_how_far_and_what_to_do(
    store: Store, data: Data, change: Callable[[Tensor, int], Tensor] | None, accept: bool, message: str
) -> None:
    dataset = views_of(store, data if change is None else altered(data, change))
    with pytest.raises(ReplayError, match=message):
        require_replay(store, dataset, view=1, position=9, accept_drift=accept)


def test_drift_is_accepted_by_flag_and_reported(store: Store, data: Data) -> None:
    found = require_replay(store, views_of(store, altered(data, drifted)), view=0, position=3, accept_drift=True)
    assert (found.grade, found.rows) == ("drift", 64)
    assert 0 < found.levels <= 2


def test_versions_that_differ_are_named(data: Data, tmp_path: Path) -> None:
    setting = make_setting(data, teacher_of(), plan_of())
    store = extract_store(tmp_path / "a.kd", setting, views=1)
    there = Provenance(versions={"pillow": "9.9.9"}, cpu_capability="ABACUS", decoder="Pillow 9.9.9")
    foreign = committed_by(store, there)
    found = grade_replay(foreign, views_of(store, data), 0)
    assert any(line.startswith("pillow 9.9.9 there, ") for line in found.versions)
    assert any(line.startswith("CPU capability ABACUS there, ") for line in found.versions)
    assert f"decoder Pillow 9.9.9 there, Pillow {PIL.__version__} here" in found.versions
    with pytest.raises(ReplayError, match=r"versions that differ: .*pillow 9\.9\.9 there"):
        require_replay(foreign, views_of(store, altered(data, negative)), view=0, position=0, accept_drift=False)


def committed_by(store: Store, there: Provenance) -> Store:
    """The store as it lies there now, block 0 committed by another pass than the first."""
    layout = store.segments[0].layout
    commit = store.segments[0].commits()[0].model_copy(update={"provenance": there})
    store.folder.replace(layout.commit_key(0), commit.to_bytes())
    return Store.open_for_writing(store.folder.root)


def test_a_decoder_of_the_data_set_s_own_is_not_compared(data: Data, tmp_path: Path) -> None:
    store = extract_store(tmp_path / "a.kd", make_setting(data, teacher_of(), plan_of()), views=1)
    found = grade_replay(committed_by(store, Provenance(decoder="none")), views_of(store, data), 0)
    assert not any(line.startswith("decoder") for line in found.versions)


def test_a_store_smaller_than_the_canary(tmp_path: Path) -> None:
    data = digits(11)
    store = extract_store(tmp_path / "a.kd", make_setting(data, teacher_of(), plan_of(mix="cutmix")), views=1)
    assert grade_replay(store, views_of(store, data), 0).rows == 11
    assert np.array_equal(store.segments[0].canary(0).shape, (11, 3, 8, 8))


def test_accepted_drift_goes_on_as_the_canary_showed_it_and_no_further() -> None:
    """One canary row in 64 is off; then half of all rows are: other pictures came in under the excuse."""
    excused = ExcusedDrift(ReplayGrade("drift", 2.0, rows=64, differing=1, versions=()))
    for _ in range(20):
        excused.count(64, 4, view=3)
    excused.count(64, 64, view=3)
    with pytest.raises(ReplayError, match=r"in view 3 .* restore them"):
        excused.count(640, 320, view=3)


def test_where_every_canary_row_drifts_every_row_may() -> None:
    excused = ExcusedDrift(ReplayGrade("drift", 2.0, rows=64, differing=64, versions=()))
    for _ in range(20):
        excused.count(64, 64, view=0)


def test_a_check_judges_drift_once_a_store_and_view(store: Store, data: Data) -> None:
    dataset = views_of(store, altered(data, drifted))
    check = ReplayCheck([store, store], dataset, range(ROWS), accept_drift=True)
    positions = np.array([70, 3, 9])
    drawn = dataset[ViewRequest(ViewSpan.of(1), positions)].pixels[0]
    stored = store.load(1, positions).arrays["pixels"]
    assert (drawn != stored).any()
    check.compare(0, 1, DrawnRows(positions, stored, {}), stored)
    assert check.drift is None
    check.compare(0, 1, DrawnRows(positions, drawn, {}), stored)
    assert check.drift is not None
    assert (check.drift.grade, check.drift.rows) == ("drift", 64)
    strict = ReplayCheck([store], dataset, range(ROWS), accept_drift=False)
    with pytest.raises(ReplayError, match=r"view 1 of position \d+ .* is not the view the teacher saw: drift"):
        strict.compare(0, 1, DrawnRows(positions, drawn, {}), stored)
    honest = ReplayCheck([store], views_of(store, data), range(ROWS), accept_drift=True)
    other = stored ^ np.array([1, 0, 0], dtype=np.uint8)
    with pytest.raises(ReplayError, match=r"position 70 .*the canary replays exactly"):
        honest.compare(0, 1, DrawnRows(positions, other, {}), stored)
    assert honest.drift is None
