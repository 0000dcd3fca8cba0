"""Clean set-ups: the words of `kdcache extract` and `kdcache train` that go through, and the notes that are true then.

Words name what lies in a session's folder as `{name}`, a field of `Places`.
"""

import shlex
import shutil
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path

import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

from kdcache.training.run_folder import save_weights
from tests.kits.pictures import Gallery, write_pictures
from tests.kits.views import trained_network

NETWORK = "kdcache.networks:convnet"
CODE = Path(__file__).with_name("users_code.py")

FOLDER = "--data folder:{data} --data-set split=train"
COLOUR = f"{NETWORK} --student-set width=4 --student-set channels=3"
CONVNET = f"--teacher {NETWORK} --teacher-set width=8 --teacher-set channels=3"
GOOD = f"{CONVNET} --weights {{weights}} --top-k 2"
CROPS = "--transform imagenet --transform-set size=16 --transform-set scale=[0.6,1.0] --views 2"


@dataclass(frozen=True)
class Setup:
    """A set-up that is clean, as words of a command line.

    data: of extract and train. teacher: of extract. views: of extract, and those that name a transform of the user's
    own, of train. again: of a second extract into the same store, none where it is empty. student: after --student.
    val: those that name a validation split, none where it is empty. train: further words of train. notes: a part of
    each note of extract, in order; train_notes: of train. rows: of the data set; 0: not held against the store.
    """

    data: str = FOLDER
    teacher: str = GOOD
    views: str = CROPS
    again: str = ""
    student: str = COLOUR
    val: str = ""
    train: str = ""
    notes: tuple[str, ...] = ()
    train_notes: tuple[str, ...] = ()
    rows: int = 0

    @property
    def own_transform(self) -> str:
        """The words of `views` that name a transform of the user's own, which train needs as well; "" for a preset."""
        words = self.views.split()
        pairs = [(flag, value) for flag, value in pairwise(words) if flag in ("--transform", "--transform-set")]
        return " ".join(chain.from_iterable(pairs)) if any(":" in value for _, value in pairs) else ""


@dataclass(frozen=True)
class Places:
    """The session's folders and files, as texts: pictures of four classes (`train` and `test` of `data`; `pictures` is
    the former), `two` of their classes, the same pictures in many kinds of file (`kinds`) and under unusual names
    (`names`), teachers' weights, a class map, the user's code."""

    data: str
    pictures: str
    two: str
    kinds: str
    names: str
    digits_weights: str
    weights: str
    pth: str
    class_map: str
    code: str

    def words(self, text: str) -> list[str]:
        """Words of a command line, with places for their names."""
        values = asdict(self)
        return [word.format(**values) for word in shlex.split(text)]


def make_places(folder: Path, gallery: Gallery) -> Places:
    """All that set-ups name, made in a folder. Teachers: that of the gallery, and one of digits."""
    for split, seed in (("train", 5), ("test", 6)):
        write_pictures(folder / "data" / split, seed=seed, each=12)
    pictures = folder / "data" / "train"
    for name in ("cat", "coffee"):
        shutil.copytree(pictures / name, folder / "two" / name)
    write_kinds(pictures, folder / "kinds")
    write_names(pictures, folder / "names")
    save_weights(folder / "digits.safetensors", trained_network())
    torch.save({"state_dict": load_file(gallery.weights), "epoch": 3}, folder / "teacher.pth")
    (folder / "classes.txt").write_text("# teacher = data\n0 = cat\n1 = coffee\n2 = eye\n3 = tissue\n")
    return Places(
        data=str(folder / "data"),
        pictures=str(pictures),
        two=str(folder / "two"),
        kinds=str(folder / "kinds"),
        names=str(folder / "names"),
        digits_weights=str(folder / "digits.safetensors"),
        weights=gallery.weights,
        pth=str(folder / "teacher.pth"),
        class_map=str(folder / "classes.txt"),
        code=str(CODE),
    )


def write_kinds(source: Path, target: Path) -> None:
    """The pictures of a folder in the kinds of file that people have: grey, palette, transparent, CMYK, turned by
    EXIF, progressive, and under every ending, some in folders of their own."""
    for number, path in enumerate(sorted(source.glob("*/*"))):
        image = Image.open(path).convert("RGB")
        place = target / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        name = f"{number:03d}"
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by 90 degrees to see it upright
        (place / "more" / "of them").mkdir(parents=True, exist_ok=True)
        match number % 12:
            case 0:
                image.convert("L").save(place / f"{name}.png")
            case 1:
                image.quantize(64).save(place / f"{name}.png")
            case 2:
                image.putalpha(200)
                image.save(place / f"{name}.PNG")
            case 3:
                image.convert("CMYK").save(place / f"{name}.jpg", quality=95)
            case 4:
                image.transpose(Image.Transpose.ROTATE_90).save(place / f"{name}.jpg", exif=exif, quality=95)
            case 5:
                image.save(place / f"{name}.jpeg", progressive=True, quality=95)
            case 6:
                image.save(place / f"{name}.JPG", quality=95)
            case 7:
                image.convert("L").save(place / f"{name}.jpg", quality=95)
            case 8:
                image.save(place / f"{name}.webp", lossless=True)
            case 9:
                image.save(place / "more" / "of them" / f"{name}.bmp")
            case 10:
                image.save(place / "more" / f"{name}.tif")
            case _:
                ImageOps.posterize(image, 7).save(place / "more" / f"{name}.png", optimize=True)


NAMES = ("A café, au lait", "B кот 🐈", "c_two  spaces ", 'd\'Eau "x" [bold]')


def write_names(source: Path, target: Path) -> None:
    """The pictures of a folder under unusual names of classes, in the order of the plain ones, and of files."""
    for place, name in zip(sorted(source.iterdir()), NAMES, strict=True):
        (target / name).mkdir(parents=True)
        for number, path in enumerate(sorted(place.iterdir())):
            file_name = (f"{number} é.png", f"{number}, two\nlines.png", f"#{number}%20.png", f"-{number}.png")[
                number % 4
            ]
            Image.open(path).convert("RGB").save(target / name / file_name)
