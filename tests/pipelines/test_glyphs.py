"""Glyphs are drawn by the fonts of named packages: a family is in one split, and what is missing is named."""

from pathlib import Path

import matplotlib as mpl
import pytest
import torch

from kdcache.errors import InvalidInputError
from kdcache.pipelines.studies.glyphs import CHARACTERS, SPLITS, glyphs

TRAIN, TEST = SPLITS["train"], SPLITS["test"]


@pytest.fixture
def packages(tmp_path: Path) -> str:
    """Lists of packages as Debian keeps them, of which one of each split has fonts."""
    folder = Path(mpl.get_data_path(), "fonts/ttf")
    for name in (*TRAIN, *TEST):
        (tmp_path / f"{name}.list").write_text("/usr/share/doc\n")
    for name, pattern in ((TRAIN[0], "DejaVuSans*.ttf"), (TEST[0], "DejaVuSerif*.ttf")):
        fonts = sorted(map(str, folder.glob(pattern)), reverse=True)
        (tmp_path / f"{name}.list").write_text(
            "\n".join(["/usr", *fonts, "/nowhere/gone.ttf", str(folder / "cmex10.ttf")])
        )
    return str(tmp_path)


def test_each_font_gives_every_character_in_the_split_of_its_package(packages: str) -> None:
    train, test = (glyphs(split, 16, packages) for split in SPLITS)
    for data in (train, test):
        assert len(data) > 0
        assert len(data) % len(CHARACTERS) == 0
        image, label = data[len(CHARACTERS) + 10]
        assert image.shape == (1, 16, 16)
        assert data.class_names[label] == "A"
    ours = {picture.numpy().tobytes() for picture in train.images}
    assert not any(picture.numpy().tobytes() in ours for picture in test.images[: len(CHARACTERS)])
    assert (glyphs("train", 16, packages).images == train.images).all()


def test_characters_of_a_font_differ_and_nothing_is_cut(packages: str) -> None:
    font = glyphs("train", 28, packages).images[: len(CHARACTERS), 0]
    assert len({picture.numpy().tobytes() for picture in font}) > 60
    border = torch.cat([font[:, 0], font[:, -1], font[:, :, 0], font[:, :, -1]], dim=1)
    assert border.float().mean() < 3, "letters are not cut at the border"
    assert (font.amax(dim=(1, 2)) > 150).all()


def test_missing_packages_and_wrong_arguments_are_named(packages: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="split is 'val'; choose train or test"):
        glyphs("val", 16, packages)
    with pytest.raises(InvalidInputError, match="side is 4"):
        glyphs("train", 4, packages)
    (tmp_path / f"{TEST[0]}.list").write_text("/usr")
    with pytest.raises(InvalidInputError, match="no package of the test split has a font"):
        glyphs("test", 16, packages)
    (tmp_path / f"{TEST[0]}.list").unlink()
    with pytest.raises(InvalidInputError, match=f"1 of {len(TRAIN) + len(TEST)} packages .* apt install {TEST[0]}$"):
        glyphs("train", 16, packages)
