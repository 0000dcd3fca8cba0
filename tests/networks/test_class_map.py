"""class_map and class_names: a teacher's classes by name, by a user's file, or refused; never by number in silence."""

from pathlib import Path

import pytest
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdcache.errors import InvalidInputError
from kdcache.networks.class_map import ClassMap, class_map_by_name, read_class_map
from kdcache.networks.class_names import Vocabulary, synsets, vocabularies
from kdcache.networks.small import convnet
from kdcache.store.lineage import weights_metadata
from kdcache.training.run_folder import save_weights

ANIMALS = ("ant", "bee", "cat", "crane", "crane", "Cardigan", "cardigan", "great_owl")
KNOWN = Vocabulary("the weights w", ANIMALS)
IMAGENET = Vocabulary("ImageNet's synsets", synsets(), is_known=False)


def test_imagenet_s_synsets_are_those_that_timm_ships() -> None:
    import timm

    shipped = Path(timm.__file__).parent / "data/_info/imagenet_synsets.txt"
    assert synsets() == tuple(shipped.read_text().split())
    assert len(set(synsets())) == 1000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True), st.permutations("abcdefgh"))
def test_the_map_takes_each_class_to_its_name(names: list[str], teacher: list[str]) -> None:
    found = class_map_by_name(names, [Vocabulary("x", tuple(teacher))], classes=8)
    if names == teacher:
        assert found == ClassMap()
        return
    assert (len(found.map), found.classes, len(found.notes)) == (8, len(names), 1)
    assert all((label == -1) if name not in names else names[label] == name
               for name, label in zip(teacher, found.map, strict=True))  # fmt: skip


def test_names_match_as_written_else_without_case_and_underscores() -> None:
    assert KNOWN.numbers("cardigan") == (6,)
    assert KNOWN.numbers("CARDIGAN") == (5, 6)
    assert KNOWN.numbers("Great owl") == (7,)
    assert KNOWN.numbers("crane") == (3, 4)
    assert KNOWN.numbers("dog") == ()


def test_a_folder_of_synsets_is_matched_with_any_network_of_1000_classes() -> None:
    found = class_map_by_name(("n02124075", "n01440764"), [IMAGENET], classes=1000)
    assert [(number, label) for number, label in enumerate(found.map) if label >= 0] == [(0, 1), (285, 0)]
    assert class_map_by_name(synsets(), [IMAGENET], classes=1000) == ClassMap()


REFUSED = {
    "more classes, none known": (("cat", "coffee", "rocket"), [], 1000, ("1,000 classes", "3 (cat, coffee, rocket)")),
    "other names": (("tiger", "lion"), [KNOWN], 8, ("8 classes", "2 (tiger, lion)", "it has no tiger, lion")),
    "one is not known": (("bee", "cat", "zebra"), [KNOWN], 8, ("it has no zebra",)),
    "two of one name": (("ant", "crane"), [KNOWN], 8, ("several are named 'crane': 3, 4",)),
    "as many, shifted": (("bee", "cat", "x", "y"), [Vocabulary("w", ("ant", "bee", "cat", "x"))], 4, ("no y",)),
    "as many, one renamed": (("ant", "bee", "zoo"), [Vocabulary("w", ("ant", "bee", "cat"))], 3, ("no zoo",)),
    "fewer, shifted": (("ant", "bee", "cat"), [Vocabulary("w", ("bee", "cat"))], 2, ("no ant",)),
    "twins of the data": (("bee", "Bee"), [KNOWN], 8, ("one name",)),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_name_tells_is_refused_with_both_counts_and_the_ways_on(case: str) -> None:
    names, known, classes, words = REFUSED[case]
    with pytest.raises(InvalidInputError) as refused:
        class_map_by_name(names, known, classes=classes)
    message = str(refused.value)
    assert all(word in message for word in (*words, "--class-map FILE", "--labels none")), message


def test_numbers_hold_where_no_name_speaks_against_them() -> None:
    assert class_map_by_name((), [KNOWN], classes=8) == ClassMap()
    assert class_map_by_name(("a", "b"), [], classes=2) == ClassMap()
    assert class_map_by_name(("a", "b"), [], classes=4, masked=(2, 3)) == ClassMap()
    others = class_map_by_name(("a", "b"), [Vocabulary("w", ("x", "y"))], classes=2)
    assert (others.map, others.notes) == ((), ("the classes have other names in w: they are taken by number",))
    fewer = class_map_by_name(("a", "b", "c"), [], classes=2)
    assert (fewer.map, fewer.notes) == (
        (), ("the data names 3 classes, the teacher answers 2: they are taken by number",)
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match="4 classes"):
        class_map_by_name(("a", "b"), [], classes=4, masked=(1, 3))


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "map.txt").write_bytes(text.encode())
    return str(tmp_path / "map.txt")


@pytest.mark.parametrize(
    "text",
    [
        "2 = tea\n0 = \"milk\"\n1=beer",
        "# three\n\n cat = tea # hot\n'ant' = milk\nbee = 2\n",
        "\ufeffcat = 0\r\nant = 1\r\nbee = beer\r\n3 = -1\r\n",
        "CAT = Tea\nAnt = MILK\nbee='beer'",
    ],
)  # fmt: skip
def test_a_file_maps_names_and_numbers(tmp_path: Path, text: str) -> None:
    found = read_class_map(written(tmp_path, text), ("tea", "milk", "beer"), [KNOWN], classes=8, labels=3)
    assert found == ClassMap((1, 2, 0, -1, -1, -1, -1, -1), 3)


def test_synsets_are_names_in_a_file_and_of_the_data(tmp_path: Path) -> None:
    path = written(tmp_path, "n02124075 = cat\n967 = coffee\n")
    found = read_class_map(path, ("cat", "coffee"), [IMAGENET], classes=1000, labels=2)
    assert (found.map[285], found.map[967], sum(label >= 0 for label in found.map)) == (0, 1, 2)
    path = written(tmp_path, "7 = n02124075")
    assert read_class_map(path, ("n02124075",), [], classes=9, labels=1).map[7] == 0


def test_the_data_s_classes_may_have_no_names(tmp_path: Path) -> None:
    found = read_class_map(written(tmp_path, "5 = 0\n6 = 3"), (), [], classes=8, labels=2)
    assert (found.map, found.classes) == ((-1, -1, -1, -1, -1, 0, 3, -1), 4)
    assert found.notes == ("no class of the teacher is mapped to 1, 2: it counts as absent there",)
    same = read_class_map(written(tmp_path, "0 = 0\n1 = 1"), (), [], classes=2, labels=2)
    assert same.map == ()


WRONG = {
    "no equals": ("cat tea", r"line 1: 'cat tea' is not TEACHER = DATA"),
    "one side": ("0 = tea\ncat = # tea", r"line 2: .* is not TEACHER = DATA"),
    "the other side": ("= tea", r"line 1: '= tea' is not TEACHER = DATA"),
    "two equals": ("a = b = c", "is not TEACHER = DATA"),
    "an open quote": ('"cat = tea', "is not TEACHER = DATA"),
    "unknown teacher class": ("dog = tea", r"line 1: the teacher has no class 'dog' \(ant, bee"),
    "unknown data class": ("cat = wine", r"the data has no class 'wine' \(tea, milk, beer\)"),
    "ambiguous": ("crane = tea", r"the teacher has several classes 'crane': 3, 4; give the number"),
    "beyond": ("8 = tea", "the teacher has classes 0 to 7, and no 8"),
    "negative": ("-1 = tea", "the teacher has classes 0 to 7, and no -1"),
    "data beyond": ("7 = 3", "the data has classes 0 to 2, and no 3"),
    "teacher twice": ("cat = tea\n2 = milk", r"line 2: class 2 of the teacher was mapped on line 1"),
    "data twice": ("cat = tea\nbee = 0", "line 2: class 0 of the data has class 2 of the teacher by line 1, and 1"),
    "empty": ("# nothing\n", "maps no class"),
    "all left out": ("1 = -1", "maps no class"),
    "not UTF-8": (None, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_by_its_line(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    path = written(tmp_path, text or "")
    if text is None:
        Path(path).write_bytes(b"caf\xe9 = tea")
    with pytest.raises(InvalidInputError, match=message):
        read_class_map(path, ("tea", "milk", "beer"), [KNOWN], classes=8, labels=3)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_class_map(str(tmp_path / "nowhere.txt"), (), [], classes=8, labels=3)


def test_a_number_that_is_another_class_s_name_is_refused(tmp_path: Path) -> None:
    names = ("10", "3", "7")  # folders in the order of text
    with pytest.raises(InvalidInputError, match='a class named 3, number 1; write "3" for it'):
        read_class_map(written(tmp_path, "0 = 3"), names, [], classes=3, labels=3)
    assert read_class_map(written(tmp_path, '0 = "3"\n1 = "7"\n2 = "10"'), names, [], classes=3, labels=3).map == (
        1,
        2,
        0,
    )
    digits = tuple("0123456789")
    path = written(tmp_path, "\n".join(f"{9 - digit} = {digit}" for digit in range(10)))
    assert read_class_map(path, digits, [], classes=10, labels=10).map == tuple(range(9, -1, -1))


def asked(
    network: nn.Module, spec: str = "nets.py:net", *, file: str = "", classes: int = 3, **arguments: object
) -> list[tuple[str, tuple[str, ...]]]:
    found = vocabularies(network, spec=spec, arguments=arguments, weights=file, classes=classes)
    return [(vocabulary.source, vocabulary.names[:2]) for vocabulary in found]


def test_names_come_from_the_weights_file_the_network_and_libraries(tmp_path: Path) -> None:
    network = convnet(width=2, num_classes=3)
    assert asked(network) == []
    network.class_names = ["x", "y", "z"]
    assert asked(network) == [("the teacher's class_names", ("x", "y"))]
    assert asked(network, classes=4) == []
    path = str(tmp_path / "w.safetensors")
    save_weights(Path(path), network, metadata=weights_metadata([], class_names=("a", "b", "c")))
    assert asked(network, file=path)[0] == (f"the weights {path}", ("a", "b"))
    plain = convnet(width=2)
    categories = torchvision.models.get_model_weights("resnet18").IMAGENET1K_V1.meta["categories"]  # type: ignore[attr-defined]
    for name in ("IMAGENET1K_V1", "DEFAULT", "ResNet18_Weights.IMAGENET1K_V1"):
        found = asked(plain, "torchvision:resnet18", classes=1000, weights=name)
        assert found[0] == ("torchvision's categories", tuple(categories[:2])), name
    assert asked(plain, "torchvision:resnet18", classes=1000)[0][0] == "ImageNet's synsets"
    assert asked(plain, "torchvision:resnet18", classes=1000, weights="NO_SUCH")[0][0] == "ImageNet's synsets"


def test_timm_knows_what_its_pretrained_weights_were_trained_on() -> None:
    import timm

    network = timm.create_model("resnet10t.c3_in1k", pretrained=False)
    found = asked(network, "timm:resnet10t.c3_in1k", classes=1000, pretrained=True)
    assert found[0] == ("timm's label names", synsets()[:2])
    assert [source for source, _ in asked(network, "timm:resnet10t.c3_in1k", classes=1000)] == ["ImageNet's synsets"]
