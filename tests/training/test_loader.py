"""loader: the stores' soft labels beside the very views they are of, dealt the same way whoever asks, or a refusal."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError, MismatchError, MissingBlockError, ReplayError
from kdcache.labels.encoding import Encoding
from kdcache.labels.full import FullLabels
from kdcache.labels.soft_labels import SoftLabels
from kdcache.labels.topk import TopKEncoding
from kdcache.objectives.batch import Batch
from kdcache.store.manifest import Provenance
from kdcache.store.plan import key_word, partners_of
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.views.data import Data
from kdcache.views.transforms import build_transform
from tests.kits.batches import batches_left
from tests.kits.views import (
    FULL,
    TOPK,
    Mix,
    altered,
    create_store,
    digits,
    drifted,
    extract_store,
    extracted,
    extractor_of,
    make_setting,
    negative,
    plan_of,
    random_teacher,
    teacher_of,
)

ROWS = 200  # blocks of 64: three whole ones and a ragged one of 8
Make = Callable[..., Store]


@pytest.fixture(scope="module")
def data() -> Data:
    return digits(ROWS)


@pytest.fixture(scope="module")
def store_of(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Stores by (encoding, mixing), extracted once."""
    made: dict[Any, Store] = {}

    def make(encoding: Encoding = TOPK, mix: Mix = "none") -> Store:
        key = encoding, mix
        if key not in made:
            folder = tmp_path_factory.mktemp("stores") / "teacher.kd"
            made[key] = extract_store(folder, make_setting(data, teacher_of(), plan_of(mix=mix), encoding))
        return made[key]

    return make


def require_equal_labels(found: SoftLabels, expected: SoftLabels) -> None:
    assert type(found) is type(expected)
    for name, value in vars(expected.to()).items():
        given = vars(found)[name]
        if isinstance(value, Tensor):
            assert torch.equal(torch.nan_to_num(given, 7.0), torch.nan_to_num(value, 7.0)), name
        else:
            assert given == value, name


def rows_of(batches: list[Batch]) -> list[tuple[int, int, int, tuple[int, ...]]]:
    return [(batch.epoch, batch.step, batch.view, tuple(batch.positions.tolist())) for batch in batches]


@pytest.mark.parametrize("encoding", [TOPK, FULL], ids=["topk", "full"])
@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
def test_batches_hold_what_the_store_says_of_their_rows(
    data: Data, store_of: Make, encoding: Encoding, mix: Mix
) -> None:
    store = store_of(encoding, mix)
    labels = torch.from_numpy(data.labels[store.order].astype(np.int64))
    batches = list(batches_left(Loader(data, [store], batch_size=32, epochs=3)))
    assert [batch.view for batch in batches if batch.step == 0] == [0, 1, 0]
    for epoch in range(3):
        dealt = torch.cat([batch.positions for batch in batches if batch.epoch == epoch])
        assert sorted(dealt.tolist()) == list(range(ROWS))
    for batch in batches:
        positions = batch.positions.numpy()
        assert (batch.images.dtype, batch.images.shape[1:]) == (torch.float32, (1, 8, 8))
        require_equal_labels(batch.teachers[0], store.read(batch.view, positions))
        assert torch.equal(batch.y, labels[positions])
        partners = partners_of(store.identity.plan, positions, batch.view, ROWS)
        if mix == "none":
            assert (batch.y2, batch.lam) == (None, None)
        else:
            assert batch.y2 is not None
            assert batch.lam is not None
            assert torch.equal(batch.y2, labels[partners])
            assert (batch.lam.dtype, batch.lam.shape) == (torch.float32, batch.y.shape)
            assert bool((batch.lam[torch.from_numpy(partners == positions)] == 1).all())


@pytest.mark.parametrize("mix", ["none", "cutmix"])
def test_a_small_memory_gives_the_same_rows_in_windows(data: Data, store_of: Make, mix: Mix) -> None:
    store = store_of(TOPK, mix)
    whole = {
        (batch.epoch, position): (batch.images[row], batch.teachers[0].logits[row])
        for batch in batches_left(Loader(data, [store], batch_size=32, epochs=2))
        for row, position in enumerate(batch.positions.tolist())
    }
    loader = Loader(data, [store], batch_size=32, epochs=2, labels=LabelOptions(memory_bytes=3000))
    assert len(loader.batch_order.windows(0)) == 4
    batches = list(batches_left(loader))
    for batch in batches:
        assert len({position // 64 for position in batch.positions.tolist()}) == 1
        for row, position in enumerate(batch.positions.tolist()):
            image, logits = whole.pop((batch.epoch, position))
            assert torch.equal(batch.images[row], image)
            assert torch.equal(batch.teachers[0].logits[row], logits)
    assert not whole
    assert [batch.step for batch in batches] == 2 * list(range(loader.steps(0)))


@pytest.mark.parametrize("memory", [3000, 4_000_000_000])
@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 3), (1, 0), (1, 6), (2, 1), (3, 0)])
def test_a_run_resumes_with_exactly_the_remaining_batches(
    data: Data, store_of: Make, memory: int, epoch: int, step: int
) -> None:
    labels = LabelOptions(memory_bytes=memory)
    options: dict[str, Any] = {"batch_size": 32, "epochs": 3, "seed": 4, "labels": labels}
    every = list(batches_left(Loader(data, [store_of(TOPK, "mixup")], **options)))
    loader = Loader(data, [store_of(TOPK, "mixup")], **options)
    loader.load_state_dict(loader.state_dict() | {"epoch": epoch, "step": step})
    rest = list(batches_left(loader))
    expected = [batch for batch in every if (batch.epoch, batch.step) >= (epoch, step)]
    assert rows_of(rest) == rows_of(expected)
    for found, wanted in zip(rest, expected, strict=True):
        assert torch.equal(found.images, wanted.images)
        require_equal_labels(found.teachers[0], wanted.teachers[0])


def test_workers_change_nothing(data: Data, store_of: Make) -> None:
    options: dict[str, Any] = {"stores": [store_of(TOPK, "cutmix")], "batch_size": 50, "epochs": 1}
    alone, helped = list(Loader(data, **options)), list(Loader(data, feed=FeedOptions(workers=2), **options))
    assert rows_of(alone) == rows_of(helped)
    assert all(torch.equal(a.images, b.images) for a, b in zip(alone, helped, strict=True))


def test_a_subset_of_positions_gets_its_own_rows(data: Data, store_of: Make) -> None:
    store, chosen = store_of(FULL, "mixup"), np.array([190, 3, 77, 5, 64, 130, 4])
    batches = list(Loader(data, [store], batch_size=4, epochs=1, positions=chosen))
    assert sorted(torch.cat([batch.positions for batch in batches]).tolist()) == sorted(chosen.tolist())
    for batch in batches:
        require_equal_labels(batch.teachers[0], store.read(0, batch.positions.numpy()))


@pytest.mark.parametrize("positions", [[], [0, 0], [-1, 2], [5, ROWS]])
def test_positions_that_are_not_are_refused(data: Data, positions: list[int]) -> None:
    with pytest.raises(InvalidInputError, match="positions 0 to 199 once"):
        Loader(data, batch_size=4, epochs=1, positions=np.array(positions, dtype=np.int64))


def test_a_smaller_k_and_features(data: Data, tmp_path: Path) -> None:
    setting = make_setting(data, teacher_of(), plan_of(), TopKEncoding(k=4, features=16))
    store = extract_store(tmp_path / "a.kd", setting)
    for batch in Loader(data, [store], batch_size=64, epochs=1, labels=LabelOptions(top_k=2, features=True)):
        positions = batch.positions.numpy()
        require_equal_labels(batch.teachers[0], store.read(0, positions).prefix(2))
        stored = store.load(0, positions, features=True).arrays["features"]
        assert torch.equal(batch.features[0], torch.from_numpy(stored))


def test_an_ensemble_gives_each_store_s_word(data: Data, store_of: Make, tmp_path: Path) -> None:
    first = store_of(TOPK)
    second = extract_store(tmp_path / "b.kd", make_setting(data, random_teacher(), plan_of(), FULL), views=3)
    batches = list(batches_left(Loader(data, [first, second], batch_size=64, epochs=4)))
    assert {batch.view for batch in batches} == {0, 1}  # what they have in common
    for batch in batches:
        assert isinstance(batch.teachers[1], FullLabels)
        for store, soft in zip((first, second), batch.teachers, strict=True):
            require_equal_labels(soft, store.read(batch.view, batch.positions.numpy()))


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_another_picture_stops_the_first_batch_whatever_is_accepted(
    data: Data, store_of: Make, mix: Mix, accept: bool
) -> None:
    options: dict[str, Any] = {"views": ViewSpan.of(1), "labels": LabelOptions(accept_drift=accept)}
    loader = Loader(altered(data, negative), [store_of(TOPK, mix)], batch_size=16, epochs=2, **options)
    with pytest.raises(ReplayError, match=r"view 1 of position \d+ \(sample \d+\).*another picture.*64 differ"):
        next(iter(loader))


def test_drift_is_named_refused_and_accepted_by_flag(data: Data, store_of: Make) -> None:
    options: dict[str, Any] = {"stores": [store_of()], "batch_size": 64, "epochs": 2}
    with pytest.raises(ReplayError, match=r"view 0 of position .*: drift, .* by [12]\.\d of 255.*--accept-drift"):
        next(iter(Loader(altered(data, drifted), **options)))
    accepting = LabelOptions(accept_drift=True)
    loader = Loader(altered(data, drifted), labels=accepting, **options)
    assert len(list(batches_left(loader))) == 2 * len(loader)
    assert loader.drift is not None
    assert loader.drift.grade == "drift"
    assert 0 < loader.drift.levels <= 2
    honest = Loader(data, labels=accepting, **options)
    list(batches_left(honest))
    assert honest.drift is None


@pytest.mark.parametrize("accept", [False, True])
def test_one_changed_sample_is_told_from_drift(data: Data, store_of: Make, accept: bool) -> None:
    store = store_of()
    other = int(store.order[150])  # not among the canary's rows

    def change(image: Tensor, index: int) -> Tensor:
        return negative(image, index) if index == other else image

    labels = LabelOptions(accept_drift=accept)
    loader = Loader(altered(data, change), [store], batch_size=ROWS, epochs=1, labels=labels)
    with pytest.raises(ReplayError, match=rf"position 150 \(sample {other}\).*replays exactly.*restore its file"):
        next(iter(loader))


def test_drift_accepted_in_one_view_excuses_no_other(data: Data, store_of: Make) -> None:
    store = store_of()
    seed, light = store.identity.plan.seed, build_transform("light", {})[0]
    second = {key_word(seed, index, 1, "torch") & 0x7FFF_FFFF_FFFF_FFFF for index in range(ROWS)}

    def transform(image: Tensor) -> Tensor:
        return negative(image, 0) if torch.initial_seed() in second else light(drifted(image, 0))

    labels, feed = LabelOptions(accept_drift=True), FeedOptions(transform=transform)
    loader = Loader(data, [store], batch_size=ROWS, epochs=2, labels=labels, feed=feed)
    assert next(iter(loader)).view == 0
    with pytest.raises(ReplayError, match=r"view 1 of position .*another picture"):
        next(iter(loader))


def test_another_data_set_is_refused_before_the_first_batch(data: Data, store_of: Make) -> None:
    with pytest.raises(MismatchError, match=r"dataset\.rows: the store has 200, this run has 190"):
        Loader(digits(190), [store_of()], batch_size=8, epochs=1)
    moved = replace(data, labels=np.roll(data.labels, 1))
    with pytest.raises(MismatchError, match=r"dataset\.labels"):
        Loader(moved, [store_of()], batch_size=8, epochs=1)


def test_stores_that_do_not_belong_together_are_refused(data: Data, store_of: Make, tmp_path: Path) -> None:
    first = store_of()

    def other(name: str, plan_seed: int = 5, order_seed: int = 3, classes: int = 10) -> Store:
        teacher = random_teacher(classes=classes)
        setting = make_setting(data, teacher, plan_of(seed=plan_seed), order_seed=order_seed)
        return create_store(tmp_path / name, setting)[0]

    for name, error, options in [
        ("order.sha256", MismatchError, {"order_seed": 4}),
        ("views.seed: the store has 5, this run has 6", MismatchError, {"plan_seed": 6}),
        ("has 12 classes, not 10", InvalidInputError, {"classes": 12}),
    ]:
        with pytest.raises(error, match=name):
            Loader(data, [first, other(f"{name[:5]}.kd", **options)], batch_size=8, epochs=1)


def test_views_that_are_not_there_are_refused(data: Data, store_of: Make) -> None:
    with pytest.raises(
        InvalidInputError, match=r"views 0:6 were asked for; the stores have \[0, 1\] in common, not \[2, 3"
    ):
        Loader(data, [store_of()], batch_size=8, epochs=1, views=ViewSpan(0, 6))


def test_a_block_without_a_commit_is_refused_never_zeros(data: Data, tmp_path: Path) -> None:
    setting = make_setting(data, teacher_of(), plan_of())
    store, segment = create_store(tmp_path / "a.kd", setting)
    for block, arrays, counts in extracted(extractor_of(setting, segment), setting.dataset):
        if block != 2:
            segment.commit(block, arrays=arrays, counts=counts, provenance=Provenance(device="test"))
    with pytest.raises(MissingBlockError, match=r"positions 128 to 191 \(block 2\) are not committed"):
        next(iter(Loader(data, [store], batch_size=8, epochs=1)))
    there = np.setdiff1d(np.arange(ROWS), np.arange(128, 192))
    assert sum(len(b.positions) for b in Loader(data, [store], batch_size=8, epochs=1, positions=there)) == 136


def test_a_transform_that_only_the_store_names_is_not_imported(data: Data, tmp_path: Path) -> None:
    plan = plan_of("os:abort")
    store = extract_store(tmp_path / "a.kd", make_setting(data, teacher_of(), plan, transform=v2.Identity()), views=1)
    with pytest.raises(InvalidInputError, match="drawn by os:abort, a transform of the user's own"):
        Loader(data, [store], batch_size=8, epochs=1)
    feed = FeedOptions(transform=v2.Identity())
    assert next(iter(Loader(data, [store], batch_size=8, epochs=1, feed=feed))).view == 0
