"""contents: every sample is the one that the teacher saw, whatever decodes, augments or mixes it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from PIL import Image
from torch import Tensor

from kdcache.errors import DamagedError, InvalidInputError, ReplayError
from kdcache.labels.encoding import Contents, Encoding
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.store.plan import partners_of
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.training.loader_options import LabelOptions
from kdcache.views.contents import content_fingerprint, contents_of
from kdcache.views.data import Data, describe_samples
from kdcache.views.sources import open_data
from kdcache.whole_store.recode import recode_store
from kdcache.whole_store.recode_plan import Narrowing
from kdcache.whole_store.verify import inspect_files
from tests.kits import stages
from tests.kits.stages import ROWS, Stage, student
from tests.kits.views import FULL, TOPK, Mix, digits, extract_store, make_setting, plan_of, teacher_of

stage = stages.stage
COUNT = 200
BYTES, VALUES = (TOPK.model_copy(update={"contents": kind}) for kind in ("bytes", "values"))


@dataclass
class Photos:
    """A user's pictures: JPEG files in memory, decoded by a decoder that may be a few levels off; `files` by index."""

    files: list[bytes]
    labels: list[int]
    off: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.frombuffer(bytearray(self.files[index]), dtype=torch.uint8).reshape(1, 8, 8)
        return (image // 2 + 20 + self.off).to(torch.uint8), self.labels[index]

    def content(self, index: int) -> bytes:
        return self.files[index]


def photos(*, off: int = 0, swap: tuple[int, ...] = ()) -> Data:
    """200 pictures; those at `swap` are exchanged in pairs."""
    rng = np.random.RandomState(0)
    files = [rng.randint(0, 200, 64).astype(np.uint8).tobytes() for _ in range(COUNT)]
    for a, b in zip(swap[::2], swap[1::2], strict=True):
        files[a], files[b] = files[b], files[a]
    data = describe_samples(Photos(files, [i % 10 for i in range(COUNT)], off), "photos")
    return replace(data, ids=[str(i) for i in range(COUNT)], probe=lambda index: b"")


def store_of(path: Path, data: Data, encoding: Encoding, mix: Mix = "none") -> Store:
    return extract_store(path, make_setting(data, teacher_of(), plan_of("none", mix), encoding))


def epoch(data: Data, store: Store, **options: Any) -> int:
    """The rows of two epochs, and so of two views, of a loader."""
    positions = options.pop("positions", None)
    loader = Loader(data, [store], batch_size=32, epochs=2, positions=positions, labels=LabelOptions(**options))
    return sum(len(batch.y) for _ in range(2) for batch in loader)


def test_the_fingerprint_is_32_bits_of_xxh3_over_the_sample() -> None:
    samples, image = Photos([b"kdcache"], [0]), np.arange(6, dtype=np.int16).reshape(2, 3)
    assert content_fingerprint(samples, 0, None, "bytes") == 0x2D80E428, "the page's example"
    values = b"int16[2, 3]" + image.astype("<i2").tobytes()
    assert content_fingerprint(samples, 0, image, "values") == xxhash.xxh3_64(values).intdigest() % 2**32
    for same in (image.astype(">i2"), torch.from_numpy(image), np.asfortranarray(image)):
        assert content_fingerprint(samples, 0, same, "values") == content_fingerprint(samples, 0, image, "values")
    for other in (image.T, image.astype(np.int32), image + 1):
        assert content_fingerprint(samples, 0, other, "values") != content_fingerprint(samples, 0, image, "values")


def test_sources_give_bytes_and_a_user_s_own_gives_values_unless_it_says_so(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4), (name == "a" and "red") or "blue").save(tmp_path / "pictures" / name / "0.png")
    folder = open_data(f"folder:{tmp_path / 'pictures'}", {}).samples
    assert contents_of(folder) == contents_of(digits(10).samples) == contents_of(photos().samples) == "bytes"
    data = (tmp_path / "pictures/a/0.png").read_bytes()
    assert content_fingerprint(folder, 0, None, "bytes") == xxhash.xxh3_64(data).intdigest() % 2**32
    plain = [(torch.zeros(1, 2, 2), 0)]
    assert contents_of(plain) == "values"
    with pytest.raises(InvalidInputError, match=r"list gives none; give it a method content\(index\)"):
        content_fingerprint(plain, 0, None, "bytes")
    with pytest.raises(InvalidInputError, match=r"content\(0\) of Photos returned str; return the sample's bytes"):
        content_fingerprint(Photos(["text"], [0]), 0, None, "bytes")  # type: ignore[list-item]


@pytest.mark.parametrize("encoding", [BYTES, FULL.model_copy(update={"contents": "bytes"})], ids=["topk", "full"])
@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_a_store_keeps_a_fingerprint_of_every_sample(tmp_path: Path, encoding: Encoding, mix: Mix) -> None:
    data = photos()
    store = store_of(tmp_path / "a.kd", data, encoding, mix)
    wanted = [content_fingerprint(data.samples, index, None, "bytes") for index in store.order.tolist()]
    for view in store.every_view:
        positions = np.arange(COUNT)
        assert store.segments[0].read(view, positions, ["contents"]).arrays["contents"].tolist() == wanted
    assert list(store.segments[0].layout.arrays)[-1] == "contents"
    assert inspect_files(str(tmp_path / "a.kd")).whole
    assert epoch(data, store) == 2 * COUNT


def test_pictures_that_are_exchanged_under_accepted_drift_are_refused(tmp_path: Path) -> None:
    """Every view drifts by a few levels, so pixels prove nothing: the bytes do."""
    store, bare = store_of(tmp_path / "a.kd", photos(), BYTES), store_of(tmp_path / "b.kd", photos(), TOPK)
    far = [index for position, index in enumerate(store.order.tolist()) if position >= 64]  # behind the canary
    exchanged = photos(off=2, swap=tuple(far[:40]))
    with pytest.raises(ReplayError, match="a few levels off at most"):
        epoch(photos(off=2), store)
    assert epoch(photos(off=2), store, accept_drift=True) == 2 * COUNT
    assert epoch(exchanged, bare, accept_drift=True) == 2 * COUNT, "a store of before cannot tell"
    with pytest.raises(ReplayError, match=r"sample \d+ \(position \d+\) is another than .*restore its file"):
        epoch(exchanged, store, accept_drift=True)


@pytest.mark.parametrize("encoding", [BYTES, VALUES, TOPK], ids=["bytes", "values", "store of before"])
def test_partners_that_are_drawn_only_to_be_mixed_in_are_compared(tmp_path: Path, encoding: Encoding) -> None:
    store, chosen = store_of(tmp_path / "a.kd", photos(), encoding, "mixup"), np.arange(0, COUNT, 5)
    partners = {int(p) for view in (0, 1) for p in partners_of(store.identity.plan, chosen, view, COUNT) if p % 5}
    others = sorted(int(store.order[position]) for position in partners)[: len(partners) // 2 * 2]
    assert epoch(photos(), store, positions=chosen) == 2 * len(chosen)
    with pytest.raises(ReplayError, match=r"(is another than|is not the view the teacher saw)"):
        epoch(photos(swap=tuple(others)), store, positions=chosen)


def test_decoded_values_are_judged_as_pixels_are(tmp_path: Path) -> None:
    store = store_of(tmp_path / "a.kd", photos(), VALUES)
    with pytest.raises(ReplayError, match="a few levels off at most"):
        epoch(photos(off=2), store)
    assert epoch(photos(off=2), store, accept_drift=True) == 2 * COUNT


@pytest.mark.parametrize("kind", ["bytes", "values"])
def test_a_later_pass_refuses_a_sample_that_has_changed(stage: Stage, tmp_path: Path, kind: Contents) -> None:
    """The pixels of the changed sample need not differ in the views of the first pass: 8 bits a row may agree."""
    code = tmp_path / "own.py"
    code.write_text(OWN.format(content="" if kind == "values" else CONTENT))
    asked = {"data": f"{code}:Own", "data_set": {}, "transform": "none", "transform_set": {}, "min_accuracy": 0.0}
    extract(stage.asked(tmp_path / "a.kd", views="1", **asked))
    assert Store.open(tmp_path / "a.kd").identity.encoding.contents == kind
    changed = 150
    position = int(np.flatnonzero(Store.open(tmp_path / "a.kd").order == changed)[0])
    assert position >= 64, "the canary would have told"
    with pytest.raises(ReplayError, match=rf"sample {changed} \(position {position}\)"):
        extract(stage.asked(tmp_path / "a.kd", views="1:2", **{**asked, "data_set": {"changed": changed}}))
    assert extract(stage.asked(tmp_path / "a.kd", views="1:2", **asked)).content_id is not None


CONTENT = "    def content(self, i): return self.pictures[i].tobytes()\n"
OWN = """import numpy as np, torch
class Own:
    def __init__(self, changed=-1):
        self.pictures = np.random.RandomState(0).randint(0, 256, (300, 1, 8, 8)).astype("u1")
        self.ids, self.labels = [str(i) for i in range(300)], [i % 10 for i in range(300)]
        self.class_names = list("0123456789")
        if changed >= 0: self.pictures[changed] = 255 - self.pictures[changed]
    def __len__(self): return 300
    def __getitem__(self, i): return torch.from_numpy(self.pictures[i].copy()), self.labels[i]
{content}"""


def test_stores_of_before_stay_as_they_are_and_new_ones_keep_contents(stage: Stage, tmp_path: Path) -> None:
    old = store_of(tmp_path / "old.kd", photos(), TOPK)
    assert "contents" not in old.identity.encoding.model_dump()
    assert "contents" not in old.segments[0].layout.arrays
    new = Store.open(stage.store)
    assert (new.identity.encoding.contents, new.segments[0].layout.arrays["contents"].shape) == ("bytes", (1, ROWS))
    recode_store(stage.store, str(tmp_path / "cut.kd"), Narrowing(top_k=2))
    cut = Store.open(tmp_path / "cut.kd")
    positions = np.arange(ROWS)
    kept, wanted = (store.segments[0].read(0, positions, ["contents"]).arrays["contents"] for store in (cut, new))
    assert np.array_equal(kept, wanted)
    assert train(student(tmp_path / "run", store=(str(tmp_path / "cut.kd"),), epochs=1)).steps == 5


def test_a_forged_fingerprint_is_a_damaged_file(stage: Stage, tmp_path: Path) -> None:
    path = stage.copy(tmp_path / "a.kd")
    shard = path / "views-00000-00002/contents/c/0/1"
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    assert not inspect_files(str(path)).whole
    with pytest.raises(DamagedError, match="contents"):
        train(student(tmp_path / "run", store=(str(path),), epochs=1))
