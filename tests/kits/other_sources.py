"""A folder of pictures as other libraries keep it: in Arrow files, in parquet files and in tar shards."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdcache.views.data import Data
from kdcache.views.sources import open_data

Place = tuple[str, dict[str, Any]]
"""A spec of a data set, and its arguments."""


def write_sources(pictures: Path, base: Path) -> dict[str, Place]:
    """Write the pictures of a folder into `base` by the libraries whose forms these are. The data sets, by name, whose
    ids are those of the folder."""
    import datasets
    import webdataset

    data = open_data(f"folder:{pictures}", {})
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(data.class_names)),
            "file": datasets.Value("string"),
        }
    )
    contents = [(pictures / name).read_bytes() for name in data.ids]
    columns = {
        "image": [{"bytes": content, "path": name} for content, name in zip(contents, data.ids, strict=True)],
        "label": data.labels.tolist(),
        "file": list(data.ids),
    }
    table = datasets.Dataset.from_dict(columns, features=features)
    table.save_to_disk(str(base / "saved"))
    datasets.DatasetDict({"train": table, "test": table.select(range(8))}).save_to_disk(str(base / "splits"))
    (base / "files").mkdir()
    half = len(table) // 2
    table.select(range(half)).to_parquet(base / "files/train-00000-of-00002.parquet", batch_size=20)
    table.select(range(half, len(table))).to_parquet(base / "files/train-00001-of-00002.parquet", batch_size=20)
    (base / "tars").mkdir()
    with webdataset.ShardWriter(str(base / "tars/%03d.tar"), maxcount=70, verbose=0) as writer:
        for content, name, label in zip(contents, data.ids, data.labels.tolist(), strict=True):
            key, extension = name.rsplit(".", 1)
            record = {"file": name, "class": data.class_names[label]}
            writer.write({"__key__": key, extension: content, "cls": label, "json": record})
    return {
        "hf": (f"hf:{base}/saved", {"id": "file"}),
        "hf split": (f"hf:{base}/splits", {"split": "train", "id": "file"}),
        "hf of parquet": (f"hf:{base}/files", {"id": "file"}),
        "parquet": (f"parquet:{base}/files", {"id": "file"}),
        "webdataset": (f"webdataset:{base}/tars", {"label": "class", "id": "file"}),
    }


def cached_on_hub(parquet: Path, cache: Path, name: str) -> None:
    """Put the parquet files of a folder into a cache of `datasets` as those of a data set of the hub."""
    import datasets

    copy = shutil.copytree(parquet, cache / "files" / Path(name).name)
    datasets.load_dataset(str(copy), cache_dir=str(cache / "local"))
    shutil.copytree(cache / "local" / Path(name).name, cache / name.replace("/", "___"))


def refusal(open_it: Callable[[], Data]) -> str:
    """The message of the refusal of a data set."""
    from kdcache.errors import InvalidInputError

    try:
        open_it()
    except InvalidInputError as error:
        return str(error)
    return "it was opened"
