"""Rows of any data set by arguments: range, a long tail, noisy labels; their order, their identity, their refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdcache.errors import InvalidInputError
from kdcache.pipelines.settings import TrainSettings
from kdcache.pipelines.train.validating import validation_source
from kdcache.views.built_in import shrunk
from kdcache.views.data import Data
from kdcache.views.sources import of_whole, open_data

MINE = """
class Mine:
    def __init__(self, rows=40, noise=0.0):
        self.rows, self.noise = rows, noise
        self.labels = [index % 4 for index in range(rows)]
    def __len__(self): return self.rows
    def __getitem__(self, index):
        import numpy
        return numpy.full((8, 8, 3), index, numpy.uint8), index % 4

class Plain(Mine):
    def __init__(self):
        super().__init__()

class Labelless(Mine):
    def __init__(self):
        super().__init__(12)
        self.labels = [-1] * 12
    def __getitem__(self, index):
        return super().__getitem__(index)[0], -1
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path}/mine.py"


def digits(**arguments: Any) -> Data:
    return open_data("digits", arguments)


def test_a_range_keeps_its_rows_and_their_ids() -> None:
    part, whole = digits(range="100:150"), digits()
    assert list(part.ids) == list(whole.ids[100:150])
    assert np.array_equal(part.labels, whole.labels[100:150])
    assert all((part.samples[index][0] == whole.samples[100 + index][0]).all() for index in (0, 7, 49))
    assert part.name == "digits split=train range=100:150"
    assert digits(range="0:1438").identity() == whole.identity() != part.identity()


def test_a_range_is_of_the_rows_that_a_file_left(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("\n".join(map(str, range(0, 200, 2))))
    part = digits(rows=f"{tmp_path}/rows.txt", range="10:20", limit=3)
    assert part.name == "digits split=train rows=rows.txt range=10:20 limit=3"
    assert list(part.ids) == ["20", "22", "24"]


def test_a_long_tail_is_the_exponential_profile_of_the_largest_head() -> None:
    whole, tail = digits(), digits(imbalance=20)
    counts = np.bincount(whole.labels)
    kept = np.bincount(tail.labels, minlength=10)
    shares = 20.0 ** (-np.arange(10) / 9)
    assert np.array_equal(kept, np.round(kept[0] * shares))
    assert (kept <= counts).all()
    assert (kept[0] + 1) / 1.0 > (counts / shares).min()  # one row more in the head and a class would lack some
    ids = [int(name) for name in tail.ids]
    assert ids == sorted(ids)
    assert digits(imbalance=20).identity() == tail.identity()
    assert digits(imbalance=20, imbalance_seed=1).identity() != tail.identity()
    assert np.array_equal(np.bincount(digits(imbalance=20, imbalance_seed=1).labels), kept)


def test_a_long_tail_has_the_order_of_classes_that_is_asked_for() -> None:
    order = [4, 8, 5, 1, 0, 9, 7, 6, 3, 2]
    written, listed = (
        digits(imbalance=10, imbalance_order="4,8,5,1,0,9,7,6,3,2"),
        digits(imbalance=10, imbalance_order=order),
    )
    kept = np.bincount(written.labels)[order]
    assert (np.diff(kept) < 0).all()
    assert round(kept[0] / kept[-1]) == 10
    assert listed.identity() == written.identity()


def test_noise_draws_a_share_of_labels_anew_from_all_classes() -> None:
    whole = digits()
    noisy, noisier = digits(noise=0.5), digits(noise=1.0)
    changed, changed_more = noisy.labels != whole.labels, noisier.labels != whole.labels
    assert np.array_equal(noisier.labels[changed], noisy.labels[changed])
    assert changed.sum() < changed_more.sum() < len(whole)  # the true class is among those drawn
    assert abs(changed.mean() - 0.45) < 0.04  # 9 of 10 classes are wrong: 4 standard deviations are .04
    assert (np.bincount(noisier.labels, minlength=10) > 80).all()
    assert noisy.ids == whole.ids
    assert noisy.identity().labels != whole.identity().labels
    assert noisy.identity().probes == whole.identity().probes
    assert digits(noise=0.5, noise_seed=1).identity() != noisy.identity() == digits(noise=0.5).identity()
    assert digits(noise=0).identity() == whole.identity()


def test_noise_knows_the_classes_of_the_whole(mine: str, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("\n".join(map(str, range(0, 40, 4))))
    part = {"rows": f"{tmp_path}/rows.txt"}
    assert open_data(f"{mine}:Plain", part).labels.tolist() == [0] * 10
    assert open_data(f"{mine}:Plain", {**part, "noise": 1.0}).labels.max() == 3


def test_noise_comes_after_the_tail_and_the_limit_last() -> None:
    noisy, clean = (digits(range="0:400", imbalance=4, noise=noise) for noise in (1.0, 0))
    assert noisy.ids == clean.ids
    assert not np.array_equal(noisy.labels, clean.labels)
    assert np.array_equal(digits(range="0:400", imbalance=4, noise=1.0, limit=15).labels, noisy.labels[:15])


def test_groups_join_consecutive_classes_after_the_tail_and_before_noise() -> None:
    whole, halves, uneven = digits(), digits(groups=5), digits(groups=4)
    assert np.array_equal(halves.labels, whole.labels // 5)
    assert halves.labels.dtype == whole.labels.dtype
    assert (halves.classes, uneven.classes, halves.ids) == (2, 3, whole.ids)
    assert np.array_equal(uneven.labels, whole.labels // 4)
    assert halves.identity().labels != whole.identity().labels
    assert halves.identity().probes == whole.identity().probes
    assert halves.name == "digits split=train groups=5"
    tail = digits(imbalance=4, groups=5)
    assert np.array_equal(tail.labels, digits(imbalance=4).labels // 5)
    assert set(digits(groups=5, noise=1.0).labels.tolist()) == {0, 1}


def test_groups_are_named_by_the_classes_that_they_join(tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(
        "import numpy\nclass Named:\n    labels, class_names = [0, 1, 2, -1], ['cat', 'dog', 'oak']\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, i): return numpy.zeros((8, 8, 3), numpy.uint8), self.labels[i]\n"
    )
    data = open_data(f"{tmp_path}/named.py:Named", {"groups": 2})
    assert (data.class_names, data.labels.tolist()) == (("cat + dog", "oak"), [0, 0, 1, -1])
    assert of_whole("digits", {"groups": 5, "split": "test"}) == {"split": "test"}


def test_rows_without_a_label_keep_none_and_belong_to_no_class(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(
        MINE.replace("index % 4 for index in range(rows)", "index % 4 - 1 for index in range(rows)").replace(
            "numpy.uint8), index % 4", "numpy.uint8), index % 4 - 1"
        ).replace(", noise=0.0", "").replace("self.rows, self.noise = rows, noise", "self.rows = rows")
    )  # fmt: skip
    spec = f"{tmp_path}/half.py:Mine"
    assert (open_data(spec, {"noise": 1.0}).labels[::4] == -1).all()
    assert open_data(spec, {"imbalance": 1}).labels.min() == 0


def test_a_callable_keeps_an_argument_of_its_own(mine: str) -> None:
    data = open_data(f"{mine}:Mine", {"rows": 12, "noise": 0.9, "range": "2:9"})
    assert data.labels.tolist() == [2, 3, 0, 1, 2, 3, 0]
    assert of_whole(f"{mine}:Mine", {"rows": 12, "noise": 0.9, "range": "2:9"}) == {"rows": 12, "noise": 0.9}


def test_validation_takes_no_part_of_the_training_s_choice() -> None:
    chosen = {"range": "0:500", "imbalance": 4, "noise": 0.2, "noise_seed": 1, "imbalance_order": "1,0", "split": "all"}
    settings = TrainSettings(run="r", data="digits", student="s:s", data_set=chosen, val_set={"range": "500:600"})
    assert validation_source(settings) == ("digits", {"split": "all", "range": "500:600"})


def test_validation_takes_over_which_classes_there_are() -> None:
    settings = TrainSettings(run="r", data="digits", student="s:s", data_set={"groups": 5, "noise": 0.2})
    assert validation_source(settings) == ("digits", {"groups": 5})
    given = settings.model_copy(update={"val_set": {"groups": 2, "split": "test"}})
    assert validation_source(given) == ("digits", {"groups": 2, "split": "test"})
    others = settings.model_copy(update={"val_data": "fashion-mnist:F", "val_set": {"split": "test"}})
    assert validation_source(others) == ("fashion-mnist:F", {"split": "test"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"range": "0:1439"}, "range is 0:1439; the data set has 1438 samples, 0:1438"),
        ({"range": "5:5"}, "range is 5:5; the data set has 1438 samples"),
        ({"range": 500}, "range is 500; give START:STOP"),
        ({"range": "-5:5"}, "range is '-5:5'; give START:STOP"),
        ({"imbalance": 0.5}, "imbalance is 0.5; give the ratio .*1 or more"),
        ({"imbalance": "ten"}, "imbalance is 'ten'; give the ratio"),
        ({"range": "0:9", "imbalance": 2}, "imbalance is 2 over 10 classes, and class 4 has no row"),
        ({"range": "0:50", "imbalance": 100}, "imbalance is 100: class . would keep none of its . rows, where class 0"),
        ({"imbalance": 2, "imbalance_order": "0,1,2"}, "imbalance_order is '0,1,2'; give the numbers of all 10"),
        ({"imbalance_order": "0,1,2"}, "imbalance_order is '0,1,2' and there is no imbalance; give imbalance too"),
        ({"noise": 1.5}, "noise is 1.5; give the share .*from 0 to 1"),
        ({"noise": True}, "noise is True; give the share"),
        ({"noise_seed": 3}, "noise_seed is 3 and there is no noise; give noise too"),
        ({"noise": 0.5, "noise_seed": -1}, "noise_seed is -1; give a whole number from 0 to"),
        ({"groups": 1}, "groups is 1, and the data set has 10 classes; give .*, 2 to 9"),
        ({"groups": 10}, "groups is 10, and the data set has 10 classes; give"),
        ({"groups": 2.5}, "groups is 2.5, and the data set has 10 classes"),
        ({"groups": True}, "groups is True, and the data set has 10 classes"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_says_why(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        open_data("digits", arguments)


@pytest.mark.parametrize("arguments", [{"imbalance": 2}, {"noise": 0.5}, {"groups": 2}])
def test_what_needs_labels_is_refused_without_them(mine: str, arguments: dict[str, Any]) -> None:
    ((name, value),) = arguments.items()
    message = f"{name} is {value}, and none of the 12 samples has a label"
    with pytest.raises(InvalidInputError, match=message):
        open_data(f"{mine}:Labelless", arguments)
    with pytest.raises(InvalidInputError, match="none of the 1438 samples has a label"):
        open_data("digits", arguments, labels="none")


def test_fashion_mnist_shrinks_by_means_of_squares(fashion_mnist: str) -> None:
    small, whole = (open_data(fashion_mnist, {"limit": 50, **side}) for side in ({"side": 14}, {}))
    square = whole.samples[3][0][0, 10:12, 20:22].double().mean()
    assert small.samples[3][0].shape == (1, 14, 14)
    assert int(small.samples[3][0][0, 5, 10]) == round(float(square))
    assert small.name == "fashion-mnist split=train side=14 limit=50"
    assert small.identity().probes != whole.identity().probes
    assert open_data(fashion_mnist, {"limit": 50, "side": 28}).identity() == whole.identity()
    for side in (0, 8, 56, 14.0, True):
        with pytest.raises(InvalidInputError, match=f"side is {side}, of images of 28 x 28; choose 1, 2, 4, 7, 14, 28"):
            open_data(fashion_mnist, {"side": side})


def test_means_are_rounded_half_to_even() -> None:
    images = np.array([[[0, 1, 2, 3], [0, 1, 2, 3], [255, 255, 9, 9], [255, 254, 9, 8]]], np.uint8)
    assert shrunk(images, 2).tolist() == [[[0, 2], [255, 9]]]
