"""Letters and digits as Debian's fonts draw them: 62 classes, some of which look alike, tested on other fonts."""

import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kdcache.errors import InvalidInputError

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
TRAINING = tuple(
    f"fonts-{name}"
    for name in (
        "adf-accanthis", "adf-baskervald", "adf-ikarius", "adf-irianis", "adf-mekanus", "adf-romande",
        "adf-solothurn", "adf-switzera", "adf-tribun", "adf-universalis", "adf-verana", "croscore", "dejavu-core",
        "dejavu-extra", "ebgaramond", "freefont-ttf", "georgewilliams", "inter", "jetbrains-mono", "junicode", "lato",
        "league-mono", "liberation", "linex", "linuxlibertine", "roboto-unhinted", "tuffy", "urw-base35",
    )
)  # fmt: skip
TESTING = tuple(
    f"fonts-{name}"
    for name in ("adf-gillius", "cabin", "courier-prime", "dustin", "go", "karla", "open-sans", "paratype", "vollkorn")
)  # whose letters no package above has under another name
SPLITS = {"train": TRAINING, "test": TESTING}
DPKG = Path("/var/lib/dpkg/info")  # where Debian lists the files of each package
SUFFIXES = (".otf", ".ttf")
NO_LETTERS = ("D050000L", "Standard Symbols PS", "Linux Biolinum Keyboard O")  # families that draw other things
NO_CHARACTER = "\U0010fffd"  # is drawn as the box for what a font lacks
LEAST_DRAWN = 55  # different pictures that a font must have: some draw small letters as capitals
SIZE, BASELINE = 0.95, 0.74  # of the letters, as parts of the side

Pictures = npt.NDArray[np.uint8]


class Glyphs:
    """Pictures [1, side, side] u8 of a split, font by font, white on black. Each split has its own packages."""

    def __init__(self, split: str, side: int, packages: Path) -> None:
        if split not in SPLITS:
            raise InvalidInputError(f"data glyphs: split is {split!r}; choose {' or '.join(SPLITS)}")
        if not 8 <= side <= 128:
            raise InvalidInputError(f"data glyphs: side is {side}; choose a number of pixels from 8 to 128")
        drawn = (_drawn(path, side) for path in font_files(packages, SPLITS[split]))
        pictures = [picture for picture in drawn if picture is not None]
        if not pictures:
            raise InvalidInputError(f"data glyphs: no package of the {split} split has a font with letters and digits")
        self.images = torch.from_numpy(np.concatenate(pictures))
        self.labels = np.tile(np.arange(len(CHARACTERS)), len(pictures))
        self.class_names = list(CHARACTERS)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])


def glyphs(split: str = "train", side: int = 14, packages: str = str(DPKG)) -> Glyphs:
    """The data set, as `--data kdcache.pipelines.studies.glyphs:glyphs` names it."""
    return Glyphs(split, side, Path(packages))


def font_files(packages: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """The fonts of the packages of these names, in an order that stays. Raises InvalidInputError, with the way to get
    them, where some of either split are not installed: with other fonts it would be another data set."""
    every = [name for split in SPLITS.values() for name in split]
    if missing := [name for name in every if not (packages / f"{name}.list").is_file()]:
        raise InvalidInputError(
            f"data glyphs: {len(missing)} of {len(every)} packages of fonts are not here; on Debian: apt install "
            f"{' '.join(missing)}"
        )
    for name in names:
        listed = (packages / f"{name}.list").read_text().splitlines()
        yield from (path for line in sorted(listed) if (path := Path(line)).suffix in SUFFIXES and path.is_file())


def _drawn(path: Path, side: int) -> Pictures | None:
    """The pictures [62, 1, side, side] of a font; None for one without these characters."""
    font = ImageFont.truetype(path, round(2 * SIZE * side), layout_engine=ImageFont.Layout.BASIC)
    if font.getname()[0] in NO_LETTERS:
        return None
    pictures = [_picture(font, character, side) for character in CHARACTERS]
    different = {picture.tobytes() for picture in pictures}
    if len(different) < LEAST_DRAWN or _picture(font, NO_CHARACTER, side).tobytes() in different:
        return None
    return np.stack(pictures)


def _picture(font: ImageFont.FreeTypeFont, character: str, side: int) -> Pictures:
    """One character [1, side, side], centred on its baseline, drawn at twice the side and averaged."""
    canvas = Image.new("L", (2 * side, 2 * side))
    ImageDraw.Draw(canvas).text((side, 2 * BASELINE * side), character, fill=255, font=font, anchor="ms")
    return np.asarray(canvas.reduce(2), dtype=np.uint8)[None]
