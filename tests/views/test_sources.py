"""datasets: every kind opens or says why not, samples are deterministic, and whatever changes shows in the identity."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from kdcache.errors import InvalidInputError
from kdcache.views.built_in import read_idx
from kdcache.views.data import PROBES, describe_samples
from kdcache.views.sources import open_data
from tests.kits.views import Pictures, picture, pictures


def test_digits_are_real_and_split_in_two() -> None:
    train, test, both = (open_data("digits", {"split": split}) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(both)) == (1438, 359, 1797)
    assert (train.classes, train.class_names) == (10, tuple("0123456789"))
    image, label = train.samples[7]
    assert (image.dtype, tuple(image.shape), label) == (torch.uint8, (1, 8, 8), train.labels[7])
    assert len({each.identity().labels for each in (train, test, both)}) == 3
    assert open_data("digits", {}).identity() == train.identity()


def test_the_limit_keeps_the_first_samples() -> None:
    data, whole = open_data("digits", {"limit": 70}), open_data("digits", {})
    assert len(data) == 70 == data.identity().rows
    assert np.array_equal(data.labels, whole.labels[:70])
    assert data.class_names == whole.class_names
    for limit in (0, -1, 1439, "ten", 2.5):
        with pytest.raises(InvalidInputError, match=r"limit is .*; the data set has 1438 samples"):
            open_data("digits", {"limit": limit})


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        ("mnist", {}, "there is no data set 'mnist'; choose digits, fashion-mnist:FOLDER, folder:PATH"),
        ("digits", {"split": "val"}, "split is 'val'; choose train, test or all"),
        ("digits", {"spilt": "train"}, "data digits takes split, .* not spilt"),
        ("fashion-mnist", {}, "needs its folder of .gz files"),
        ("fashion-mnist:.", {"split": "val"}, "split is 'val'; choose train or test"),
        ("folder:/no/such", {}, "/no/such is no folder with a folder of images a class"),
        ("folder:.", {"transform": 1}, "data folder takes split, .*, rows and limit, .* imbalance, groups and noise"),
        ("text:.", {"imbalance_": 2}, "data text takes tokenizer, .*and limit, and as all texts range, not imbalance_"),
        ("torchvision:NoSuch", {}, "torchvision.datasets has no data set 'NoSuch'"),
        ("torchvision:CIFAR10", {"root": "/no/such"}, "torchvision:CIFAR10 does not open.*download=true"),
        ("torchvision:FakeData", {"sise": 3}, "data torchvision:FakeData takes other arguments.*it has size"),
        ("no/such.py:make", {}, "data: there is no file"),
    ],
)  # fmt: skip
def test_what_does_not_open_says_why(spec: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        open_data(spec, arguments)


def write_idx(path: Path, values: npt.NDArray[np.uint8]) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    rng = np.random.RandomState(0)
    for prefix, rows in (("train", 12), ("t10k", 5)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", rng.randint(0, 256, (rows, 28, 28), np.uint8))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.arange(rows, dtype=np.uint8) % 10)
    return tmp_path


def test_fashion_mnist_is_read_from_idx_files(fashion: Path) -> None:
    train, test = (open_data(f"fashion-mnist:{fashion}", {"split": split}) for split in ("train", "test"))
    assert (len(train), len(test), train.classes) == (12, 5, 10)
    assert train.class_names[9] == "Ankle boot"
    expected = read_idx(fashion / "train-images-idx3-ubyte.gz")
    assert all(np.array_equal(train.samples[index][0][0].numpy(), expected[index]) for index in range(12))
    assert str(fashion) not in train.name


@pytest.mark.parametrize("harm", ["cut file", "cut contents", "longer", "no idx", "not gzip", "absent", "flipped"])
def test_a_damaged_idx_file_is_refused_by_name(fashion: Path, harm: str) -> None:
    path = fashion / "train-images-idx3-ubyte.gz"
    data = path.read_bytes()
    contents = gzip.decompress(data)
    harmed = {
        "cut file": data[:-40],
        "cut contents": gzip.compress(contents[:-1]),
        "longer": gzip.compress(contents + b"\0"),
        "no idx": gzip.compress(b"abc"),
        "not gzip": b"hello",
        "flipped": data[:40] + bytes([data[40] ^ 255]) + data[41:],
    }
    path.unlink() if harm == "absent" else path.write_bytes(harmed[harm])
    with pytest.raises(InvalidInputError, match=r"train-images-idx3-ubyte\.gz (cannot be read|is no IDX file)"):
        open_data(f"fashion-mnist:{fashion}", {})


def test_every_flipped_byte_of_an_idx_file_is_refused_or_harmless(fashion: Path) -> None:
    path = fashion / "t10k-labels-idx1-ubyte.gz"
    data, expected = path.read_bytes(), read_idx(path)
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            found = read_idx(path)
        except InvalidInputError:
            continue
        assert np.array_equal(found, expected)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        target = tmp_path / "train" / ("cat", "dog")[index % 2]
        target.mkdir(parents=True, exist_ok=True)
        v2.functional.to_pil_image(picture(index, 3)).save(target / f"{index}.png")
    v2.functional.to_pil_image(picture(7, 1)).save(tmp_path / "train/dog/grey.png")
    return tmp_path


def test_a_folder_gives_rgb_images_of_its_classes(folder: Path) -> None:
    data = open_data(f"folder:{folder}", {"split": "train"})
    assert (len(data), data.class_names, data.name) == (7, ("cat", "dog"), "folder split=train")
    assert list(data.ids) == [
        "cat/0.png",
        "cat/2.png",
        "cat/4.png",
        "dog/1.png",
        "dog/3.png",
        "dog/5.png",
        "dog/grey.png",
    ]
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    image, label = data.samples[1]
    assert isinstance(image, Image.Image)
    assert (image.mode, label) == ("RGB", 0)
    assert np.array_equal(np.asarray(image).transpose(2, 0, 1), picture(2, 3).numpy())
    assert data.samples[6][0].mode == "RGB"
    assert data.decoder.startswith("Pillow ")


def test_the_folder_itself_may_move(folder: Path) -> None:
    before = open_data(f"folder:{folder}/train", {}).identity()
    (folder / "train").rename(folder / "elsewhere")
    assert open_data(f"folder:{folder}", {"split": "elsewhere"}).identity() == before


@pytest.mark.parametrize("harm", ["not an image", "cut", "empty", "gone", "flipped chunk"])
def test_a_corrupt_image_is_an_error_that_names_its_file(folder: Path, harm: str) -> None:
    path = folder / "train/cat/2.png"
    data = open_data(f"folder:{folder}/train", {})
    contents = path.read_bytes()
    place = contents.index(b"IDAT") + 20
    harmed = {
        "not an image": b"hello",
        "cut": contents[: len(contents) // 2],
        "empty": b"",
        "flipped chunk": contents[:place] + bytes([contents[place] ^ 255]) + contents[place + 1 :],
    }
    path.unlink() if harm == "gone" else path.write_bytes(harmed[harm])
    with pytest.raises(InvalidInputError, match=r"cat/2\.png cannot be (decoded|read)"):
        data.samples[1]
    assert data.samples[0][1] == 0


def test_every_flipped_byte_of_an_image_decodes_or_names_its_file(folder: Path) -> None:
    path = folder / "train/cat/2.png"
    data, contents = open_data(f"folder:{folder}/train", {}), path.read_bytes()
    refused = 0
    for place in range(0, len(contents), 3):
        path.write_bytes(contents[:place] + bytes([contents[place] ^ 8]) + contents[place + 1 :])
        try:
            data.samples[1]
        except InvalidInputError as error:
            refused += "cat/2.png" in str(error)
    assert refused > len(contents) // 6


@pytest.mark.parametrize("change", ["reorder", "delete", "add", "rename", "flip", "relabel"])
def test_the_identity_notices(folder: Path, change: str) -> None:
    root = folder / "train"
    before = open_data(f"folder:{root}", {}).identity()
    assert open_data(f"folder:{root}", {}).identity() == before
    path = root / "dog/3.png"
    if change == "reorder":
        path.rename(root / "dog/z.png")
        (root / "dog/1.png").rename(path)
        (root / "dog/z.png").rename(root / "dog/1.png")
    elif change == "delete":
        path.unlink()
    elif change == "add":
        (root / "dog/9.png").write_bytes(path.read_bytes())
    elif change == "rename":
        path.rename(root / "dog/33.png")
    elif change == "flip":
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        path.rename(root / "cat/3.png")
    after = open_data(f"folder:{root}", {}).identity()
    differing = {name for name in ("rows", "ids", "labels", "probes") if getattr(before, name) != getattr(after, name)}
    expected = {
        "reorder": {"probes"},
        "delete": {"rows", "ids", "labels", "probes"},
        "add": {"rows", "ids", "labels", "probes"},
        "rename": {"ids"},
        "flip": {"probes"},
        "relabel": {"ids", "labels", "probes"},
    }
    assert differing == expected[change]


def test_samples_in_memory_are_probed_evenly() -> None:
    data = open_data("digits", {})
    seen: list[int] = []

    def probe(index: int) -> bytes:
        seen.append(index)
        return data.probe(index)

    assert replace(data, probe=probe).identity() == data.identity()
    assert (len(seen), seen[0], seen[-1]) == (PROBES, 0, len(data) - 1)
    assert seen == sorted(set(seen))


def test_torchvision_data_sets_open_by_name() -> None:
    arguments = {"size": 9, "image_size": [3, 6, 7], "num_classes": 4}
    data = open_data("torchvision:FakeData", arguments)
    assert (len(data), data.name, data.class_names) == (9, "torchvision:FakeData", ())
    assert data.samples[2][0].size == (7, 6)
    assert data.identity() == open_data("torchvision:FakeData", arguments).identity()
    assert data.labels.tolist() == [int(data.samples[index][1]) for index in range(9)]


MINE = """
class Mine:
    classes = ("a", "b")

    def __init__(self, rows=4):
        self.rows = rows

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        import numpy
        return numpy.full((2, 2, 3), index, "u1"), None if index == 1 else index % 2

def nothing():
    return 3

def empty():
    return []
"""


def test_a_user_s_own_data_set(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    data = open_data(f"{tmp_path}/mine.py:Mine", {"rows": 5, "limit": 4})
    assert (len(data), data.name, data.class_names) == (4, "mine.py:Mine limit=4", ("a", "b"))
    assert data.labels.tolist() == [0, -1, 0, 1]
    assert list(data.ids) == ["0", "1", "2", "3"]
    for name, message in [("nothing", "is a int; it must have a length"), ("empty", "has no samples")]:
        with pytest.raises(InvalidInputError, match=message):
            open_data(f"{tmp_path}/mine.py:{name}", {})


class Attributed(Pictures):
    ids = ("x", "y", "z")
    targets = (5, 5, 5)
    class_names = ("one", "two", "three")


def test_a_data_set_object_says_what_it_knows() -> None:
    plain = pictures(3)
    data = describe_samples(Attributed(plain.images, plain.labels), "pictures")
    assert (list(data.ids), data.labels.tolist(), data.class_names) == (
        ["x", "y", "z"],
        [0, 1, 2],
        Attributed.class_names,
    )
    assert describe_samples(plain, "pictures").classes == 3


@pytest.mark.parametrize("labels", [("cat", "dog"), (0, 1, 2)])
def test_labels_that_do_not_fit_are_refused(labels: tuple[Any, ...]) -> None:
    with pytest.raises(
        InvalidInputError, match=r"sample 0 \(0\) has label 'cat': it is a word|has 3 labels for 2 samples"
    ):
        describe_samples(Pictures(pictures(2).images, labels), "pictures")
