"""transforms: presets by name, what tells one user's transform from another, and what is refused."""

import functools
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from kdcache.errors import InvalidInputError
from kdcache.store.plan import TransformSpec
from kdcache.views.draw import draw_view, own_generators
from kdcache.views.transforms import (
    PRESETS,
    PadCrop,
    Transform,
    as_tensor,
    build_transform,
    clean_transform,
    describe,
    is_known,
    stored_transform,
)
from tests.kits.views import picture

SIZED = {"imagenet": 12, "randaugment": 12, "trivialaugment": 12, "center": 12}


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_draws_u8_views_of_the_size_asked_for(name: str) -> None:
    size = SIZED.get(name)
    transform, spec = build_transform(name, {} if size is None else {"size": size})
    assert spec == TransformSpec(name=name, arguments={} if size is None else {"size": size})
    with own_generators():
        view = draw_view(transform, picture(1), 0, 0, 0)
    assert (view.dtype, tuple(view.shape)) == (torch.uint8, (3, size or 17, size or 15))


@pytest.mark.parametrize("name", ["light", "randaugment", "trivialaugment"])
def test_presets_without_a_size_keep_the_image_s_own(name: str) -> None:
    with own_generators():
        for channels in (1, 3):
            image = picture(2, channels, 9, 11)
            assert draw_view(PRESETS[name](), image, 0, 0, 0).shape == image.shape


def test_pad_crop_shifts_by_up_to_the_padding() -> None:
    image = torch.full((1, 6, 6), 200, dtype=torch.uint8)
    with own_generators():
        views = [draw_view(PadCrop(2), image, 0, index, 0) for index in range(40)]
    kept = {(int((view[0] > 0).any(1).sum()), int((view[0] > 0).any(0).sum())) for view in views}
    assert {size for pair in kept for size in pair} == {4, 5, 6}


def test_light_flips_as_often_as_asked() -> None:
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4)
    with own_generators():
        for flip, expected in [(0.0, image), (1.0, image.flip(2))]:
            assert torch.equal(draw_view(PRESETS["light"](padding=0, flip=flip), image, 0, 0, 0), expected)


@pytest.mark.parametrize("kind", ["tensor", "PIL"])
@pytest.mark.parametrize("name", ["none", "light", "imagenet", "center"])
def test_known_transforms_draw_from_torch_alone_and_write_into_no_sample(name: str, kind: str) -> None:
    """Why their views need neither random nor numpy seeded, nor a copy of the sample."""
    transform = PRESETS[name](**({"size": SIZED[name]} if name in SIZED else {}))
    assert is_known(transform)
    image = picture(3) if kind == "tensor" else v2.functional.to_pil_image(picture(3))
    before = as_tensor(image).clone()
    with own_generators():
        states = random.getstate(), pickle.dumps(np.random.get_state())
        views = [as_tensor(transform(image)) for _ in range(100)]
        assert states == (random.getstate(), pickle.dumps(np.random.get_state()))
    assert torch.equal(before, as_tensor(image))
    assert (len({view.numpy().tobytes() for view in views}) > 1) == (name in ("light", "imagenet"))


@pytest.mark.parametrize(
    "transform",
    [
        PRESETS["randaugment"](),
        PRESETS["trivialaugment"](),
        v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.5)]),
        v2.Compose([v2.RandomHorizontalFlip(), lambda image: image]),
    ],
)
def test_whatever_is_not_listed_is_not_known(transform: Transform) -> None:
    assert not is_known(transform)


def test_an_unknown_transform_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInputError, match=r"no transform 'rotate'; choose none, light.*file.py:callable"):
        build_transform("rotate", {})


def test_unknown_arguments_are_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInputError, match=r"transform light takes other arguments.*padding, flip"):
        build_transform("light", {"sise": 3})


MINE = """
from torchvision.transforms import v2

def crop(size=8):
    return v2.RandomResizedCrop(size, antialias=True)

def nothing():
    return None
"""


def test_a_user_s_own_transform_is_described_without_this_machine_s_folders(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    transform, spec = build_transform(f"{tmp_path}/mine.py:crop", {"size": 6})
    assert isinstance(transform, v2.RandomResizedCrop)
    assert (spec.name, spec.arguments) == ("mine.py:crop", {"size": 6})
    assert spec.text.startswith("RandomResizedCrop(size=(6, 6)")
    with pytest.raises(InvalidInputError, match="returned a NoneType; it must return a callable"):
        build_transform(f"{tmp_path}/mine.py:nothing", {})


def test_what_a_store_names_is_never_imported(tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text(
        f"open({str(tmp_path / 'sprung')!r}, 'w')\n\ndef make():\n    return lambda x: x\n"
    )
    for name in (f"{tmp_path}/trap.py:make", "os:getcwd"):
        with pytest.raises(InvalidInputError, match=r"--transform"):
            stored_transform(TransformSpec(name=name))
    assert not (tmp_path / "sprung").exists()
    assert isinstance(stored_transform(TransformSpec(name="none")), v2.Identity)


def brighten(image: Any) -> Any:
    return image + 1


def darken(image: Any) -> Any:
    return image - 1


class Plain:
    def __call__(self, image: Any) -> Any:
        return image


class Module(nn.Module):
    def forward(self, image: Any) -> Any:
        return image


def text_of(transform: Any) -> str:
    return describe(transform, "mine.py:make").text


def test_parameters_tell_transforms_apart() -> None:
    assert text_of(v2.RandomErasing(p=0.2)) == text_of(v2.RandomErasing(p=0.2)) != text_of(v2.RandomErasing(p=0.3))
    compose = v2.Compose([v2.RandomHorizontalFlip(0.2), v2.RandomErasing()])
    assert "RandomHorizontalFlip(p=0.2)" in text_of(compose)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: f,
        lambda f: v2.Lambda(f),
        lambda f: functools.partial(f),
        lambda f: v2.Compose([f, v2.RandomErasing()]),
        lambda f: v2.Compose([v2.RandomApply([v2.Lambda(f)], p=0.5)]),
    ],
)
def test_the_source_tells_functions_apart(wrap: Any) -> None:
    texts = [text_of(wrap(function)) for function in (brighten, darken, brighten)]
    assert "source sha256" in texts[0]
    assert texts[0] == texts[2] != texts[1]
    assert not any(" at 0x" in text for text in texts)


def test_the_source_tells_callable_classes_apart() -> None:
    assert text_of(Plain()) == text_of(Plain())
    assert "source sha256" in text_of(Plain())
    assert "source sha256" in text_of(v2.Compose([Plain()]))
    assert "source sha256" in text_of(Module())
    assert text_of(Module()) != text_of(Plain())


def test_a_callable_without_source_is_described_by_its_name() -> None:
    assert "len" in text_of(len)


@pytest.mark.parametrize("kind", [v2.MixUp, v2.CutMix])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda mix: mix,
        lambda mix: v2.Compose([v2.RandomErasing(), mix]),
        lambda mix: v2.Compose([v2.RandomChoice([v2.Identity(), mix])]),
        lambda mix: v2.RandomApply([v2.Compose([mix])]),
        lambda mix: nn.Sequential(v2.Identity(), mix),
    ],
)
def test_mixing_batches_inside_a_transform_is_refused_with_advice(kind: Any, wrap: Any) -> None:
    name = kind.__name__
    with pytest.raises(InvalidInputError, match=f"holds v2.{name}, which mixes batches; use --mix {name.lower()}"):
        describe(wrap(kind(num_classes=4)), "mine.py:make")


def test_the_clean_variant_drops_the_augmentation() -> None:
    image = picture(3, 3, 40, 40)
    for name, arguments, size in [("light", {}, 40), ("randaugment", {"size": 16}, 16), ("center", {"size": 16}, 16)]:
        clean = clean_transform(TransformSpec(name=name, arguments=arguments))
        assert clean is not None
        with own_generators():
            views = [draw_view(clean, image, 0, index, 0) for index in range(3)]
        assert views[0].shape == (3, size, size)
        assert torch.equal(views[0], views[1])
        assert torch.equal(views[0], views[2])
    assert clean_transform(TransformSpec(name="mine.py:make")) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_views_become_plain_contiguous_tensors(channels: int) -> None:
    image = picture(4, channels)
    for view in (v2.functional.to_pil_image(image), v2.functional.to_image(image), image.permute(0, 2, 1).mT):
        tensor = as_tensor(view)
        assert type(tensor) is torch.Tensor
        assert tensor.is_contiguous()
        assert torch.equal(tensor, image)


WRONG = [
    ("imagenet", {"size": 0}),
    ("imagenet", {"size": -5}),
    ("center", {"size": "32"}),
    ("center", {"size": [32, 32]}),
    ("imagenet", {"scale": [1, 0.08]}),
    ("imagenet", {"scale": [2, 5]}),
    ("trivialaugment", {"scale": [0.0, 1.0]}),
    ("trivialaugment", {"scale": 0.5}),
    ("light", {"flip": 5}),
    ("light", {"flip": float("nan")}),
    ("light", {"padding": -1}),
    ("randaugment", {"magnitude": 31}),
    ("randaugment", {"num_ops": True}),
]


@pytest.mark.parametrize(("name", "arguments"), WRONG)
def test_arguments_beyond_a_preset_s_range_are_named(name: str, arguments: dict[str, Any]) -> None:
    [(argument, value)] = arguments.items()
    with pytest.raises(InvalidInputError) as caught:
        build_transform(name, arguments)
    assert f"transform {name}: {argument} is {value!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("randaugment", {"magnitude": 30, "num_ops": 0, "size": 0, "scale": [1, 1]}),
        ("light", {"flip": 0, "padding": 0}),
        ("center", {"size": 1, "resize": 0}),
    ],
)
def test_arguments_at_the_ends_of_a_preset_s_range_are_taken(name: str, arguments: dict[str, Any]) -> None:
    assert build_transform(name, arguments)[1].arguments == arguments
