"""lineage: three generations on disk, what inspect shows of them, and records that others have tampered with."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kdcache.errors import InvalidInputError, MismatchError
from kdcache.networks.weights import load_weights, weights_digest
from kdcache.pipelines.extract.report import ExtractSummary
from kdcache.pipelines.extract.stage import extract
from kdcache.pipelines.train.stage import train
from kdcache.store.layout import MANIFEST
from kdcache.store.lineage import (
    KEY,
    Ancestor,
    chain_of,
    lineage_of,
    read_class_names,
    read_lineage,
    read_subclasses,
    weights_metadata,
)
from kdcache.store.lineage_text import render
from kdcache.store.store import Store
from kdcache.training.run_folder import save_weights
from tests.cli.test_cli import Capture, answer, kdcache
from tests.kits import stages
from tests.kits.stages import NETWORK, Stage, network, student
from tests.kits.stores import all_files

stage = stages.stage

ID = {number: str(number) * 64 for number in range(1, 6)}


def taught(folder: Path, stores: list[str], width: int, **changes: Any) -> str:
    """A student of some stores, trained for an epoch; its weights with their lineage."""
    path = folder / f"student{width}.safetensors"
    trained = train(student(folder / f"run{width}", store=tuple(stores), epochs=1, student_set={"width": width}))
    net = network(width)
    load_weights(net, trained.weights)
    save_weights(path, net, metadata=weights_metadata([Store.open(each) for each in stores], **changes))
    return str(path)


def asked_of(stage: Stage, store: Path, weights: str, width: int, **changes: Any) -> ExtractSummary:
    """The store of a student, which is as good a teacher as one epoch makes it."""
    given = {"weights": weights, "teacher_set": {"width": width}, "min_accuracy": 0.0, **changes}
    return extract(stage.asked(store, **given))


@pytest.fixture(scope="module")
def generations(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    """The teacher's store, its student's, and the student's student's."""
    folder = tmp_path_factory.mktemp("generations")
    stores = [stage.store]
    for width in (4, 3):
        weights = taught(folder, stores[-1:], width)
        asked_of(stage, folder / f"{width}.kd", weights, width)
        stores.append(str(folder / f"{width}.kd"))
    return [Store.open(each) for each in stores]


def test_a_store_names_the_stores_that_taught_its_teacher(generations: list[Store]) -> None:
    first, second, third = generations
    assert first.identity.parents == ()
    assert second.identity.parents == (first.content_id,)
    assert third.identity.parents == (second.content_id,)
    (parent,) = chain_of(third)
    assert (parent.content_id, parent.identity, parent.teacher) == (second.content_id, second.identity.digest, NETWORK)
    (grandparent,) = parent.parents
    assert (grandparent.content_id, grandparent.identity) == (first.content_id, first.identity.digest)
    assert grandparent.parents == ()
    assert lineage_of([third])[0].parents == (parent,)


def test_inspect_shows_the_chain(generations: list[Store], capsys: Capture) -> None:
    first, second, third = generations
    assert kdcache("inspect", third.folder.root) == 0
    line = f"{str(second.content_id)[:16]} ({NETWORK}) <- {str(first.content_id)[:16]} ({NETWORK})"
    assert f"parents           : {line}\n" in capsys.readouterr().out
    (parent,) = answer(capsys, "inspect", third.folder.root)["parents"]
    assert parent["content_id"] == second.content_id
    assert parent["parents"][0]["content_id"] == first.content_id
    assert answer(capsys, "inspect", first.folder.root)["parents"] == []


def test_the_lineage_lies_in_the_manifest_once(generations: list[Store]) -> None:
    """Every commit has a provenance of its own, and need not say it again."""
    named = [key for key, data in all_files(generations[2].folder.root).items() if b'"lineage"' in data]
    assert named == [MANIFEST]


def test_an_extraction_is_resumed_with_its_lineage_and_refused_without(
    stage: Stage, generations: list[Store], tmp_path: Path
) -> None:
    before = all_files(generations[1].folder.root)
    weights = taught(tmp_path, [stage.store], 4)
    assert asked_of(stage, generations[1].folder.root, weights, 4).blocks_done_before == stages.BLOCKS
    assert all_files(generations[1].folder.root) == before
    save_file(load_file(weights), tmp_path / "bare.safetensors")
    with pytest.raises(MismatchError, match=r"parents: the store has .*, this run has \[\]"):
        asked_of(stage, generations[1].folder.root, str(tmp_path / "bare.safetensors"), 4)
    parents = generations[1].identity.parents
    asked_of(stage, generations[1].folder.root, str(tmp_path / "bare.safetensors"), 4, parents=parents)


def test_parents_by_hand_join_those_of_the_weights(stage: Stage, generations: list[Store], tmp_path: Path) -> None:
    weights = taught(tmp_path, [str(generations[1].folder.root)], 4)
    twice = (ID[2], str(generations[1].content_id), ID[1], ID[2])
    asked_of(stage, tmp_path / "both.kd", weights, 4, parents=twice)
    store = Store.open(tmp_path / "both.kd")
    assert store.identity.parents == tuple(sorted(set(twice)))
    shown = [render(each) for each in chain_of(store)]
    assert {ID[1][:16], ID[2][:16]} < set(shown)
    (told,) = set(shown) - {ID[1][:16], ID[2][:16]}
    assert told.startswith(str(generations[1].content_id)[:16])
    assert " <- " in told


def test_a_parent_by_hand_must_be_a_content_id(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    for wrong in ("store.kd", ID[1][:32], ID[1].replace("1", "G")):
        with pytest.raises(
            InvalidInputError, match=f"parent '{wrong}' is no content id of 64 hex digits; kdcache inspect"
        ):
            extract(stage.asked(tmp_path / "x.kd", parents=(wrong,)))
    extract(stage.asked(tmp_path / "x.kd", parents=(ID[3],)))
    assert answer(capsys, "inspect", tmp_path / "x.kd")["parents"] == [
        {"content_id": ID[3], "identity": None, "teacher": None, "parents": []}
    ]


def test_a_student_of_a_store_that_was_not_sealed(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    extract(stage.asked(tmp_path / "open.kd", seal=False))
    unsealed = Store.open(tmp_path / "open.kd")
    weights = taught(tmp_path, [str(tmp_path / "open.kd")], 4)
    summary = asked_of(stage, tmp_path / "child.kd", weights, 4)
    (note,) = [each for each in summary.notes if "not sealed" in each]
    assert f"identity {unsealed.identity.digest[:16]}, teacher {NETWORK}" in note
    assert "name its content id with --parents" in note
    assert Store.open(tmp_path / "child.kd").identity.parents == ()
    assert kdcache("inspect", tmp_path / "child.kd") == 0
    assert f"not sealed, identity {unsealed.identity.digest[:16]} ({NETWORK})" in capsys.readouterr().out


def test_class_names_stand_beside_the_lineage(generations: list[Store], tmp_path: Path) -> None:
    names = ("cat", "caf\u00e9", "\u732b")
    path = tmp_path / "w.safetensors"
    for stores in ([], generations[:1]):
        metadata = weights_metadata(stores, class_names=names)
        assert set(metadata) == {KEY}  # one key: several would be written in random order
        save_weights(path, network(3), metadata=metadata)
        assert read_class_names(path) == names
        assert len(read_lineage(path)) == len(stores)
        assert weights_metadata(stores, start=path).get(KEY) == weights_metadata(stores).get(KEY)
    assert weights_metadata([], class_names=("caf\udce9",)) == {}  # of a folder whose name is not UTF-8
    assert weights_metadata([], class_names=("x" * 2**21, "y")) == {}


def test_subclasses_stand_beside_the_lineage(tmp_path: Path) -> None:
    path, metadata = tmp_path / "w.safetensors", weights_metadata([], subclasses=3)
    save_weights(path, network(3), metadata=metadata)
    assert (read_subclasses(path), read_lineage(path), read_class_names(path)) == (3, (), ())
    assert metadata == {KEY: '{"format":1,"stores":[],"subclasses":3}\n'}
    assert weights_metadata([], subclasses=1) == weights_metadata([], start=path) == {}


def test_a_state_dict_says_nothing(stage: Stage, tmp_path: Path) -> None:
    assert read_lineage(tmp_path / "missing.pt") == ()
    assert read_lineage(stage.weights) == ()
    assert weights_metadata([]) == {}
    assert read_lineage(tmp_path / "missing.safetensors") == ()  # whoever loads it says that it is not there
    (tmp_path / "page.safetensors").write_bytes(b"<html></html>")
    assert read_lineage(tmp_path / "page.safetensors") == ()  # nor what it is
    (tmp_path / "broken.safetensors").write_bytes((10).to_bytes(8, "little") + b"{nonsense}")
    with pytest.raises(InvalidInputError, match=r"broken.safetensors cannot be read"):
        read_lineage(tmp_path / "broken.safetensors")


def test_metadata_changes_neither_the_digest_nor_from_save_to_save(
    stage: Stage, generations: list[Store], tmp_path: Path
) -> None:
    net, bare = network(4), network(4)
    bare.load_state_dict(net.state_dict())
    metadata = weights_metadata(generations)
    assert list(metadata) == [KEY]
    for name in ("one", "two"):
        save_weights(tmp_path / f"{name}.safetensors", net, metadata=metadata)
    save_weights(tmp_path / "bare.safetensors", net)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    assert read_lineage(tmp_path / "one.safetensors") == lineage_of(generations)
    load_weights(bare, tmp_path / "one.safetensors")
    assert weights_digest(bare) == weights_digest(net)
    with safe_open(tmp_path / "bare.safetensors", framework="numpy") as file:
        assert not file.metadata()


def test_who_was_taught_before_stays_taught(generations: list[Store], tmp_path: Path) -> None:
    first, second, _ = generations
    start = tmp_path / "start.safetensors"
    save_weights(start, network(4), metadata=weights_metadata([first]))
    for stores, expected in (([second], [second, first]), ([], [first]), ([first], [first])):
        save_weights(tmp_path / "tuned.safetensors", network(4), metadata=weights_metadata(stores, start=start))
        found = [each.content_id for each in read_lineage(tmp_path / "tuned.safetensors")]
        assert found == [each.content_id for each in expected]


def test_the_line_of_several_parents() -> None:
    teachers = tuple(Ancestor(content_id=ID[number], teacher=f"t:{number}") for number in (2, 3))
    line = render(Ancestor(content_id=ID[1], teacher="s:net", parents=teachers))
    assert line == f"{ID[1][:16]} (s:net) <- [{ID[2][:16]} (t:2); {ID[3][:16]} (t:3)]"
    assert render(Ancestor(identity=ID[4])) == f"not sealed, identity {ID[4][:16]}"


def test_provenance_without_lineage_stays_as_it_was(stage: Stage) -> None:
    assert "lineage" not in json.loads((Path(stage.store) / MANIFEST).read_bytes())["provenance"]
