"""Samples of every form become the same image, or are refused by their name; an 8-bit image keeps its pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import torch
import torchvision.transforms as v1
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from kdcache.base.view_span import ViewSpan
from kdcache.errors import InvalidInputError
from kdcache.views.contents import content_fingerprint
from kdcache.views.decoding import decoded_image, decoded_tensor
from kdcache.views.draw import draw_view
from kdcache.views.images import array_image, channels_first, eight_bits, plain_image
from kdcache.views.transforms import build_transform, image_of, takes_images
from kdcache.views.view_stack import ViewRequest
from tests.kits.views import view_dataset

Array = npt.NDArray[Any]


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def view_of(sample: Any, name: str, **arguments: Any) -> torch.Tensor:
    return draw_view(build_transform(name, arguments)[0], sample, 0, 7, 1)


PRESETS: list[tuple[str, dict[str, Any]]] = [
    ("none", {}),
    ("light", {"padding": 2}),
    ("imagenet", {"size": 8}),
    ("randaugment", {"size": 8}),
    ("trivialaugment", {"padding": 2}),
    ("center", {"size": 8}),
]


@pytest.mark.parametrize(("name", "arguments"), PRESETS)
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_an_array_is_drawn_as_the_image_of_its_pixels(name: str, arguments: dict[str, Any], channels: int) -> None:
    array = noise(12, 14, channels) if channels else noise(12, 14)
    image = PIL.Image.fromarray(array[..., 0] if channels == 1 else array)
    expected = view_of(image, name, **arguments)
    assert torch.equal(view_of(array, name, **arguments), expected)
    if channels:
        assert torch.equal(view_of(np.ascontiguousarray(array.transpose(2, 0, 1)), name, **arguments), expected)
    assert torch.equal(view_of(array[::-1][::-1], name, **arguments), expected)  # negative strides on the way


@settings(max_examples=150, deadline=None)
@given(
    st.integers(5, 40), st.integers(5, 40), st.sampled_from([0, 1, 2, 3, 4]), st.booleans(),
    st.sampled_from(["uint8", "float32", "float16", ">f4"]),
)  # fmt: skip
def test_every_form_of_an_array_is_read_as_the_same_image(
    height: int, width: int, channels: int, first: bool, dtype: str
) -> None:
    values = noise(height, width, max(channels, 1)).astype(dtype)
    array = values[..., 0] if not channels else values.transpose(2, 0, 1) if first else values
    image = array_image(array, "sample 3")
    expected = values.transpose(2, 0, 1)
    if isinstance(image, PIL.Image.Image):
        assert (dtype, image.mode) == ("uint8", {1: "L", 3: "RGB"}[max(channels, 1)])
    found = v2.functional.to_image(image)
    assert found.numpy().dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("shape", [(3, 9, 1), (1, 9, 3), (3, 3, 3), (4, 9, 2), (12, 9, 12), (9, 9, 10)])
def test_a_shape_of_two_readings_is_refused_with_both(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        array_image(noise(*shape), "sample 5")
    for part in ("sample 5", str(list(shape)), f"with {shape[2]} channels", f"with {shape[0]}"):
        assert part in str(refused.value)


@pytest.mark.parametrize("shape", [(), (9,), (2, 3, 9, 9), (0, 9, 3), (9, 0)])
def test_a_shape_that_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="sample 5 is an array of shape"):
        array_image(np.zeros(shape, dtype=np.uint8), "sample 5")


def test_many_channels_are_the_shorter_axis() -> None:
    assert channels_first(noise(64, 60, 12), "").shape == (12, 64, 60)
    assert channels_first(noise(12, 64, 60), "").shape == (12, 64, 60)


@pytest.mark.parametrize("dtype", ["float64", "int64", "int32", "uint16", "int8", "bool", "complex64", "object"])
def test_other_dtypes_are_refused_by_the_sample_with_what_to_return(dtype: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"sample 7 is an array of dtype {dtype} .*return .*astype"):
        view_of(noise(9, 9, 3).astype(dtype), "none")


TAKERS: list[tuple[Any, bool]] = [
    (v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.4)]), True),
    (v2.Compose([v2.Identity(), v2.RandomCrop(4)]), True),
    (v2.RandomApply([v2.RandomCrop(4)]), True),
    (torch.nn.Sequential(v2.RandomCrop(4)), True),
    (v1.Compose([v1.RandomCrop(4), v1.ToTensor()]), True),
    (v1.Compose([v1.ToTensor(), v1.Normalize((0.5,), (0.5,))]), False),
    (v1.Compose([v1.ToPILImage(), v1.RandomCrop(4)]), False),
    (v2.Lambda(lambda image: image), False),
    (v1.RandomChoice([v1.RandomCrop(4), v1.Lambda(lambda image: image)]), False),
    (lambda image: image, False),
    (np.flip, False),
]


@pytest.mark.parametrize(("transform", "takes"), TAKERS)
def test_a_transform_that_takes_arrays_is_handed_them(transform: Any, takes: bool) -> None:
    assert takes_images(transform) is takes
    array = noise(9, 9, 3)
    assert isinstance(image_of(array, 0, transform), PIL.Image.Image) is takes
    assert (image_of(array, 0, transform) is array) is not takes


class OfTheUser(v2.Transform):
    """A transform in the user's own file, which leaves the call to its parent."""

    def transform(self, image: Any, params: dict[str, Any]) -> Any:
        return v2.functional.horizontal_flip(image)


def test_a_user_s_own_transform_of_torchvision_s_kind_acts_on_arrays() -> None:
    array = noise(9, 9, 3)
    expected = torch.from_numpy(array[:, ::-1].transpose(2, 0, 1).copy())
    assert torch.equal(draw_view(OfTheUser(), array, 0, 0, 0), expected)


def test_contents_are_of_the_values_that_the_source_gives() -> None:
    arrays = [(noise(9, 9, 3, seed=seed), 0) for seed in range(3)]
    dataset = view_dataset(arrays, build_transform("light", {})[0])
    dataset.contents = ("values",)
    drawn = dataset[ViewRequest(ViewSpan(0, 1), np.arange(3))]
    expected = [content_fingerprint(arrays, index, arrays[index][0], "values") for index in dataset.order.tolist()]
    assert drawn.contents["values"].tolist() == expected


def written(image: PIL.Image.Image, path: Path) -> Path:
    image.save(path)
    return path


@pytest.mark.parametrize("ext", ["png", "tiff", "pgm"])
def test_16_bits_are_scaled_by_their_range(tmp_path: Path, ext: str) -> None:
    grey = noise(9, 8)
    deep = PIL.Image.fromarray(grey.astype(np.uint16) * 257)
    path = written(deep, tmp_path / f"a.{ext}")
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(np.asarray(decoded_image(path.read_bytes(), str(path))), expected)
    np.testing.assert_array_equal(decoded_tensor(path.read_bytes(), str(path)).permute(1, 2, 0).numpy(), expected)
    for name, arguments in PRESETS:  # as a user's own data set gives it
        found = view_of(deep, name, **arguments)
        assert torch.equal(found, view_of(PIL.Image.fromarray(grey), name, **arguments)), name


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 65535), min_size=4, max_size=4))
def test_16_bits_round_to_the_nearest_of_8(values: list[int]) -> None:
    image = PIL.Image.fromarray(np.array([values], dtype=np.uint16))
    assert np.asarray(eight_bits(image, "")).tolist() == [[round(value * 255 / 65535) for value in values]]


def test_an_own_transform_that_converts_16_bits_keeps_them() -> None:
    deep = PIL.Image.fromarray(noise(9, 8).astype(np.uint16) * 257 + 1)
    transform = v2.Compose([v2.CenterCrop(8), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    found = draw_view(transform, deep, 0, 0, 0)
    np.testing.assert_allclose(found[0].numpy(), np.asarray(v2.functional.center_crop(deep, [8, 8])) / 65535, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "ext"),
    [
        (noise(9, 8).astype(np.float32) / 255, "tiff"),
        (noise(9, 8).astype(np.float32) * 1000, "tiff"),
        (noise(9, 8).astype(np.int32) * 1000, "tiff"),
        (noise(9, 8).astype(np.int32) - 300, "tiff"),
    ],
    ids=["0..1", "0..255000", "I of 18 bits", "negative"],
)
@pytest.mark.parametrize("decode", [decoded_image, decoded_tensor])
def test_a_range_that_nobody_knows_is_refused_by_the_file_s_name(
    tmp_path: Path, values: Array, ext: str, decode: Any
) -> None:
    path = written(PIL.Image.fromarray(values), tmp_path / f"deep.{ext}")
    with pytest.raises(InvalidInputError, match=r"deep\.tiff has pixels of mode [IF], from .* 8 bits"):
        decode(path.read_bytes(), str(path))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_8_bit_values_in_deep_files_are_read_as_ever(tmp_path: Path, dtype: Any) -> None:
    path = written(PIL.Image.fromarray(noise(9, 8).astype(dtype)), tmp_path / "a.tiff")
    with PIL.Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decoded_image(path.read_bytes(), str(path))), expected)
    assert expected.max() > 250


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"])
def test_files_of_8_bit_modes_keep_their_pixels(mode: str) -> None:
    image = PIL.Image.fromarray(noise(9, 8, 3)).convert("L" if mode in ("LA", "PA") else "RGB").convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF") if mode not in ("PA", "HSV") else PIL.Image.fromarray(noise(9, 8, 3)).save(file, "PNG")
    file.seek(0)
    with PIL.Image.open(file) as opened:
        expected = np.asarray(opened.convert("RGB"))
    file.seek(0)
    np.testing.assert_array_equal(np.asarray(decoded_image(file.getvalue(), "file")), expected)


def test_a_transparent_palette_has_the_colours_that_it_names() -> None:
    rgb = noise(9, 8, 3) // 86 * 86
    image = PIL.Image.fromarray(rgb).quantize(64)
    image.info["transparency"] = bytes([0] + [255] * 63)
    plain = plain_image(image, "", deep=True)
    assert plain.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(image.convert("RGBA"))[..., :3])


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_samples_of_8_bit_modes_are_handed_on_as_they_are(mode: str) -> None:
    image = PIL.Image.fromarray(noise(9, 8, 3)).convert(mode)
    assert image_of(image, 0, build_transform("light", {})[0]) is image


def test_two_levels_and_palettes_are_images() -> None:
    two = PIL.Image.fromarray(noise(9, 8) > 127)
    assert sorted(np.unique(view_of(two, "none").numpy())) == [0, 255]
    palette = PIL.Image.fromarray(noise(9, 8, 3)).quantize(8)
    assert torch.equal(view_of(palette, "none"), v2.functional.pil_to_tensor(palette.convert("RGB")))


@pytest.mark.parametrize(
    ("sample", "text"), [(None, "is a NoneType"), ([1, 2], "is a list"), (torch.zeros(4, 4), r"has shape \[4, 4\]")]
)
def test_what_is_no_image_is_named_with_its_sample(sample: Any, text: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the view of sample 7 {text}"):
        view_of(sample, "none")


@pytest.mark.parametrize(
    ("others", "text"),
    [
        (torch.zeros(1, 9, 9, dtype=torch.uint8), r"1 and 3 channels|3 and 1 channels.*convert\('RGB'\)"),
        (torch.zeros(3, 9, 9), "one dtype"),
        (torch.zeros(3, 9, 8, dtype=torch.uint8), "ends in one size"),
    ],
)
def test_views_that_differ_name_samples_and_cause(others: torch.Tensor, text: str) -> None:
    samples = [(others if index == 2 else torch.zeros(3, 9, 9, dtype=torch.uint8), 0) for index in range(4)]
    dataset = view_dataset(samples, v2.Identity())
    with pytest.raises(InvalidInputError, match=text) as refused:
        dataset[ViewRequest(ViewSpan(0, 1), np.arange(4))]
    assert "sample 2 gives" in str(refused.value)
