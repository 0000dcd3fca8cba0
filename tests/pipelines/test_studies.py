"""Studies before they run: what they state, what they refuse, the rows that they take, the lines that they print."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from kdcache.cli.app import main
from kdcache.cli.flags import with_flags
from kdcache.errors import InvalidInputError
from kdcache.pipelines.command_lines import command_line
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.settings import ExtractSettings, TrainSettings, load_settings
from kdcache.pipelines.studies.catalogue import STUDIES, load_study
from kdcache.pipelines.studies.pieces import VERSIONS, Pieces
from kdcache.pipelines.studies.settings import StudySettings
from kdcache.pipelines.studies.stage import STAGES, commands_of, list_studies, usable
from kdcache.pipelines.studies.study import differences_on
from kdcache.pipelines.studies.study_data import StudyData
from kdcache.views.sources import open_data

MODELS = {"train": TrainSettings, "extract": ExtractSettings, "compare": CompareSettings}


def test_every_study_states_claims_differences_and_cost() -> None:
    studies = [load_study(name) for name in STUDIES]
    assert [study.name for study in studies] == list(STUDIES)
    rows = [study.row for study in studies]
    assert rows == sorted(rows)  # two studies may ask the claims of one row
    for study in studies:
        assert study.claims
        assert study.differences
        assert all(study.differences)
        assert study.minutes > 0
        assert {key.partition(", ")[0] for key in study.why} <= study.claims.keys()
        assert all(claim.margin > 0 for claim in study.claims.values() if claim.direction != "above")


def test_an_unknown_study_is_refused_with_the_names() -> None:
    with pytest.raises(InvalidInputError, match=r"no study 'tank'.*tang"):
        load_study("tank")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("tang", {"weights": "t.pt"}, "no --teacher"),
        ("cho", {"teacher": "torchvision:resnet18"}, "makes teachers of its own kind"),
        ("stanton", {"teacher": "torchvision:resnet18", "weights": "t.pt"}, "leave out --weights t.pt"),
        ("nagarajan", {"student": "torchvision:resnet18"}, "leave out --student"),
        ("menon", {"data": "digits"}, "makes its own data; leave out --data digits"),
    ],
)
def test_networks_and_data_that_a_study_cannot_use_are_refused(
    name: str, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        usable(load_study(name), StudySettings(study=name, **settings))  # type: ignore[arg-type]


def test_a_study_of_texts_is_not_asked_on_pictures_nor_another_on_texts(tmp_path: Path) -> None:
    given = {"folder": str(tmp_path), "data_set": {"text": "kdcache", "vocabulary": 64}}
    words = "kdcache.pipelines.studies.words:words"
    with pytest.raises(InvalidInputError, match=r"study tang is of pictures, and data .*words:words holds texts"):
        commands_of(StudySettings(study="tang", data=words, **given))  # type: ignore[arg-type]
    assert commands_of(StudySettings(study="liu", data=words, **given))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="study liu is of texts, and data digits holds pictures"):
        commands_of(StudySettings(study="liu", data="digits", folder=str(tmp_path)))


def test_a_machine_without_the_data_is_told_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdcache.pipelines.studies.study_data.FASHION", "/nowhere")
    with pytest.raises(InvalidInputError, match="apt install dataset-fashion-mnist"):
        StudyData.open(StudySettings(study="tang"))


def test_rows_of_teacher_students_and_held_out_lie_apart(tmp_path: Path) -> None:
    data = StudyData.open(StudySettings(data="digits", folder=str(tmp_path)))
    held_out, most = data.held_out(), data.part(1_000_000)
    assert data.part(100)["range"] == "0:100"
    start, stop = map(int, held_out["range"].split(":"))
    assert most["range"] == f"0:{start}"
    assert stop == len(data.train)
    assert stop - start == data.held_out_rows == len(data.train) // 6


def test_rows_of_a_sorted_folder_are_drawn_from_all_of_it(tmp_path: Path) -> None:
    for split, count in (("train", 24), ("val", 4)):
        for name in ("a", "b", "c"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number}.png")
    settings = StudySettings(data=f"folder:{tmp_path / 'photos'}", folder=str(tmp_path / "studies"))
    data = StudyData.open(settings)
    part, held_out = (open_data(data.spec, rows) for rows in (data.part(30), data.held_out()))
    assert (data.train_set, data.test_set) == ({"split": "train"}, {"split": "val"})
    assert set(np.unique(part.labels)) == {0, 1, 2}
    assert (len(part), len(held_out), len(data.test)) == (30, 12, 12)
    assert not set(part.ids) & set(held_out.ids)
    assert data.part(30) == StudyData.open(settings).part(30)


def test_a_folder_of_one_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(InvalidInputError, match=r"no folder test or val.*--val-set split=NAME"):
        StudyData.open(StudySettings(data=f"folder:{tmp_path}"))


@pytest.mark.parametrize("name", ["tang", "stanton", "yang", "mishra", "tung", "wang_selection", "mueller"])
def test_lines_that_a_study_prints_say_what_it_does(name: str, tmp_path: Path) -> None:
    """Each line, read by the command's own flags, gives settings that print as that line again; nothing is made."""
    lines = commands_of(StudySettings(study=name, toy=True, folder=str(tmp_path / "studies")))
    kinds = set()
    for line in lines[1:]:
        program, command, *words = shlex.split(line)
        settings, positional = parsed(command, words)
        assert (program, command_line(command, positional, settings)) == ("kdcache", line)
        kinds.add(command)
    assert {"train", "extract"} <= kinds
    assert not (tmp_path / "studies").exists()


def parsed(command: str, words: list[str]) -> tuple[object, str]:
    """The settings that a command makes of its words, by its own flags."""
    positional = {"train": "run", "extract": "store", "compare": "runs"}[command]
    taken: list[object] = []

    def function(flags: dict[str, object], config: str | None, as_json: bool) -> None:
        taken.append(load_settings(MODELS[command], flags, config))

    app = typer.Typer()
    app.command()(with_flags(MODELS[command], positional)(function))
    app(words, standalone_mode=False)
    return taken[0], positional


def test_the_list_names_every_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = list_studies(tmp_path)
    assert [study.name for study in listed] == list(STUDIES)
    assert not any(study.verdict for study in listed)
    with pytest.raises(SystemExit) as ended:
        main(["study", "--folder", str(tmp_path), "--json"])
    assert ended.value.code == 0
    assert [study["name"] for study in json.loads(capsys.readouterr().out)["studies"]] == list(STUDIES)


def test_pieces_are_named_by_what_their_files_hold(tmp_path: Path) -> None:
    weights, code = tmp_path / "t.safetensors", tmp_path / "net.py"
    weights.write_bytes(b"one")
    code.write_text("def net(num_classes): ...")

    def names(folder: str = "a", *, digest: str = "data", **changes: object) -> tuple[str, str]:
        pieces = Pieces(tmp_path / folder, STAGES, digest, dry=True)
        common = {"data": "digits", "weights": str(weights), **changes}
        run = pieces.train("", [{**common, "student": f"{code}:net"}])[0]
        store = pieces.extract("", [{**common, "teacher": "run:" + str(tmp_path / folder / "runs/1")}])[0]
        return Path(run).name, Path(store).name

    first = names()
    assert names() == names("b") == names(workers=3) == first
    assert names(digest="other") != first
    assert names(seed=1) != first
    code.write_text("def net(num_classes): pass")
    second = names()
    assert (second[0] == first[0], second[1] == first[1]) == (False, True)
    weights.write_bytes(b"two")
    assert not set(names()) & set(second)


def test_pieces_of_other_defaults_versions_and_modules_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "studied" / "nets.py"
    module.parent.mkdir()
    module.write_text("def net(num_classes): ...")
    monkeypatch.syspath_prepend(str(tmp_path))

    def name(**given: object) -> str:
        pieces = Pieces(tmp_path / "a", STAGES, "data", dry=True)
        return pieces.train("", [{"data": "digits", "student": "studied.nets:net", **given}])[0]

    names = [name()]
    assert name(lr=TrainSettings.model_fields["lr"].default) == names[0]  # what is not given counts by its value
    monkeypatch.setitem(VERSIONS, "torch", "0.0")
    names.append(name())
    module.write_text("def net(num_classes): pass")
    names.append(name())
    assert len(set(names)) == 3


def test_a_study_names_the_data_that_it_was_asked_on() -> None:
    study = load_study("tang")
    assert any("Letters" in text for text in differences_on(study, "Letters"))
    for name in STUDIES:
        assert not any("{" in text for text in differences_on(load_study(name), "Letters"))
    (alone,) = differences_on(study, "Letters", teacher="timm:resnet50")
    assert alone.startswith("Asked with teacher timm:resnet50 on Letters")
