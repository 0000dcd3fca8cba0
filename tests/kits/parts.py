"""Stores of two disjoint parts of a data set of digits, for the tests of loaders that join them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.base.arrays import IntArray
from kdcache.labels.encoding import Encoding
from kdcache.networks.teacher import Teacher
from kdcache.store.plan import ViewPlan
from kdcache.store.store import Store
from kdcache.training.joined_loader import JoinedLoader, joined_parts, require_joinable
from kdcache.views.contents import contents_of
from kdcache.views.data import Data
from kdcache.views.data_parts import part_of
from tests.kits.views import (
    TOPK,
    Mix,
    digits,
    extract_store,
    make_setting,
    plan_of,
    teacher_of,
)

ROWS = 150
NEW = np.array([0, 7, 8, 31, 64, 65, 66, 90, 118, 133, 148, 149, 20])  # not in order: a list may be in any
PARTS = (np.setdiff1d(np.arange(ROWS), NEW), np.sort(NEW))
Make = Callable[..., list[Store]]


@pytest.fixture(scope="module")
def data() -> Data:
    return digits(ROWS)


def keeping(encoding: Encoding, data: Data) -> Encoding:
    """The encoding with the contents that the data set gives."""
    return encoding.model_copy(update={"contents": contents_of(data.samples)})


def stores_of(
    folder: Path, data: Data, parts: tuple[IntArray, ...] = PARTS, *, views: int = 2, **changes: Any
) -> list[Store]:
    """A store of each part; `changes` are a teacher, plan, encoding or order_seed of all, or a list of one a part."""
    stores = []
    for number, part in enumerate(parts):
        given = {name: value[number] if isinstance(value, list) else value for name, value in changes.items()}
        teacher: Teacher = given.pop("teacher", teacher_of())
        plan: ViewPlan = given.pop("plan", plan_of())
        encoding = keeping(given.pop("encoding", TOPK), data)
        setting = make_setting(part_of(data, part), teacher, plan, encoding, **given)
        stores.append(extract_store(folder / f"part {number}.kd", setting, views=views))
    return stores


@pytest.fixture(scope="module")
def made(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The two parts' stores by (encoding, mixing), extracted once."""
    kept: dict[Any, list[Store]] = {}

    def make(encoding: Encoding = TOPK, mix: Mix = "none") -> list[Store]:
        if (encoding, mix) not in kept:
            folder = tmp_path_factory.mktemp("stores")
            kept[encoding, mix] = stores_of(folder, data, encoding=encoding, plan=plan_of(mix=mix))
        return kept[encoding, mix]

    return make


class Exchanged:
    """The samples of a data set, one of which is another picture now."""

    def __init__(self, data: Data, index: int) -> None:
        self.samples, self.index = data.samples, index

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self.samples[index]
        return (255 - image if index == self.index else image), label

    def content(self, index: int) -> bytes:
        content: bytes = self.samples.content(index)  # type: ignore[attr-defined]
        return content[::-1] if index == self.index else content


def joined(data: Data, stores: list[Store], **options: Any) -> JoinedLoader:
    """A loader of all the stores, as a training makes it."""
    require_joinable(stores, options.get("views"))
    parts = joined_parts(stores, data, "--data digits")
    return JoinedLoader(data, stores, parts=parts, **{"batch_size": 32, "epochs": 3, **options})
