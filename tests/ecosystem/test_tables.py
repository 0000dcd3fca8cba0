"""Tables of images: files of several splits, labels without class names, large row groups, what changes meanwhile."""

import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
import webdataset

from kdcache.errors import InvalidInputError
from kdcache.views import tar_index
from kdcache.views.parquet_source import ParquetImages
from kdcache.views.sources import open_data
from tests.kits.other_sources import refusal


def table_of(labels: list[Any], kind: Any) -> Any:
    """A table of one picture a label, none of which is decoded."""
    columns = {"image": [{"bytes": b"\xff\xd8\xff", "path": None}] * len(labels), "label": labels}
    return datasets.Dataset.from_dict(columns, features=datasets.Features({"image": datasets.Image(), "label": kind}))


def write_files(folder: Path, rows: dict[str, int]) -> Path:
    """Parquet files of so many rows each, by name."""
    for name, count in rows.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        table_of([0, *[1] * (count - 1)], datasets.ClassLabel(names=["a", "b"])).to_parquet(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("train_0", "test_0"),
        ("train-00000-of-00001", "test-00000-of-00001"),
        ("train.0", "test.0"),
        ("train0", "test2017"),
        ("mnist_train", "mnist_test"),
        ("train/0", "test/0"),
        ("train/2020/part-0", "test/2020/part-0"),
    ],
)
def test_the_files_of_a_split_are_opened_alone(tmp_path: Path, names: tuple[str, str]) -> None:
    folder = write_files(tmp_path, {f"{names[0]}.parquet": 3, f"{names[1]}.parquet": 2})
    message = "has 2 splits: test, train; choose one by --data-set split=test"
    assert message in refusal(lambda: open_data(f"parquet:{folder}", {}))
    assert len(open_data(f"parquet:{folder}", {"split": "train"})) == 3
    assert len(open_data(f"parquet:{folder}", {"split": "test"})) == 2


def test_files_that_tell_no_split_are_one_data_set_alone_and_refused_beside_splits(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "photos", {"part-0.parquet": 3, "more/valentine.parquet": 2})
    assert len(open_data(f"parquet:{folder}", {})) == 5
    assert "has no split 'train': none; leave split out" in refusal(
        lambda: open_data(f"parquet:{folder}", {"split": "train"})
    )
    write_files(folder, {"train-0.parquet": 4})
    for arguments in ({}, {"split": "train"}):
        message = refusal(lambda arguments=arguments: open_data(f"parquet:{folder}", arguments))
        assert "2 of 3 files tell no split (more/valentine.parquet, part-0.parquet), beside those of train" in message
    named = write_files(tmp_path / "train", {"part-0.parquet": 3, "more/part-1.parquet": 2})
    assert len(open_data(f"parquet:{named}", {"split": "train"})) == len(open_data(f"parquet:{named}", {})) == 5


@pytest.fixture
def callables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(
        "from datasets import ClassLabel, load_from_disk\n\n"
        "def data():\n    return load_from_disk('saved')\n\n"
        "def cast():\n    return data().cast_column('label', ClassLabel(names=['cat', 'dog']))\n\n"
        "def renamed():\n    return data().rename_column('label', 'species')\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_whole_numbers_of_a_callable_s_table_are_labels(callables: Path) -> None:
    table_of([2, 0, None, -1], datasets.Value("int64")).save_to_disk(str(callables / "saved"))
    data = open_data("mine.py:data", {})
    assert (data.labels.tolist(), data.class_names) == ([2, 0, -1, -1], ())
    message = refusal(lambda: open_data("mine.py:renamed", {}))
    assert "no column is known to hold classes; return data.cast_column('COLUMN', ClassLabel(names=[...]))" in message
    assert "it has image (Image), species (int64)" in message


@pytest.mark.parametrize(
    ("labels", "kind"), [(["dog", "cat"], "string"), ([True, False], "bool"), ([1.0, 0.0], "float32")]
)
def test_other_labels_of_a_callable_s_table_are_refused_with_advice_that_works(
    callables: Path, labels: list[Any], kind: str
) -> None:
    table_of(labels, datasets.Value(kind)).save_to_disk(str(callables / "saved"))
    message = refusal(lambda: open_data("mine.py:data", {}))
    advice = "return data.cast_column('label', ClassLabel(names=[...])), or --labels none"
    assert f"column 'label' holds {kind}; {advice}" in message
    data = open_data("mine.py:cast", {})
    assert (data.labels.tolist(), data.class_names) == ([1, 0], ("cat", "dog"))
    assert open_data("mine.py:data", {}, labels="none").is_labelled is False


@pytest.mark.parametrize("is_struct", [False, True])
def test_a_row_group_in_several_chunks_is_indexed_as_it_lies(tmp_path: Path, is_struct: bool) -> None:
    """As pyarrow gives a row group of 2 GiB and more, which joined would overflow."""
    contents = [pyarrow.array([b"0", b"1"]), pyarrow.array([], pyarrow.binary()), pyarrow.array([b"2"])]
    if is_struct:
        contents = [pyarrow.StructArray.from_arrays([part], ["bytes"]) for part in contents]
    table = pyarrow.table({"image": pyarrow.chunked_array(contents)})

    class Group:
        def read_row_group(self, _: int, **__: Any) -> Any:
            return table

    images = ParquetImages([tmp_path], [[3]], "image")
    images._files[0] = Group()
    assert [images.content(index) for index in (2, 0, 1)] == [b"2", b"0", b"1"]


def test_a_saved_folder_without_one_of_its_splits_is_refused(tmp_path: Path) -> None:
    table = table_of([0, 1], datasets.ClassLabel(names=["a", "b"]))
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "saved"))
    shutil.rmtree(tmp_path / "saved/test")
    message = refusal(lambda: open_data(f"hf:{tmp_path}/saved", {"split": "train"}))
    assert f"data hf:{tmp_path}/saved cannot be opened by datasets: " in message
    assert "saved/test" in message


def write_tar(path: Path, samples: int) -> None:
    """A tar of small samples with labels."""
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(samples):
            writer.write({"__key__": str(number), "jpg": b"\xff\xd8\xff", "cls": number})


def test_a_tar_that_is_replaced_while_it_is_indexed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "0.tar", tar_index.read_index
    write_tar(path, 2)

    def replaced(path: Path, wanted: tar_index.Wanted) -> tar_index.TarIndex:
        index = read(path, wanted)
        write_tar(path, 20)
        return index

    monkeypatch.setenv("KDCACHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tar_index, "read_index", replaced)
    samples: Any = open_data(f"webdataset:{path}", {}).samples
    with pytest.raises(InvalidInputError, match="was changed since it was indexed"):
        samples[0]
