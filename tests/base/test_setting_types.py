"""setting_types: paths are taken as they are written, and those that commas join are told how to be given."""

from pathlib import Path

import pytest

from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.settings import TrainSettings, load_settings

NEEDED = {"run": "run", "student": "m:s", "data": "digits"}


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("a.kd", ("a.kd",)),
        ("sweep/lr=0.1,seed=2-3f9a01bc/a.kd", ("sweep/lr=0.1,seed=2-3f9a01bc/a.kd",)),
        (["a,b.kd", "c.kd"], ("a,b.kd", "c.kd")),
        (("a.kd", " b.kd "), ("a.kd", " b.kd ")),
        ("s3://team/a,b.kd@1f2e", ("s3://team/a,b.kd@1f2e",)),
        ("", ()),
    ],
)
def test_commas_split_no_paths(value: object, paths: tuple[str, ...]) -> None:
    for name in ("store", "val_store"):
        assert getattr(load_settings(TrainSettings, {**NEEDED, name: value}, None), name) == paths
    if paths:
        settings = load_settings(CompareSettings, {"runs": value, "store": value}, None)
        assert (settings.runs, settings.store) == (paths, paths)


def test_a_string_and_a_list_of_toml(tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text('store = "a,b.kd"\nval_store = ["c,d.kd", "e.kd"]\n')
    settings = load_settings(TrainSettings, NEEDED, str(config))
    assert (settings.store, settings.val_store) == (("a,b.kd",), ("c,d.kd", "e.kd"))


def test_paths_that_commas_join_are_told_how_to_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.kd", "b c.kd"):
        Path(name).mkdir()
    for value in ("a.kd,b c.kd", "a.kd, b c.kd@1f2e", "s3://team/a.kd,b c.kd", ["a.kd", "a.kd,b c.kd"]):
        for name in ("store", "val_store"):
            with pytest.raises(InvalidInputError, match=f"^{name}: .*the flag repeats: write --{name.split('_')[0]}"):
                load_settings(TrainSettings, {**NEEDED, name: value}, None)
    with pytest.raises(InvalidInputError, match=r"--val-store a\.kd --val-store 'b c\.kd', and in TOML a list"):
        load_settings(TrainSettings, {**NEEDED, "val_store": "a.kd,b c.kd"}, None)
    with pytest.raises(InvalidInputError, match=r"give each by itself: a\.kd 'b c\.kd'"):
        load_settings(CompareSettings, {"runs": ["a.kd,b c.kd"]}, None)
    Path("a.kd,b c.kd").mkdir()
    assert load_settings(TrainSettings, {**NEEDED, "store": "a.kd,b c.kd"}, None).store == ("a.kd,b c.kd",)
