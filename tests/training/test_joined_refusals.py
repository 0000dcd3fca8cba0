"""Stores that no loader joins: not alike, not of disjoint parts, or of samples that are others now."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.view_span import ViewSpan
from kdcache.errors import KdcacheError
from kdcache.labels.topk import TopKEncoding
from kdcache.training.joined_loader import JoinedLoader, are_of_parts, joined_parts, require_joinable
from kdcache.training.loader_options import FeedOptions, LabelOptions
from kdcache.views.data import Data
from kdcache.views.data_parts import part_of
from tests.kits import parts as division
from tests.kits.parts import PARTS, ROWS, Exchanged, Make, joined, stores_of
from tests.kits.views import (
    FULL,
    TOPK,
    extract_store,
    make_setting,
    picture_data,
    plan_of,
    random_teacher,
    teacher_of,
)

data, made = division.data, division.made


def refusal(action: Callable[[], Any]) -> str:
    with pytest.raises(KdcacheError) as error:
        action()
    return " ".join(str(error.value).split())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": [teacher_of(), random_teacher()]}, ["teacher.weights"]),
        ({"teacher": [random_teacher(), random_teacher(classes=12)]}, ["teacher.classes", "10", "12"]),
        ({"encoding": [TOPK, FULL]}, ["encoding.name", "'topk'", "'full'"]),
        ({"encoding": [TOPK, TopKEncoding(k=4)]}, ["encoding.k", "3", "4"]),
        ({"plan": [plan_of(), plan_of(padding=2)]}, ["views.transform", "padding"]),
        ({"plan": [plan_of(), plan_of(mix="mixup")]}, ["views.mix"]),
        ({"plan": [plan_of(seed=5), plan_of(seed=6)]}, ["views.seed", "5", "6"]),
    ],
    ids=["teacher", "classes", "encoding", "k", "transform", "mix", "seed"],
)
def test_stores_that_are_not_alike(data: Data, tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    stores = stores_of(tmp_path, data, **changes)
    message = refusal(lambda: joined(data, stores))
    assert all(word in message for word in ["part 0.kd", "part 1.kd", *words]), message


def test_top_k_makes_them_alike(data: Data, tmp_path: Path) -> None:
    stores = stores_of(tmp_path, data, encoding=[TOPK, TopKEncoding(k=4)])
    require_joinable(stores, None, 2)
    parts, labels = joined_parts(stores, data, ""), LabelOptions(top_k=2)
    for batch in JoinedLoader(data, stores, parts=parts, batch_size=32, epochs=1, labels=labels):
        assert batch.teachers[0].k == 2


def test_other_orders_and_views(data: Data, tmp_path: Path) -> None:
    """Each store may have an order of its own; views must be those that all have."""
    stores = stores_of(tmp_path, data, order_seed=[3, 11])
    assert sum(len(batch.positions) for batch in joined(data, stores, epochs=1)) == ROWS
    other = stores_of(tmp_path / "other", data, (PARTS[1],), views=1)[0]
    message = refusal(lambda: require_joinable([stores[0], other], None))
    assert "0:2" in message
    assert "0:1" in message
    assert "--views" in message
    require_joinable([stores[0], other], ViewSpan(0, 1))


def test_a_part_that_changed_is_named(data: Data, made: Make) -> None:
    stores, index = made(), int(PARTS[1][4])
    exchanged = replace(data, samples=Exchanged(data, index))
    message = refusal(lambda: joined_parts(stores, exchanged, ""))
    assert "part 1.kd" in message
    assert "part 0.kd" not in message.replace("no other", "")
    labels = data.labels.copy()
    labels[index] = (labels[index] + 1) % 10
    assert "part 1.kd" in refusal(lambda: joined_parts(stores, replace(data, labels=labels), ""))
    renamed = replace(data, ids=[f"{name}b" if number == index else name for number, name in enumerate(data.ids)])
    assert "part 1.kd" in refusal(lambda: joined_parts(stores, renamed, ""))
    other_names = replace(data, class_names=(*data.class_names[:-1], "another"))
    parts = joined_parts(stores, other_names, "")
    message = refusal(lambda: JoinedLoader(other_names, stores, parts=parts, batch_size=32, epochs=1))
    assert "class_names" in message


def test_samples_in_no_store_and_samples_in_two(data: Data, tmp_path: Path) -> None:
    stores = stores_of(tmp_path, data, (PARTS[0], PARTS[1][:10], np.union1d(PARTS[1][5:], [1, 2])))
    message = refusal(lambda: joined_parts(stores[:2], data, "--data digits"))
    assert all(word in message for word in ("3 of 150", "133, 148, 149", "--write-new", "rows=new.txt")), message
    message = refusal(lambda: joined_parts([stores[0], stores[2]], data, ""))
    assert all(word in message for word in ("2 of the 10 samples", "part 2.kd", "1, 2")), message
    assert all(word in refusal(lambda: joined_parts(stores, data, "")) for word in ("part 2.kd", "1, 2"))


def test_an_ensemble_is_of_no_parts(data: Data, made: Make, tmp_path: Path) -> None:
    same = stores_of(tmp_path, data, (PARTS[0], PARTS[0]), teacher=[teacher_of(), random_teacher()])
    assert not are_of_parts(same)
    assert not are_of_parts(made()[:1])
    assert not are_of_parts([])
    assert are_of_parts(made())
    message = refusal(lambda: require_joinable([*same, made()[1]], None))
    assert all(word in message for word in ("part 0.kd", "part 1.kd", "same samples"))


def test_stores_without_contents(data: Data, tmp_path: Path) -> None:
    settings = [make_setting(part_of(data, part), teacher_of(), plan_of()) for part in PARTS]
    stores = [extract_store(tmp_path / f"{number}.kd", setting) for number, setting in enumerate(settings)]
    message = refusal(lambda: joined_parts(stores, data, ""))
    assert "0.kd keeps no fingerprints of its samples" in message


def test_what_does_not_work_together(data: Data, made: Make) -> None:
    stores = made()
    parts = joined_parts(stores, data, "")

    def loader(**options: Any) -> JoinedLoader:
        return JoinedLoader(data, stores, parts=parts, batch_size=32, epochs=1, **options)

    message = refusal(lambda: loader(feed=FeedOptions(rank=0, world_size=2)))
    assert "2 processes" in message
    assert "torchrun" in message
    message = refusal(lambda: loader(labels=LabelOptions(class_means=True)))
    assert "class-mean" in message
    message = refusal(lambda: loader(labels=LabelOptions(memory_bytes=3000)))
    assert "--memory-gb" in message


def test_views_of_two_sizes(tmp_path: Path) -> None:
    """`none` draws a picture as it is: parts may be of other sizes, which no batch can hold."""
    small, large = picture_data(64), picture_data(64)

    class Both:
        def __len__(self) -> int:
            return 128

        def __getitem__(self, index: int) -> tuple[Any, int]:
            image, label = (small if index < 64 else large).samples[index % 64]
            return (image if index < 64 else image.repeat(1, 2, 1) ^ 1), label

    from kdcache.views.data import describe_samples

    data = describe_samples(Both(), "both")
    teacher = random_teacher(channels=3, classes=4)
    stores = stores_of(tmp_path, data, (np.arange(64), np.arange(64, 128)), teacher=teacher, plan=plan_of("none"))
    loader = JoinedLoader(data, stores, parts=joined_parts(stores, data, ""), batch_size=32, epochs=1)
    message = refusal(lambda: list(loader))
    assert "[3, 17, 15]" in message
    assert "[3, 34, 15]" in message
