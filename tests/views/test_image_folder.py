"""image_folder: the files, order and classes of torchvision's ImageFolder; what is left out is counted and named."""

from pathlib import Path
from typing import Any

import pytest
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdcache.errors import InvalidInputError
from kdcache.views.image_folder import list_images
from kdcache.views.sources import open_data


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


NAME = st.text("abZ.é _-1", min_size=1, max_size=6).filter(
    lambda text: text.strip(".") == text and text.strip() == text
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(NAME, st.lists(st.tuples(st.lists(NAME, max_size=2), NAME), min_size=1, max_size=5), min_size=1))
def test_files_stand_in_torchvision_s_order(tmp_path_factory: pytest.TempPathFactory, classes: dict[str, Any]) -> None:
    root = tmp_path_factory.mktemp("folder")
    suffixes = (".jpg", ".PNG", ".jpeg", ".txt", "")
    for name, files in classes.items():
        touch(root, f"{name}/0.png")
        for number, (folders, file) in enumerate(files):
            touch(root, "/".join([name, *(f"{folder}_" for folder in folders), file + suffixes[number % 5]]))
    expected = torchvision.datasets.ImageFolder(str(root))
    listing = list_images(root)
    assert listing.class_names == tuple(expected.classes)
    assert listing.numbers == expected.targets
    assert listing.names == [Path(path).relative_to(root).as_posix() for path, _ in expected.samples]


def test_what_is_left_out_is_counted_by_suffix(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "a/1.png", "a/2.JPG", "b/deep/3.webp", "a/x.txt", "a/y.TXT", "b/.hidden", "b/deep/z.gif",
        "a/.DS_Store", "b/Thumbs.db", "b/desktop.ini", "flat.jpg", "README.md",
    )  # fmt: skip
    listing = list_images(root)
    assert listing.names == ["a/1.png", "a/2.JPG", "b/deep/3.webp"]
    assert listing.notes == (
        "4 files are no pictures by their names (.txt 2, .hidden 1, .gif 1)",
        "1 pictures lie beside the folders of classes and are left out: flat.jpg",
    )
    assert list_images(touch(tmp_path / "c", "k/1.png")).notes == ()


@pytest.mark.parametrize(("suffix", "kind"), [("jfif", "JPEG"), ("JFIF", "JPEG"), ("avif", "AVIF")])
def test_jfif_and_avif_are_taken_and_decoded(tmp_path: Path, suffix: str, kind: str) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 6), (200, 10, 10)).save(tmp_path / f"a/1.{suffix}", kind)
    data = open_data(f"folder:{tmp_path}", {})
    assert (list(data.ids), data.notes, data.samples[0][0].size) == ([f"a/1.{suffix}"], (), (8, 6))
    red, green, _ = data.samples[0][0].getpixel((3, 3))
    assert (red > 150, green < 60) == (True, True)


REFUSED = {
    "no folder": ((), "is no folder with a folder of images a class"),
    "flat": (("1.png", "2.png"), "it has 2 images and no folder"),
    "an empty class": (("a/1.png", "b/notes.txt"), r"1 of its 2 folders have none \(b\); b holds \.txt 1"),
    "nothing but text": (("a/1.txt", "b/2.txt"), r"2 of its 2 folders have none \(a, b\)"),
    "splits": (("train/a/1.png", "val/a/2.png"), "are train, val, which are splits .*--data-set split=train"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_without_classes_of_images_is_refused(tmp_path: Path, case: str) -> None:
    names, message = REFUSED[case]
    with pytest.raises(InvalidInputError, match=message):
        list_images(touch(tmp_path / "root", *names))


def test_classes_that_are_named_as_splits_are_classes(tmp_path: Path) -> None:
    assert list_images(touch(tmp_path, "train/1.png", "test/2.png")).class_names == ("test", "train")


def test_hidden_folders_are_no_classes_and_hold_no_images_of_one(tmp_path: Path) -> None:
    names = ("a/1.png", "b/2.png", ".ipynb_checkpoints/1.png", "__MACOSX/a/1.png", "b/@eaDir/2.png/thumb.jpg")
    root = touch(tmp_path, *names, "a/._1.png", "b/.hidden.png")
    listing = list_images(root)
    assert (listing.class_names, listing.names) == (("a", "b"), ["a/1.png", "b/.hidden.png", "b/2.png"])
    assert listing.notes == (
        "1 file is no picture by its name (._* 1)",
        "hidden folders are left out: .ipynb_checkpoints, __MACOSX, b/@eaDir; --data-set hidden=true takes them",
    )
    whole = list_images(root, hidden=True)
    assert whole.class_names == (".ipynb_checkpoints", "__MACOSX", "a", "b")
    assert set(names) <= set(whole.names)
    with pytest.raises(InvalidInputError, match=r"its folders are hidden \(\.a, \.b\)"):
        list_images(touch(tmp_path / "c", ".a/1.png", ".b/1.png"))
    with pytest.raises(InvalidInputError, match="hidden is 'yes'"):
        open_data(f"folder:{root}", {"hidden": "yes"})


@pytest.mark.parametrize(
    ("link", "target"),
    [("a/loop", "../a"), ("a/deep/loop", ".."), ("a/deep/all", "../.."), ("b/loop", "."), ("all", ".")],
)
def test_a_link_that_leads_back_is_refused_by_name(tmp_path: Path, link: str, target: str) -> None:
    root = touch(tmp_path, "a/1.png", "a/deep/2.png", "b/3.png")
    (root / link).symlink_to(target, target_is_directory=True)
    with pytest.raises(InvalidInputError, match=f"{link} in .* leads back into .*; remove that link"):
        list_images(root)


def test_links_from_class_to_class_that_lead_back_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/2.png")
    (root / "a/b").symlink_to("../b")
    (root / "b/a").symlink_to("../a")
    with pytest.raises(InvalidInputError, match=r"a/b/a in .* leads back into a,"):
        list_images(root)


def test_links_to_other_folders_are_followed(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "a/1.png", "b/2.png")
    touch(tmp_path / "elsewhere", "3.png")
    (root / "a/more").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    listing = list_images(root)
    assert listing.names == ["a/1.png", "a/more/3.png", "b/2.png", "c/3.png"]
    assert listing.notes == ("1 folders are met again by a link, with their images: c is a/more",)
