"""cli: exit codes, JSON for programs, TOML and flags, and messages that say what to do next."""

import json
from pathlib import Path
from typing import Any

import pytest

from kdcache.cli.app import COMMANDS, main
from kdcache.cli.console import print_error, print_line, print_record, print_table
from kdcache.pipelines.settings import ExtractSettings, TrainSettings, load_settings
from kdcache.store.manifest import DatasetIdentity
from kdcache.store.store import Store
from tests.kits import stages, stores
from tests.kits.stages import BLOCKS, ROWS, Stage, arguments, student

stage = stages.stage

Capture = pytest.CaptureFixture[str]


def kdcache(*given: Any) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as left:
        main([str(each) for each in given])
    code = left.value.code
    assert isinstance(code, int)
    return code


def answer(capsys: Capture, *given: Any) -> dict[str, Any]:
    """What a command says to programs: one line of JSON on stdout, and nothing on stderr."""
    capsys.readouterr()
    assert kdcache(*given, "--json") == 0
    out, err = capsys.readouterr()
    assert (err, out.count("\n"), out[-1]) == ("", 1, "\n")
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def refusal(capsys: Capture, *given: Any, code: int = 2) -> str:
    """The message of a command that fails; the same as text and as JSON, and stdout holds nothing."""
    capsys.readouterr()
    assert kdcache(*given) == code
    out, text = capsys.readouterr()
    if code != 1:
        assert out == ""
    assert kdcache(*given, "--json") == code
    err = capsys.readouterr().err
    said = json.loads(err)
    assert said["exit_code"] == code
    assert said["error"] in text.replace("error: ", "", 1)
    assert "Traceback" not in text
    return str(said["error"])


def test_every_stage_answers_programs_in_one_line(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    asked = stage.asked(tmp_path / "digits.kd")
    dry = answer(capsys, *arguments(asked), "--dry-run")
    assert dry["rows"] == 2 * ROWS
    assert not (tmp_path / "digits.kd").exists()
    made = answer(capsys, *arguments(asked))
    assert (made["rows"], made["blocks"]) == (2 * ROWS, BLOCKS)
    shown = answer(capsys, "inspect", asked.store, "--rows", 3)
    assert shown["content_id"] == made["content_id"]
    assert len(shown["rows_shown"]) == 3
    assert answer(capsys, "verify", asked.store)["whole"] is True
    sealed = answer(capsys, "seal", asked.store)
    assert sealed["content_id"] == made["content_id"]
    assert Store.open(sealed["pin"]).every_view == (0, 1)
    trained = answer(capsys, *arguments(student(tmp_path / "run", store=(asked.store,), epochs=1)))
    assert trained["steps"] == 5


def test_people_get_aligned_lines_and_progress_apart(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    assert kdcache(*arguments(stage.asked(tmp_path / "digits.kd"))) == 0
    out, err = capsys.readouterr()
    assert out.startswith("extracted\n")
    assert len({line.index(" : ") for line in out.splitlines()[1:]}) == 1
    assert f"digits.kd@{str(Store.open(stage.store).content_id)[:32]}" in out
    steps = ["opening digits", "checking that views replay", "checking the teacher on", "extracting 600 rows"]
    assert [step for step in steps if any(line.startswith(step) for line in err.splitlines())] == steps


def test_a_failed_check_exits_with_1(stage: Stage, tmp_path: Path, capsys: Capture) -> None:
    store = stage.copy(tmp_path / "digits.kd")
    shard = store / "views-00000-00002/tail/c/0/0/2"
    shard.write_bytes(shard.read_bytes()[:-1])
    message = refusal(capsys, "verify", store, code=1)
    assert "is not whole: files; next: kdcache verify" in message
    kdcache("verify", store)
    assert "views-00000-00002/tail/c/0/0/2 has " in capsys.readouterr().out
    kdcache("verify", store, "--json")
    assert json.loads(capsys.readouterr().out)["whole"] is False


def test_control_characters_are_made_visible(capsys: Capture) -> None:
    """What a store's or a user's text says must not move the cursor or write a terminal's title."""
    evil = "a\x1b]0;title\x07b\x9bc\r\nd [bold]e"
    seen = "a\\x1b]0;title\\x07b\\x9bc\\x0d"
    print_line(evil)
    print_error(evil, as_json=False, exit_code=2)
    out, err = capsys.readouterr()
    assert out == f"{seen}\nd [bold]e\n"
    assert err == f"error: {seen}\nd [bold]e\n"
    print_record({"key": evil}, as_json=False, title=evil)
    print_table(["column"], [[evil]], title=evil)
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(capsys.readouterr().out)


def test_the_version_and_help_exit_with_0(capsys: Capture) -> None:
    assert kdcache("--version") == 0
    assert capsys.readouterr().out.count(".") >= 2
    for command in COMMANDS:
        assert kdcache(command, "--help") == 0
        assert "--json" in capsys.readouterr().out


def test_a_setting_that_is_unknown_is_named_with_those_there_are(tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "train.toml"
    config.write_text("learning_rate = 0.1\n")
    message = refusal(capsys, "train", tmp_path / "run", "--config", config)
    assert message.startswith(
        "unknown settings learning_rate; the known ones are accept_drift, accumulate, batch_size, "
    )
    for command in ("extract", "train", "verify", "inspect", "seal"):
        assert "No such option: --learning-rate" in refusal(capsys, command, "x", "--learning-rate", "1")
    assert "extrakt" in refusal(capsys, "extrakt")


class Seen(BaseException):
    """The command has its settings, and need not go on."""


@pytest.mark.parametrize("command", ["extract", "train"])
def test_toml_and_flags_say_the_same(stage: Stage, tmp_path: Path, command: str) -> None:
    extract, train = (
        stage.asked("x.kd", keep=("features",)),
        student("x", store=("a.kd", "b.kd"), ensemble_weights=(1, 2)),
    )
    settings: ExtractSettings | TrainSettings = extract if command == "extract" else train
    lines = []
    for name, value in settings.model_dump(exclude_unset=True, mode="json").items():
        if isinstance(value, dict):
            inner = ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items())
            lines.append(f"{name} = {{ {inner} }}")
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    config = tmp_path / "same.toml"
    config.write_text("\n".join(lines))
    seen: list[Any] = []

    def see(*given: Any) -> None:
        seen.append(load_settings(*given))
        raise Seen

    with pytest.MonkeyPatch.context() as patch:
        module, function = f"kdcache.cli.{command}", "load_settings"
        patch.setattr(f"{module}.{function}", see)
        for given in (arguments(settings), [command, "--config", str(config)]):
            with pytest.raises(Seen):
                main(given)
        with pytest.raises(Seen):
            main([command, "--config", str(config), "--seed", "9"])
    assert seen[0] == seen[1] == settings
    assert seen[2] == settings.model_copy(update={"seed": 9})


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "broken.toml").write_text("a = = 1")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("broken.toml", "binary.toml", "missing.toml"):
        message = refusal(capsys, "verify", "x.kd", "--config", tmp_path / name)
        assert f"{tmp_path / name} cannot be read" in message


NAMES = ("[red]danger[/red]", "bell\x07", "\x1b[31mred", "new\nline", "naïve 数")


def test_class_names_are_shown_not_obeyed(tmp_path: Path, capsys: Capture) -> None:
    case = stores.make_case(rows=70, classes=5, k=3)
    record = case.identity.model_dump()
    record["dataset"] = DatasetIdentity.model_validate({**record["dataset"], "class_names": NAMES})
    identity = type(case.identity).model_validate(record)
    stores.write_store(tmp_path / "named.kd", stores.Case(identity, case.order, case.labels, case.logits))
    assert kdcache("inspect", tmp_path / "named.kd", "--rows", 20) == 0
    out = capsys.readouterr().out
    assert "[red]danger[/red]" in out
    assert "bell\\x07" in out
    assert "\\x1b[31mred" in out
    assert "new\\x0aline" in out
    assert "naïve 数" in out
    assert not {"\x07", "\x1b"} & set(out)


def test_rows_of_a_view_that_is_not_there(stage: Stage, capsys: Capture) -> None:
    assert kdcache("inspect", stage.store, "--rows", 2, "--view", 1) == 0
    assert "has no view 7; it has views-00000-00002" in refusal(
        capsys, "inspect", stage.store, "--rows", 2, "--view", 7
    )
    refusal(capsys, "inspect", stage.store, "--rows", -1)


MISTAKES: list[tuple[list[str], list[str]]] = [
    (["inspect", "nowhere.kd"], ["nowhere.kd does not exist", "kdcache extract nowhere.kd"]),
    (["inspect", "{store}@abcdef12"], ["{store}: abcdef12 names 0 seals", "give more digits"]),
    (["extract", "{store}"], ["data, teacher must be given"]),
    (["extract", "{store}", "--teacher", "a", "--data", "digits", "--top-k", "0"], ["top_k", "given 0"]),
    (["train", "run", "--student", "a", "--data", "digits", "--optimizer", "lion"], ["choose sgd, adamw, or"]),
    (["train", "run", "--student", "a", "--data", "digits", "--data-set", "test"], ["'test' is not key=value"]),
    (["train", "run", "--student", "a", "--data", "digits", "--warmup-epochs", "x"], ["--warmup-epochs", "number"]),
    (["verify", "{store}", "--data", "digit"], ["no data set 'digit'; choose digits"]),
    (["verify", "{store}", "--data", "folder:/nowhere"], ["/nowhere is no folder with a folder of images a class"]),
    (["verify", "{store}", "--rows", "-1"], ["rows", "-1"]),
    (["train", "run", "--student", "kdcache.networks:convnet", "--data", "digits", "--store", "{store}"],
     ["{store} is of another data set", "the store has 300, this run has 1438", "--data-set rows=new.txt"]),
]  # fmt: skip


@pytest.mark.parametrize(("given", "said"), MISTAKES, ids=[" ".join(mistake[0])[:50] for mistake in MISTAKES])
def test_a_mistake_is_answered_with_what_both_values_and_a_next_step(
    stage: Stage, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, given: list[str], said: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(capsys, *(each.replace("{store}", stage.store) for each in given))
    for part in said:
        assert part.replace("{store}", stage.store) in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_of_the_user_s(
    stage: Stage, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert str(tmp_path / "file") in refusal(capsys, *arguments(stage.asked(tmp_path / "file/digits.kd")))
    assert str(tmp_path / "file") in refusal(capsys, *arguments(student(tmp_path / "file/run")))


@pytest.mark.parametrize(
    "words", [("diff", "a.kd", "b.kd"), ("stats", "a.kd"), ("recode", "a.kd", "b.kd"), ("sweep", "a.toml")], ids=str
)
def test_commands_on_blocks_have_the_flags_of_an_engine(capsys: Capture, words: tuple[str, ...]) -> None:
    assert "engine: Input should be 'local' or 'dask' (given 'ray')" in refusal(capsys, *words, "--engine", "ray")
    assert "dask_workers: give a whole number from 0 to 1_024 (given -1)" in refusal(
        capsys, *words, "--dask-workers", -1
    )
    for flag, value in (("--scheduler", "tcp://x:1"), ("--dask-workers", "2")):
        name = flag[2:].replace("-", "_")
        assert f"{name} is" in (message := refusal(capsys, *words, flag, value))
        assert "without --engine dask" in message
