"""specs: what users write on a command line becomes values and callables, or an error that lists what there is."""

from pathlib import Path
from typing import Any

import pytest

from kdcache.base.specs import call, load_callable, parse_arguments, parse_value, portable_name
from kdcache.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("224", 224),
        ("-0.5", -0.5),
        ("true", True),
        ("[0.5, 1.0]", [0.5, 1.0]),
        ('"224"', "224"),
        ("IMAGENET1K_V2", "IMAGENET1K_V2"),
        ("a=b", "a=b"),
        ("", ""),
        ("C:\\data", "C:\\data"),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_a_value_is_a_toml_literal_or_the_text_itself(text: str, value: Any) -> None:
    found = parse_value(text)
    assert (type(found), found) == (type(value), value)


def test_arguments_are_pairs() -> None:
    pairs = ["size=224", "path=a=b", "name="]
    assert parse_arguments(pairs, "--set") == {"size": 224, "path": "a=b", "name": ""}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["size"], "--set 'size' is not key=value"),
        (["=3"], "--set '=3' is not key=value"),
        (["a b=3"], "is not key=value"),
        (["size=1", "size=2"], "--set gives size twice: 1 and '2'"),
    ],
)
def test_what_is_no_pair_is_refused(pairs: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_arguments(pairs, "--set")


def test_a_callable_of_a_package() -> None:
    assert load_callable("pathlib:Path.home", "teacher")() == Path.home()


def test_a_callable_of_a_file_is_split_from_the_right(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "net.py").write_text("import sys\n\ndef make():\n    return sys.modules[__name__].__file__\n")
    assert load_callable(f"{folder}/net.py:make", "teacher")() == str(folder / "net.py")
    assert load_callable(f"{folder}/net.py:make", "teacher") is load_callable(f"{folder}/net.py:make", "teacher")


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.py").write_text(f"def make():\n    return {name!r}\n")
    assert [load_callable(f"{tmp_path}/{name}/same.py:make", "data")() for name in "aba"] == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet", "neither package.module:callable nor file.py:callable"),
        (":make", "neither"),
        ("kdcache.networks:", "neither"),
        ("no_such_package:make", "there is no module 'no_such_package'.*path/to/file.py:callable"),
        ("kdcache.no_such:make", "there is no module 'kdcache.no_such'"),
        ("kdcache.networks:resnet", "kdcache.networks has no resnet; it has convnet, gpt, gru, mlp, simkd$"),
        ("math:pi", "is a float, not a callable"),
        ("no/such/file.py:make", "there is no file .*no/such/file.py"),
    ],
)
def test_what_a_spec_lacks_is_named(spec: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_callable(spec, "teacher")


def test_a_file_that_fails_keeps_its_own_error_and_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import no_such_dependency\n\ndef make(): ...\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        load_callable(f"{path}:make", "teacher")
    path.write_text("def make():\n    return 3\n")
    assert load_callable(f"{path}:make", "teacher")() == 3


def test_wrong_arguments_are_refused_before_the_call() -> None:
    def make(width: int, depth: int = 2) -> int:
        return width * depth

    assert call(make, {"width": 3}, "teacher make") == 6
    for arguments in ({"width": 3, "heigth": 1}, {}):
        with pytest.raises(InvalidInputError, match=r"teacher make takes other arguments.*it has width, depth"):
            call(make, arguments, "teacher make")


def test_an_error_inside_a_call_stays_what_it_is() -> None:
    def make() -> int:
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        call(make, {}, "teacher make")


def test_a_portable_name_has_no_folders() -> None:
    assert portable_name("/home/me/net.py:make") == "net.py:make"
    assert portable_name("package.net:make") == "package.net:make"
    assert portable_name("torchvision:resnet50") == "torchvision:resnet50"
