"""Sources: the same pictures in a folder, in Arrow, parquet or tar files are the same data set, for a store as well."""

import pickle
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import webdataset

from kdcache.base.cache_options import CacheOptions
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.pipelines.verify.stage import VerifySettings, verify
from kdcache.views.cache_keys import open_caches
from kdcache.views.scan import scan_samples
from kdcache.views.sources import open_data
from kdcache.views.tar_index import TarIndexes, Wanted
from kdcache.views.webdataset_source import expanded
from tests.kits import pictures
from tests.kits.other_sources import Place, cached_on_hub, refusal, write_sources
from tests.kits.pictures import ROWS, Gallery
from tests.kits.stages import weights_of
from tests.kits.views import plan_of

gallery = pictures.gallery

KINDS = ("hf", "hf split", "hf of parquet", "parquet", "webdataset")


@pytest.fixture(scope="module")
def places(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Place]:
    return write_sources(gallery.pictures, tmp_path_factory.mktemp("sources"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decoder", ["pillow", "torchvision"])
def test_equal_bytes_are_equal_pixels_contents_and_identity(
    gallery: Gallery, places: dict[str, Place], kind: str, decoder: str
) -> None:
    spec, arguments = places[kind]
    folder = open_data(f"folder:{gallery.pictures}", {"decoder": decoder})
    data = open_data(spec, {**arguments, "decoder": decoder})
    assert data.identity() == folder.identity()
    assert data.decoder == folder.decoder
    assert data.notes == folder.notes
    samples: Any = pickle.loads(pickle.dumps(data.samples))  # as a worker gets them
    original: Any = folder.samples
    for index in (0, ROWS - 1, 1, 71, 70, 20):
        assert samples.content(index) == original.content(index)
        assert samples[index][1] == original[index][1]
        assert np.array_equal(np.asarray(samples[index][0]), np.asarray(original[index][0]))


@pytest.mark.parametrize("kind", ["hf", "parquet", "webdataset"])
def test_a_store_of_a_folder_trains_from_every_source(
    gallery: Gallery, places: dict[str, Place], kind: str, tmp_path: Path
) -> None:
    spec, arguments = places[kind]
    cache = str(tmp_path / "views")
    train(gallery.student(tmp_path / "folder"))
    train(gallery.student(tmp_path / "other", data=spec, data_set=arguments, workers=1, view_cache=cache))
    assert weights_of(tmp_path / "other") == weights_of(tmp_path / "folder")
    assert any(Path(cache).rglob("key.json"))
    checks = verify(VerifySettings(store=gallery.store, data=spec, data_set=arguments, rows=32, workers=0)).checks
    assert [check for check in checks if not check.passed] == []


def test_a_store_is_extracted_from_shards(gallery: Gallery, places: dict[str, Place], tmp_path: Path) -> None:
    """With the samples' own keys as ids, in two workers; its provenance has no folder of this machine."""
    spec, _ = places["webdataset"]
    extract(gallery.asked(tmp_path / "tars.kd", data=spec, workers=2))
    train(gallery.student(tmp_path / "run", data=spec, store=(str(tmp_path / "tars.kd"),)))
    assert (tmp_path / "run/weights/last.safetensors").is_file()
    manifest = (tmp_path / "tars.kd/kdcache/manifest.json").read_text()
    assert '"data":"webdataset label=cls"' in manifest.replace(": ", ":")
    assert str(tmp_path) not in manifest


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_cached_without_a_store_too(places: dict[str, Place], kind: str, tmp_path: Path) -> None:
    spec, arguments = places[kind]
    plan, options = plan_of("light"), CacheOptions(views=str(tmp_path))
    caches = [open_caches(options, open_data(spec, a), plan, ["bytes"], checked=False) for a in (arguments, arguments)]
    part = open_caches(options, open_data(spec, {**arguments, "range": "8:80"}), plan, ["bytes"], checked=False)
    names = {cache.views.folder.name if cache.views else "" for cache in (*caches, part)}
    assert len(names) == 2
    assert "" not in names


def test_a_scan_reads_every_source(places: dict[str, Place]) -> None:
    for spec, arguments in places.values():
        scan = scan_samples(open_data(spec, arguments), workers=1)
        assert (scan.rows, scan.bad, len(scan.classes)) == (ROWS, (), 4)


def test_a_name_of_the_hub_is_read_from_the_cache_alone(
    places: dict[str, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def connect(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.chdir(tmp_path)
    cached_on_hub(Path(places["parquet"][0].partition(":")[2]), tmp_path, "team/pictures")
    data = open_data("hf:team/pictures", {"split": "train", "id": "file"})
    assert data.identity() == open_data(*places["hf"]).identity()
    assert data.name == "hf:team/pictures split=train id=file"
    message = refusal(lambda: open_data("hf:team/others", {}))
    assert "no data set in the cache" in message
    assert "--data-set download=true" in message


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's own
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_are_grouped_as_webdataset_groups_them(places: dict[str, Place], tmp_path: Path) -> None:
    folder = Path(places["webdataset"][0].partition(":")[2])
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    stream = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    data = open_data(f"webdataset:{folder}", {})
    assert list(data.ids) == [sample["__key__"] for sample in stream]
    assert data.labels.tolist() == [int(sample["cls"]) for sample in stream]
    samples: Any = data.samples
    assert [samples.content(index) for index in range(5)] == [s.get("png", s.get("jpg")) for s in stream[:5]]
    with webdataset.TarWriter(str(tmp_path / "odd.tar")) as writer:
        writer.write({"__key__": "a.b/c", "seg.png": b"1", "JPG": b"22", "cls": 3})
        writer.write({"__key__": "a.b/d", "seg.png": b"4", "JPG": b"5", "cls": 0})
    odd = open_data(f"webdataset:{tmp_path}/odd.tar", {"image": "seg.png"})
    assert (list(odd.ids), odd.labels.tolist()) == (["a.b/c", "a.b/d"], [3, 0])
    assert [
        sample["__key__"] for sample in webdataset.WebDataset(str(tmp_path / "odd.tar"), shardshuffle=False)
    ] == list(odd.ids)
    for pattern in ("d/{000..012}.tar", "d/{8..11}-{a,b}.tar", "plain.tar", "{b,a}{1..2}"):
        assert list(expanded(pattern)) == webdataset.shardlists.expand_urls(pattern)


def test_an_index_is_made_once_and_again_for_another_tar(
    places: dict[str, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdcache.views import tar_index

    folder = Path(places["webdataset"][0].partition(":")[2])
    path = tmp_path / "0.tar"
    path.write_bytes((folder / "000.tar").read_bytes())
    monkeypatch.setenv("KDCACHE_CACHE", str(tmp_path / "cache"))
    reads: list[Path] = []
    read = tar_index.read_index
    monkeypatch.setattr(tar_index, "read_index", lambda path, wanted: (reads.append(path), read(path, wanted))[1])
    tmp_path.chmod(0o500)
    first = TarIndexes(Wanted()).of(path)
    assert TarIndexes(Wanted()).of(path) == first
    assert len(reads) == 1
    tmp_path.chmod(0o700)
    kept = max(filter(Path.is_file, (tmp_path / "cache").rglob("*")), key=lambda file: file.stat().st_size)
    kept.write_bytes(kept.read_bytes()[:-40])  # torn
    assert TarIndexes(Wanted()).of(path) == first
    data: Any = open_data(f"webdataset:{path}", {}).samples
    path.write_bytes((folder / "001.tar").read_bytes())
    assert TarIndexes(Wanted()).of(path) != first
    assert len(reads) == 3
    assert "was changed since it was indexed" in refusal(lambda: data[0])
    monkeypatch.setenv("KDCACHE_CACHE_LIMIT", "0")
    assert TarIndexes(Wanted()).of(path) == read(path, Wanted())


REFUSED = {
    "splits": ("hf:{base}/splits", {}, r"has 2 splits: train, test; choose one by --data-set split=train"),
    "no such split": ("hf:{base}/splits", {"split": "val"}, "no split 'val': train, test"),
    "no splits": ("hf:{base}/saved", {"split": "val"}, "leave split out"),
    "no column": ("hf:{base}/saved", {"image": "img"}, r"no column 'img', .* it has image \(Image\), "),
    "no image": ("hf:{base}/saved", {"image": "file"}, "column 'file' holds string"),
    "a folder of pictures": ("hf:{pictures}", {}, "folders of images are read by folder:"),
    "no folder": ("hf:/no/such", {}, "is no folder, and no name such as OWNER/NAME"),
    "no name": ("hf:", {}, "hf:FOLDER_OR_NAME"),
    "another argument": ("hf:{base}/saved", {"root": "x"}, "data hf takes split, config, image, label, id, .*not root"),
    "no parquet": ("parquet:{pictures}", {}, "neither a file nor a folder of .parquet files"),
    "torn parquet": ("parquet:{base}/torn.parquet", {}, "torn.parquet is no parquet file that can be read"),
    "no bytes": ("parquet:{base}/files", {"column": "label"}, "column 'label' holds ClassLabel"),
    "no shards": ("webdataset:{base}/tars/{{000..004}}.tar", {}, "2 of 5 shards are not there: .*003.tar"),
    "packed": ("webdataset:{base}/packed", {}, "packed.tar.gz is packed by gzip: .* unpack it with gunzip"),
    "cut": ("webdataset:{base}/cut.tar", {}, "cut.tar is cut at byte"),
    "no key": ("webdataset:{base}/tars", {"label": "wnid"}, r"has no 'wnid'; it has (file, class|class, file)"),
    "no extension": ("webdataset:{base}/tars", {"image": "webp"}, "has no .webp; it has "),
    "elsewhere": ("webdataset:s3://b/{{0..3}}.tar", {}, "lies elsewhere; copy the shards here"),
    "no decoder": ("webdataset:{base}/tars", {"decoder": "cv2"}, "decoder is 'cv2'; choose pillow or torchvision"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_data_are_refused_by_name(gallery: Gallery, places: dict[str, Place], case: str) -> None:
    import gzip

    base = Path(places["hf"][0].partition(":")[2]).parent
    tar, parquet = (base / "tars/000.tar").read_bytes(), next((base / "files").iterdir()).read_bytes()
    (base / "packed").mkdir(exist_ok=True)
    (base / "packed/packed.tar.gz").write_bytes(gzip.compress(tar))
    (base / "cut.tar").write_bytes(tar[: len(tar) // 2])
    (base / "torn.parquet").write_bytes(parquet[:-9])
    spec, arguments, message = REFUSED[case]
    text = refusal(lambda: open_data(spec.format(base=base, pictures=gallery.pictures), arguments))
    assert re.search(message, text), text


def test_several_candidates_and_labels_beyond_the_names_are_named(tmp_path: Path) -> None:
    picture = {"bytes": b"\xff\xd8\xff", "path": None}
    names = datasets.ClassLabel(names=["a", "b"])
    features = {"image": datasets.Image(), "depth": datasets.Image(), "label": names, "coarse": names}
    row: dict[str, Any] = {"image": [picture] * 2, "depth": [picture] * 2, "label": [0, -1], "coarse": [1, 0]}
    table = datasets.Dataset.from_dict(row, features=datasets.Features(features))
    table.save_to_disk(str(tmp_path / "hf"))
    table.to_parquet(tmp_path / "a.parquet")
    for spec, flag in ((f"hf:{tmp_path}/hf", "image"), (f"parquet:{tmp_path}/a.parquet", "column")):
        assert "2 columns hold encoded images: image, depth" in refusal(lambda spec=spec: open_data(spec, {}))
        chosen = {flag: "image"}
        assert "2 columns hold classes: label, coarse" in refusal(lambda: open_data(spec, chosen))  # noqa: B023
        assert open_data(spec, chosen, labels="none").is_labelled is False
        data = open_data(spec, {**chosen, "label": "label"})
        assert (data.labels.tolist(), data.class_names) == ([0, -1], ("a", "b"))
    plain = table.remove_columns(["depth", "coarse"]).cast_column("label", datasets.Value("int64"))
    plain.map(lambda _: {"label": 2}).cast_column("label", datasets.Value("int64")).to_parquet(tmp_path / "b.parquet")
    message = refusal(lambda: open_data(f"parquet:{tmp_path}/b.parquet", {}))
    assert "no column is known to hold classes; name it by --data-set label=COLUMN, or --labels none" in message
    (tmp_path / "names.txt").write_text("a\nb\n")
    labelled = {"label": "label", "class_names": str(tmp_path / "names.txt")}
    message = refusal(lambda: open_data(f"parquet:{tmp_path}/b.parquet", labelled))
    assert "sample 0 (0) has label 2: names.txt names 2 classes, 0 to 1" in message
