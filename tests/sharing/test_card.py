"""card: a README and Croissant metadata that mlcroissant takes without a word, from the store alone and harmless."""

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from huggingface_hub import DatasetCard

from kdcache.errors import InvalidInputError
from kdcache.sharing.cards import CROISSANT, LICENSES, README, escape, public, readme
from kdcache.sharing.croissant import croissant
from kdcache.store.manifest import Card
from kdcache.store.store import Store
from kdcache.whole_store.verify import inspect_files
from tests.cli.test_cli import Capture, answer, kdcache, refusal
from tests.kits import stages
from tests.kits.stages import Stage
from tests.kits.stores import Case, all_files, create_store, make_case, write_store, write_views
from tests.kits.web import serving

stage = stages.stage
NOTES = (
    "# Big\n- item <script>alert(1)</script>\n\x1b[31m[click](javascript:x) ![i](http://a.b/c)\n```\n| a | `b` \u202e"
)
WEIRD = 'x", "@id": "y" | <b>B</b> `c` \u202e\n# no heading\n\x1b[2J $(rm -rf ~) http://evil.example www.evil.example'


def parsed(path: Path) -> mlcroissant.Dataset:
    """The record as mlcroissant reads it: no error, and no warning of its own."""
    dataset = mlcroissant.Dataset(str(path))
    issues = dataset.metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    return dataset


def hostile_store(path: Path) -> Store:
    """A stranger's store whose every free text tries something."""
    case = make_case(70)
    change: dict[str, Any] = {
        "teacher": case.identity.teacher.model_copy(
            update={
                "name": WEIRD,
                "arguments": {"path": "/home/secret/net.pth", "u": "s3://key:pw@host/x", WEIRD: "~/w"},
            }
        ),
        "dataset": case.identity.dataset.model_copy(update={"class_names": (WEIRD, *map(str, range(29)))}),
    }
    store = create_store(path, Case(case.identity.model_copy(update=change), case.order, case.labels, case.logits))
    write_views(store, 0, case.logits)
    store.write_card(Card(name=WEIRD, license=WEIRD, notes=NOTES))
    store.seal()
    return Store.open(path)


pytestmark = pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")  # rdflib's own


def test_a_card_of_a_real_store(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    path = stage.copy(tmp_path / "digits.kd")
    assert kdcache("seal", path, "--name", "Digits", "--license", "CC0-1.0", "--notes", "Eight by eight.") == 0
    record = answer(capsys, "card", path, "--published", "2026-11-26")
    store = Store.open(path)
    assert record["files"] == [str(path / README), str(path / CROISSANT)]
    assert (record["content_id"], record["name"], record["license"]) == (store.content_id, "Digits", "CC0-1.0")
    shards = [s for each in store.segments for c in each.commits().values() for s in c.shards.values()]
    assert record["bytes"] == sum(
        (path / name).stat().st_size for name in all_files(path) if "/c/" in name and name.startswith("views-")
    )
    text = (path / README).read_text()
    for said in (
        f"`{store.content_id}`",
        "300 rows",
        "0:2",
        "kdcache.networks:convnet",
        "> Eight by eight",
        f"{len(shards)} files",
        "| samples are known by | their bytes |",
    ):
        assert said in text
    assert inspect_files(str(path)).whole
    assert kdcache("verify", path) == 0
    assert Store.open(path).content_id == store.content_id


def test_mlcroissant_takes_the_record_and_files_are_what_it_says(stage: Stage, tmp_path: Path) -> None:
    path = stage.copy(tmp_path / "digits.kd")
    Store.open(path).write_card(Card(name="Digits", license="CC0-1.0"))
    store = Store.open(path)
    (path / CROISSANT).write_text(croissant(store, "2026-11-26"))
    dataset = parsed(path / CROISSANT)
    files = dataset.metadata.file_objects
    assert {"kdcache/manifest.json", "order/c/0", "labels/c/0", f"kdcache/seals/{str(store.content_id)[:32]}.json"} <= {
        each.content_url for each in files
    }
    for each in files:
        data = (path / str(each.content_url)).read_bytes()
        assert (each.sha256, each.content_size) == (hashlib.sha256(data).hexdigest(), f"{len(data)} B")
    (segment,) = store.segments
    assert {each.id for each in dataset.metadata.file_sets} == {spec.path for spec in segment.layout.arrays.values()}
    for each in dataset.metadata.file_sets:
        (pattern,) = [each.includes] if isinstance(each.includes, str) else each.includes
        found = [name for name in path.glob(pattern) if name.is_file()]
        assert f" {len(found)} shards, {sum(name.stat().st_size for name in found)} bytes" in str(each.description)
    assert [record["class-names/id"] for record in dataset.records("class-names")] == list(range(10))
    assert dataset.metadata.version == f"1.0.0+{str(store.content_id)[:32]}"


def test_equal_stores_give_equal_bytes_wherever_they_lie(tmp_path: Path) -> None:
    write_store(tmp_path / "a.kd", make_case(70))
    shutil.copytree(tmp_path / "a.kd", tmp_path / "elsewhere" / "b.kd")
    with serving(tmp_path) as site:
        stores = [
            Store.open(tmp_path / "a.kd"),
            Store.open(tmp_path / "elsewhere/b.kd"),
            Store.open(f"{site.url}/a.kd"),
        ]
        assert len({readme(store) for store in stores}) == 1
        assert len({croissant(store) for store in stores}) == 1
        assert "127.0.0.1" not in readme(stores[2]) + croissant(stores[2])
        assert str(tmp_path) not in readme(stores[0]) + croissant(stores[0])


def test_a_remote_store_needs_a_folder_for_its_card(tmp_path: Path, capsys: Capture) -> None:
    write_store(tmp_path / "a.kd", make_case(70))
    with serving(tmp_path) as site:
        assert "--out FOLDER" in refusal(capsys, "card", f"{site.url}/a.kd")
        record = answer(capsys, "card", f"{site.url}/a.kd", "--out", tmp_path / "cards")
    assert sorted(all_files(tmp_path / "cards")) == [README, CROISSANT]
    assert (tmp_path / "cards" / README).read_text() == readme(Store.open(tmp_path / "a.kd"))
    assert record["name"] == "Soft labels of made-up on data"


def test_text_of_a_stranger_is_escaped(tmp_path: Path) -> None:
    store = hostile_store(tmp_path / "a.kd")
    text, record = readme(store), croissant(store, "2026-11-26")
    for each in (text, record):
        assert all(character.isprintable() or character == "\n" for character in each)
        assert not any(secret in each for secret in ("secret", "pw@host", "~/w"))
    body = text.split("\n---\n", 1)[1]
    assert re.findall(r"(?m)^#+ .*$", body)[1:] == ["## Notes", "## Use it", "## What this shows, and what not"]
    unescaped = re.sub(r"\\[!-/:-@\[-`{-~]", "", body.replace("<!-- written", "written").replace("again -->", "again"))
    assert not re.search(r"<[a-zA-Z/!]|\]\(|https?://|www\.", unescaped)
    fences = body.count("```")
    assert fences == 2
    commands = body.split("```")[1]
    assert "rm -rf" not in commands
    assert "evil" not in commands
    rows = [line for line in body.splitlines() if line.startswith("| teacher |")]
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 3
    card = DatasetCard(text)
    assert card.data.to_dict()["license"] == "other"
    assert card.data.to_dict()["pretty_name"] == " ".join(re.sub("[\u202e\n\x1b]", " ", WEIRD).split())
    (tmp_path / CROISSANT).write_text(record)
    dataset = parsed(tmp_path / CROISSANT)
    assert json.loads(record)["@type"] == "sc:Dataset"
    assert next(iter(dataset.records("class-names")))["class-names/name"] == WEIRD


def test_the_commands_of_a_readme_are_commands(tmp_path: Path) -> None:
    """Each parses, pins the content id, and the ones that need no data set run."""
    store = write_store(tmp_path / "a.kd", make_case(70))
    block = readme(store).split("```")[1].replace("\\\n", " ")
    lines = [
        shlex.split(line.replace("$STORE", str(tmp_path / "a.kd")), comments=True)
        for line in block.strip().splitlines()
    ]
    assert [line[1] for line in lines] == ["verify", "verify", "inspect", "train"]
    assert all(any(part.endswith(f"@{str(store.content_id)[:32]}") for part in line) for line in lines)
    assert kdcache(*lines[0][1:]) == 0
    assert kdcache(*lines[2][1:]) == 0


def test_what_cannot_have_a_card_is_refused(tmp_path: Path, capsys: Capture) -> None:
    case = make_case(70)
    write_views(create_store(tmp_path / "open.kd", case), 0, case.logits)
    assert "is not sealed; run: kdcache seal" in refusal(capsys, "card", tmp_path / "open.kd")
    store = write_store(tmp_path / "a.kd", case)
    with pytest.raises(InvalidInputError, match="no date; write it as"):
        croissant(store, "yesterday")
    (tmp_path / "a.kd" / README).write_text("my own words")
    assert "was not written by kdcache card" in refusal(capsys, "card", tmp_path / "a.kd")
    assert (tmp_path / "a.kd" / README).read_text() == "my own words"
    (tmp_path / "a.kd" / README).unlink()
    (tmp_path / "a.kd" / CROISSANT).write_text('{"name": "mine"}')
    assert "croissant.json was not written by kdcache card" in refusal(capsys, "card", tmp_path / "a.kd")
    assert not (tmp_path / "a.kd" / README).exists()
    (tmp_path / "a.kd" / CROISSANT).unlink()
    for _ in range(2):
        assert kdcache("card", tmp_path / "a.kd") == 0


def test_licences_that_are_known_keep_their_names(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.kd", make_case(70))
    for given, expected in (("MIT", "mit"), ("Ours only", "other"), ("", None)):
        store.write_card(Card(license=given))
        data = DatasetCard(readme(Store.open(tmp_path / "a.kd"))).data.to_dict()
        assert data.get("license") == expected
        assert data.get("license_name") == (given if expected == "other" else None)
    store.write_card(Card(name="Größe 图", license="Nur für uns"))
    text = readme(Store.open(tmp_path / "a.kd"))
    assert 'pretty_name: "Größe 图"' in text
    assert DatasetCard(text).data.to_dict()["license_name"] == "Nur für uns"
    assert len(set(LICENSES)) == len(LICENSES)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("net.py:small", "net.py:small"),
        ("timm:vit_base_patch16_224", "timm:vit_base_patch16_224"),
        ("crop (path=/home/me/x.json, size=224)", "crop (path=(path), size=224)"),
        ("~/net.py", "(path)"),
        (r"C:\Users\me\net.pth", "(path)"),
        ("https://user:pw@host/x", "(path)"),
        ("file:///data/train", "(path)"),
        ("scale 1/255", "scale 1/255"),
    ],
)
def test_paths_and_addresses_of_settings_stay_home(text: str, shown: str) -> None:
    assert public(text) == shown


def test_escaped_text_shows_as_itself() -> None:
    assert escape("a_b*c [d](e)") == r"a\_b\*c \[d\](e)"
    assert escape("1. one", everything=True) == r"1\. one"
