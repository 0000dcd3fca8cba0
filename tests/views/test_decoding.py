"""decoding: both decoders give the same pixels, and a store of one is not trained on with the other unawares."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from kdcache.errors import InvalidInputError, ReplayError
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.settings import ExtractSettings
from kdcache.store.manifest import Provenance
from kdcache.store.store import Store
from kdcache.training.loader import Loader
from kdcache.views.decoding import decoded_image, decoded_tensor, decoder_kind
from kdcache.views.replay import require_decoder
from kdcache.views.sources import open_data
from tests.kits.views import picture

PIXELS = v2.functional.to_pil_image(picture(0, height=61, width=47))
EXIF = Image.Exif()
EXIF[0x112] = 6  # rotated by a viewer, by no decoder
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "baseline": ("RGB", "JPEG", {"quality": 85}),
    "progressive": ("RGB", "JPEG", {"progressive": True}),
    "4:4:4": ("RGB", "JPEG", {"subsampling": 0}),
    "4:2:2": ("RGB", "JPEG", {"subsampling": 1}),
    "4:2:0": ("RGB", "JPEG", {"subsampling": 2}),
    "grey": ("L", "JPEG", {}),
    "CMYK": ("CMYK", "JPEG", {}),
    "EXIF": ("RGB", "JPEG", {"exif": EXIF.tobytes()}),
    "PNG": ("RGB", "PNG", {}),
    "grey PNG": ("L", "PNG", {}),
    "palette PNG": ("P", "PNG", {}),
    "alpha PNG": ("RGBA", "PNG", {}),
    "bilevel PNG": ("1", "PNG", {}),
    "16 bit PNG": ("I;16", "PNG", {}),
    "BMP": ("RGB", "BMP", {}),
}


def encoded(mode: str, file_format: str, options: dict[str, Any]) -> bytes:
    image = Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50) * 32) if mode == "I;16" else PIXELS
    file = io.BytesIO()
    (image if mode == "I;16" else image.convert(mode)).save(file, file_format, **options)
    return file.getvalue()


def test_both_decoders_give_the_same_pixels(tmp_path: Path, subtests: pytest.Subtests) -> None:
    path = tmp_path / "picture"
    for kind, given in KINDS.items():
        with subtests.test(kind):
            path.write_bytes(encoded(*given))
            data = path.read_bytes()
            tensor = decoded_tensor(data, str(path))
            assert tensor.dtype == torch.uint8
            assert np.array_equal(tensor.permute(1, 2, 0).numpy(), np.asarray(decoded_image(data, str(path))))


@pytest.mark.parametrize("decode", [decoded_image, decoded_tensor])
def test_a_torn_file_is_named(tmp_path: Path, decode: Any) -> None:
    path = tmp_path / "torn.jpg"
    path.write_bytes(encoded(*KINDS["baseline"])[:-200])
    with pytest.raises(InvalidInputError, match=r"torn.jpg cannot be decoded .*truncated"):
        decode(path.read_bytes(), str(path))
    with pytest.raises(InvalidInputError, match=r"none.jpg cannot be decoded \(it is empty\)"):
        decode(b"", "none.jpg")


def test_a_folder_says_how_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.jpg").write_bytes(encoded(*KINDS["baseline"]))
    plain, tensors = (open_data(f"folder:{tmp_path}", {"decoder": name}) for name in ("pillow", "torchvision"))
    assert decoder_kind(plain.decoder) == decoder_kind(open_data(f"folder:{tmp_path}", {}).decoder) == "pillow"
    assert decoder_kind(tensors.decoder) == "torchvision"
    assert isinstance(plain.samples[0][0], Image.Image)
    assert tuple(tensors.samples[0][0].shape) == (3, 61, 47)
    assert plain.identity() == tensors.identity()  # the same files
    with pytest.raises(InvalidInputError, match="decoder is 'opencv'; choose pillow or torchvision"):
        open_data(f"folder:{tmp_path}", {"decoder": "opencv"})


def test_another_decoder_than_the_store_s_is_refused_with_the_flag_to_give() -> None:
    there, here = Provenance(device="cpu", decoder="torchvision 0.29"), "Pillow 12.0"
    with pytest.raises(ReplayError, match=r"torchvision 0.29 decoded.*by Pillow 12.0.*--data-set decoder=torchvision"):
        require_decoder(there, here, store="a.kd")
    require_decoder(there, here, store="a.kd", accept_drift=True)
    require_decoder(there, "torchvision 0.30", store="a.kd")  # versions are for the replay to judge
    require_decoder(there, "none", store="a.kd")


def test_a_loader_refuses_the_other_decoder_before_it_draws(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for number in range(8):
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(*KINDS["baseline"]))
    settings = ExtractSettings(
        store=str(tmp_path / "a.kd"), data=f"folder:{folder}", data_set={"decoder": "torchvision"},
        transform="imagenet", transform_set={"size": 16}, teacher="kdcache.networks:convnet",
        teacher_set={"width": 4, "channels": 3}, encoding="full", min_accuracy=0.0, workers=0, batch_size=64,
    )  # fmt: skip
    extract(settings)
    store = Store.open(str(tmp_path / "a.kd"))
    same, other = (open_data(f"folder:{folder}", {"decoder": name}) for name in ("torchvision", "pillow"))
    [batch] = Loader(same, stores=[store], batch_size=8, epochs=1)
    assert len(batch.images) == 8
    refused = r"a.kd was extracted .*torchvision \S+ decoded.*by Pillow \S+,.*--data-set decoder=torchvision"
    with pytest.raises(ReplayError, match=refused):
        Loader(other, stores=[store], batch_size=8, epochs=1)
