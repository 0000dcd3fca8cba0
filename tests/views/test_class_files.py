"""class_files: ImageNet's conventions in folder:, and labels of any source that are words or numbers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from kdcache.errors import InvalidInputError
from kdcache.networks.class_names import Vocabulary, synsets
from kdcache.views.class_files import class_labels, read_class_names
from kdcache.views.sources import open_data

SYNSETS = ("n01440764", "n01443537", "n01484850")
MAPPING = "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn01484850 great white shark, white shark\n"
WORDS = ("tench", "goldfish", "great white shark")
VAL = [f"ILSVRC2012_val_0000000{number}.JPEG" for number in (1, 2, 3, 4)]


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    for number, name in enumerate([*(f"val/{name}" for name in VAL), *(f"train/{s}/{s}_1.JPEG" for s in SYNSETS)]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(tmp_path / name, "JPEG")
    (tmp_path / "mapping.txt").write_text(MAPPING)
    return tmp_path


LABEL_FILES = {
    "kaggle.csv": "ImageId,PredictionString\n"
    + "".join(f"{Path(name).stem},{SYNSETS[n]} 85 1 499 272\n" for n, name in [(2, VAL[3]), *enumerate(VAL[:3])]),
    "synsets.txt": "\n".join(SYNSETS[n] for n in (0, 1, 2, 2)),
    "caffe.txt": "".join(f"{name} {n}\n" for n, name in zip((0, 1, 2, 2), VAL, strict=True)),
    "numbers.txt": "0\n1\n2\n2\n",
}


@pytest.mark.parametrize("file", LABEL_FILES)
def test_the_flat_val_folder_has_its_labels_from_a_file(imagenet: Path, file: str) -> None:
    (imagenet / file).write_text(LABEL_FILES[file])
    arguments = {"split": "val", "labels": str(imagenet / file), "class_names": str(imagenet / "mapping.txt")}
    data = open_data(f"folder:{imagenet}", arguments)
    train = open_data(f"folder:{imagenet}", {"split": "train", "class_names": arguments["class_names"]})
    assert (list(data.ids), data.labels.tolist()) == (VAL, [0, 1, 2, 2])
    assert data.class_names == train.class_names == tuple(f"{s} {w}" for s, w in zip(SYNSETS, WORDS, strict=True))
    assert data.name == f"folder split=val labels={file} class_names=mapping.txt"
    assert data.samples[3][0].size == (8, 8)


def test_synset_folders_are_classes_and_match_an_imagenet_teacher(imagenet: Path) -> None:
    assert open_data(f"folder:{imagenet}", {"split": "train"}).class_names == SYNSETS
    names = read_class_names(str(imagenet / "mapping.txt"))
    assert names is not None
    known = Vocabulary("ImageNet's synsets", synsets())
    assert [known.numbers(name) for name in names.names] == [(0,), (1,), (2,)]


def test_the_devkit_s_numbers_are_taken_by_its_own_table(imagenet: Path) -> None:
    (imagenet / "truth.txt").write_text("3\n1\n2\n2\n")
    table = np.array(
        [
            (1, SYNSETS[2], "great white shark, white shark", 0),
            (2, SYNSETS[0], "tench, Tinca tinca", 0),
            (3, SYNSETS[1], "goldfish", 0),
            (4, "n00001740", "entity", 3),
        ],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)],
    )
    savemat(imagenet / "meta.mat", {"synsets": table})
    arguments = {"split": "val", "labels": str(imagenet / "truth.txt")}
    data = open_data(f"folder:{imagenet}", {**arguments, "class_names": str(imagenet / "meta.mat")})
    assert (data.labels.tolist(), data.class_names) == (
        [1, 2, 0, 0],
        tuple(map(" ".join, zip(SYNSETS, WORDS, strict=True))),
    )
    for names in ({}, {"class_names": str(imagenet / "mapping.txt")}):
        with pytest.raises(InvalidInputError, match=r"devkit's ground truth counts from 1 .*meta\.mat"):
            open_data(f"folder:{imagenet}", {**arguments, **names})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n1\n", "has 2 lines for 4 images; give one a line"),
        (f"{VAL[0]} 1\n", r"has no label for 3 of 4 images \(ILSVRC2012_val_00000002.JPEG"),
        ("", "has no line"),
        (
            "0\n1\n2\nn04118538\n",
            r"sample 3 \(ILSVRC2012_val_00000004.JPEG\) has label 'n04118538': mapping.txt",
        ),
        ("0\n1\n2\n5\n", "has label '5': mapping.txt names 3 classes"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(imagenet: Path, text: str, message: str) -> None:
    (imagenet / "labels.txt").write_text(text)
    arguments = {"labels": str(imagenet / "labels.txt"), "class_names": str(imagenet / "mapping.txt")}
    with pytest.raises(InvalidInputError, match=message):
        open_data(f"folder:{imagenet}/val", arguments)


def test_a_folder_without_its_split_says_where_to_look(imagenet: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"val2 is no folder .* has train, val: folder:PATH with split=NAME"):
        open_data(f"folder:{imagenet}", {"split": "val2"})
    with pytest.raises(InvalidInputError, match=r"not root; folder:PATH with split=NAME is PATH/NAME"):
        open_data(f"folder:{imagenet}/train", {"root": "val"})
    with pytest.raises(InvalidInputError, match=r"or name their classes by --data-set labels=FILE"):
        open_data(f"folder:{imagenet}/val", {})


def test_words_are_classes_sorted_and_numbers_count_from_0() -> None:
    ids = ["a", "b", "c"]
    labels, names = class_labels(["eel", "cat", None], ids, None, "data x")
    assert (labels.tolist(), names) == ([1, 0, -1], ("cat", "eel"))
    assert class_labels(["2", 0, -1], ids, None, "data x")[0].tolist() == [2, 0, -1]
    with pytest.raises(InvalidInputError, match=r"data x: sample 1 \(b\) has label 1.5: it is no whole number"):
        class_labels([0, 1.5, 1], ids, None, "data x")


DOGS = ("0.png", "1.png", "2.png", "3.png")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    (tmp_path / "flat").mkdir()
    for number, name in enumerate(DOGS):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(tmp_path / "flat" / name)
    return tmp_path / "flat"


WHOLE_FIELDS = {
    "split.csv": "filename,label,split\n0.png,cat,train\n1.png,dog,train\n\n2.png,cat,test\n3.png,dog,test\n",
    "quoted.csv": '0.png,"dog, small"\n1.png, "cat"\n2.png,"dog, small"\n3.png,cat\n',
    "words.csv": "0.png,Great Dane\n1.png,Great Pyrenees\n2.png,Great Dane\n3.png,Great Pyrenees\n",
    "words.txt": "0.png Great Dane\n1.png\tGreat Pyrenees\na/2.png Great Dane\n3  Great Pyrenees\n3 Great Pyrenees\n",
}


@pytest.mark.parametrize(
    ("file", "names", "labels"),
    [
        ("split.csv", ("cat", "dog"), [0, 1, 0, 1]),
        ("quoted.csv", ("cat", "dog, small"), [1, 0, 1, 0]),
        ("words.csv", ("Great Dane", "Great Pyrenees"), [0, 1, 0, 1]),
        ("words.txt", ("Great Dane", "Great Pyrenees"), [0, 1, 0, 1]),
    ],
)
def test_a_label_is_its_whole_field_and_no_other(
    flat: Path, file: str, names: tuple[str, ...], labels: list[int]
) -> None:
    (flat.parent / file).write_text(WHOLE_FIELDS[file])
    data = open_data(f"folder:{flat}", {"labels": str(flat.parent / file)})
    assert (data.class_names, data.labels.tolist()) == (names, labels)


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("a.csv", "0.png,cat\n\n0.png,dog\n", r"two labels for 0.png: 'cat' in line 1 and 'dog' in line 3; leave one"),
        ("a.txt", "catA/0.png cat\ncatB/0.png dog\n", r"two labels for 0.png: 'cat' in line 1 and 'dog' in line 2"),
        ("a.txt", f"0 {SYNSETS[0]} 1 2\n0 {SYNSETS[0]} 3\n0 {SYNSETS[1]} 1\n", f"'{SYNSETS[0]}' in line 1 .* line 3"),
    ],
)
def test_two_labels_of_one_image_are_refused(flat: Path, file: str, lines: str, message: str) -> None:
    rest = "".join(f"{name}{',' if file.endswith('csv') else ' '}cat\n" for name in DOGS[1:])
    (flat.parent / file).write_text(lines + rest)
    with pytest.raises(InvalidInputError, match=message):
        open_data(f"folder:{flat}", {"labels": str(flat.parent / file)})


def test_images_that_differ_in_their_suffix_alone_are_labelled_by_their_whole_names(flat: Path) -> None:
    Image.new("RGB", (8, 8)).save(flat / "0.jpg")
    (flat.parent / "labels.txt").write_text("0.jpg dog\n" + "".join(f"{name} cat\n" for name in DOGS))
    data = open_data(f"folder:{flat}", {"labels": str(flat.parent / "labels.txt")})
    assert (list(data.ids), data.labels.tolist()) == (["0.jpg", *DOGS], [1, 0, 0, 0, 0])
