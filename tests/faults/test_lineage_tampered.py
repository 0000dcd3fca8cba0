"""lineage from others: what is refused in a weights file, what counts as absent in a manifest, and what is cut."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdcache.base.canonical import canonical_json
from kdcache.errors import InvalidInputError
from kdcache.store.inspection import describe_store
from kdcache.store.layout import MANIFEST
from kdcache.store.lineage import (
    BYTES,
    DEPTH,
    ENTRIES,
    KEY,
    Ancestor,
    chain_of,
    lineage_of,
    read_lineage,
    weights_metadata,
)
from kdcache.store.lineage_text import render
from kdcache.store.manifest import Identity
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from tests.cli.test_cli import Capture, kdcache, refusal
from tests.kits import stages
from tests.kits.stages import Stage, network
from tests.kits.stores import make_case, write_store

stage = stages.stage

ID = {number: str(number) * 64 for number in range(1, 5)}


def nested(depth: int, width: int = 1) -> list[Any]:
    """Parents of parents as parsed JSON: `width` stores, the first of which has the next generation behind it."""
    level: list[Any] = []
    for _ in range(depth):
        level = [{"content_id": ID[1], "parents": level}, *({"content_id": ID[2]} for _ in range(width - 1))]
    return level


def text(stores: Any, **changes: Any) -> str:
    return canonical_json({"format": 1, "stores": stores, **changes}).decode()


TAMPERED: dict[str, tuple[str, str]] = {
    "no JSON": ("{", "is not JSON"),
    "a digit too many": ("9" * 5000, "is not JSON"),
    "nested beyond the parser": ("[" * 100_000, "is not JSON"),
    "nested in full": ('{"format":1,"stores":' + "[" * 100_000 + "]" * 100_000 + "}", "is not JSON"),
    "a list": ("[]", "is no record of format 1 and stores"),
    "a number": ("3", "is no record of format 1 and stores"),
    "no stores": ('{"format":1}', "is no record of format 1 and stores"),
    "another key": (text([], owner="me"), "is no record of format 1 and stores"),
    "a newer format": (text([], format=2, generations=[]), "is of format 2; this kdcache reads 1: upgrade kdcache"),
    "stores of a word": (text("store"), "is not of kdcache's form: stores"),
    "a store of a number": (text([7]), "is not of kdcache's form: stores.0"),
    "an unknown key": (text([{"content_id": ID[1], "path": "/home"}]), "stores.0.path: Extra inputs"),
    "an id of a number": (text([{"content_id": 7}]), "stores.0.content_id: Input should be a valid string"),
    "a word as id": (text([{"content_id": "../../evil"}]), "names a store by '../../evil', None, None"),
    "a word as digest": (text([{"content_id": ID[1], "identity": "x"}]), "names a store by"),
    "a digest with a newline": (text([{"content_id": ID[1] + "\n"}]), "names a store by"),
    "a store without a name": (text([{"teacher": "t"}]), "names a store by None, None, 't'"),
    "a wrong grandparent": (text([{"content_id": ID[1], "parents": [{"content_id": "no"}]}]), "names a store by"),
    "parents of a word": (text([{"content_id": ID[1], "parents": "no"}]), "stores.0.parents"),
    "a long teacher": (text([{"content_id": ID[1], "teacher": "t" * 301}]), "stores.0.teacher"),
    "a lone surrogate": (
        r'{"format":1,"stores":[{"content_id":"' + ID[1] + r'","teacher":"\ud800"}]}',
        "unicode string",
    ),
    "a control character": (text([{"content_id": ID[1], "teacher": "\x1b]0;title\x07"}]), "is printable"),
    "too deep": (text(nested(DEPTH + 1)), "has more than at most 16 generations"),
    "too many": (text(nested(1, ENTRIES + 1)), "has more than at most 16 generations and 1000 stores"),
    "class names of a word": (text([], class_names="cat"), "has class names that are no list of texts"),
    "class names of numbers": (text([], class_names=[1, 2]), "has class names that are no list of texts"),
    "a class name of half a pair": (r'{"format":1,"stores":[],"class_names":["\ud800"]}', "no list of texts"),
    "too many class names": (text([], class_names=["cat"] * 2**18), "has class names that are no list of texts"),
    "no subclass": (text([], subclasses=0), "has subclasses that are no number from 1 to 1000"),
    "a word of subclasses": (text([], subclasses="3"), "has subclasses that are no number from 1 to 1000"),
    "too many subclasses": (text([], subclasses=10**9), "has subclasses that are no number from 1 to 1000"),
    "huge": (text([{"content_id": ID[1], "teacher": "t" * BYTES}]), f"kdcache writes at most {BYTES}"),
}


@pytest.mark.parametrize("case", list(TAMPERED))
def test_a_tampered_weights_file_is_refused_by_name(stage: Stage, tmp_path: Path, capsys: Capture, case: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, network(8), metadata={KEY: TAMPERED[case][0]})
    with pytest.raises(InvalidInputError) as refused:
        read_lineage(path)
    message = str(refused.value)
    assert message.startswith(f"the lineage in weights {path} ")
    assert TAMPERED[case][1] in message
    assert "--parents" in message or "upgrade" in message
    assert len(message) < 600
    asked = stage.asked(tmp_path / "x.kd", weights=str(path), min_accuracy=0.0)
    assert refusal(capsys, *stages.arguments(asked)) == message
    assert not (tmp_path / "x.kd").exists()


def edited(tmp_path: Path, lineage: Any, parents: tuple[str, ...] = (ID[1],)) -> Store:
    """A small store whose manifest says a lineage."""
    case = make_case(70)
    identity = Identity.model_validate({**case.identity.model_dump(), "parents": parents})
    store = write_store(tmp_path / "edited.kd", type(case)(identity, case.order, case.labels, case.logits))
    manifest = store.folder.path(MANIFEST)
    record = json.loads(manifest.read_bytes())
    manifest.write_bytes(canonical_json({**record, "provenance": {**record["provenance"], "lineage": lineage}}))
    return Store.open(tmp_path / "edited.kd")


UNREADABLE: dict[str, Callable[[], Any]] = {
    "a word": lambda: "lineage",
    "nothing": lambda: None,
    "a wrong key": lambda: [{"content_id": ID[1], "teacher": "t", "more": 1}],
    "too deep": lambda: nested(25),
    "too many": lambda: nested(1, ENTRIES + 1),
}


@pytest.mark.parametrize("case", list(UNREADABLE))
def test_an_unreadable_lineage_in_a_manifest_counts_as_absent(tmp_path: Path, capsys: Capture, case: str) -> None:
    store = edited(tmp_path, UNREADABLE[case]())
    assert chain_of(store) == (Ancestor(content_id=ID[1]),)
    assert kdcache("inspect", store.folder.root) == 0
    assert f"parents           : {ID[1][:16]}\n" in capsys.readouterr().out
    assert lineage_of([store])[0].parents == (Ancestor(content_id=ID[1]),)


def test_a_lineage_in_a_manifest_adds_no_parent(tmp_path: Path) -> None:
    """The identity is what seals cover; provenance is not."""
    store = edited(tmp_path, [{"content_id": ID[1], "teacher": "a:b"}, {"content_id": ID[2]}, {"identity": ID[3]}])
    assert chain_of(store) == (Ancestor(content_id=ID[1], teacher="a:b"), Ancestor(identity=ID[3]))
    assert describe_store(store)["parents"][0]["teacher"] == "a:b"


def test_the_largest_record_that_is_written_can_be_read(tmp_path: Path) -> None:
    case = make_case(70)
    record = case.identity.model_dump()
    record["teacher"]["name"] = "\N{MATHEMATICAL FRAKTUR CAPITAL U}" * 299 + "\x1b" + "cut"
    identity = Identity.model_validate(record)
    store = write_store(tmp_path / "wide.kd", type(case)(identity, case.order, case.labels, case.logits))
    save_weights(tmp_path / "w.safetensors", network(3), metadata=weights_metadata([store] * ENTRIES))
    found = read_lineage(tmp_path / "w.safetensors")
    assert len(found) == ENTRIES
    assert found[0].teacher == "\N{MATHEMATICAL FRAKTUR CAPITAL U}" * 299 + "?"


def test_a_parent_that_is_no_content_id_is_shown_and_not_passed_on(tmp_path: Path) -> None:
    store = edited(tmp_path, [], parents=("by hand", ID[1]))
    assert [render(each) for each in chain_of(store)] == ["by hand", ID[1][:16]]
    assert lineage_of([store])[0].parents == (Ancestor(content_id=ID[1]),)


def test_a_long_lineage_is_cut_to_what_can_be_read_again(tmp_path: Path) -> None:
    """Sixteen generations stay, and of many stores the nearest generations."""
    for stores, students, generations in ((nested(DEPTH), 1, DEPTH), (nested(5, 100), 2, 6), (nested(5, 200), 2, 4)):
        (tmp_path / str(generations)).mkdir()
        store = edited(tmp_path / str(generations), stores)
        save_weights(tmp_path / "w.safetensors", network(3), metadata=weights_metadata([store] * students))
        found, depth = read_lineage(tmp_path / "w.safetensors"), 0
        while found:
            found, depth = found[0].parents, depth + 1
        assert depth == generations
