"""Every number of every setting has bounds: hostile values are refused, naming the setting, the value and the range."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from torch import nn

from kdcache.base.engine_settings import EngineSettings
from kdcache.base.ranges import SEED_MAX, WORD_MAX, Range
from kdcache.errors import InvalidInputError
from kdcache.measures.sharpness import sharpness
from kdcache.pipelines.settings import ExtractSettings, TrainSettings, load_settings
from kdcache.pipelines.sweep.space import Distribution, RandomSearch, StudySearch
from kdcache.pipelines.verify.settings import VerifySettings
from kdcache.store.whole_arrays import make_order
from kdcache.training.loader import Loader
from kdcache.views.sources import open_data
from tests.kits.doors import Door

MODELS: tuple[type[BaseModel], ...] = (ExtractSettings, TrainSettings, VerifySettings, EngineSettings)
SEARCHES: tuple[type[BaseModel], ...] = (Distribution, RandomSearch, StudySearch)
HOSTILE: tuple[Any, ...] = (math.inf, -math.inf, math.nan, 10**400, -(10**400), True, False, "many", "nan", "inf", {})


def numbers_in(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Range | None]]:
    """Each int and float of an annotation, with the range that bounds it, None where nothing does."""
    if hasattr(annotation, "__metadata__"):
        annotation, metadata = annotation.__origin__, (*metadata, *annotation.__metadata__)
    if annotation in (int, float):
        yield annotation, next((item for item in metadata if isinstance(item, Range)), None)
    is_list = get_origin(annotation) in (tuple, list)
    for argument in get_args(annotation) if get_origin(annotation) is not dict else ():
        if argument not in (Ellipsis, type(None)) and not isinstance(argument, str):
            yield from numbers_in(argument, () if is_list else metadata)


def fields_of(models: tuple[type[BaseModel], ...]) -> list[tuple[type[BaseModel], str, Range | None, bool]]:
    """The model, name, range and plurality of every field that holds numbers."""
    return [
        (model, name, bounds, get_origin(field.annotation) is tuple)
        for model in models
        for name, field in model.model_fields.items()
        for _, bounds in numbers_in(field.annotation, tuple(field.metadata))
    ]


FIELDS = fields_of(MODELS)
IDS = [f"{model.__name__}.{name}" for model, name, _, _ in FIELDS]
NEEDED = {"store": "s.kd", "data": "digits", "teacher": "m:t", "run": "run", "student": "m:s"}


def test_no_number_is_without_a_range() -> None:
    assert len(FIELDS) > 35
    assert [identifier for identifier, (_, _, bounds, _) in zip(IDS, FIELDS, strict=True) if bounds is None] == []
    assert [(model.__name__, name) for model, name, bounds, _ in fields_of(SEARCHES) if bounds is None] == []


@pytest.mark.parametrize(("model", "name", "bounds", "is_plural"), FIELDS, ids=IDS)
def test_hostile_numbers_are_refused_by_name(model: type[BaseModel], name: str, bounds: Range, is_plural: bool) -> None:
    needed = {key: value for key, value in NEEDED.items() if key in model.model_fields}
    outside = [bounds.low - 1, bounds.high * 10 + 1] + ([bounds.low] if bounds.above else [])
    outside += [bounds.high] if bounds.below else []
    for value in (*HOSTILE, *outside):
        with pytest.raises(InvalidInputError) as caught:
            load_settings(model, {**needed, name: [value] if is_plural else value}, None)
        text = str(caught.value)
        assert text.startswith(name)
        assert f" {bounds} " in f"{text} "
        assert f"(given {value!r})"[:60] in text
    inside = [bounds.high] if not bounds.below else [(bounds.low + bounds.high) / 2]
    inside += [bounds.low] if not bounds.above else []
    for value in inside:
        setting = getattr(load_settings(model, {**needed, name: [value] if is_plural else value}, None), name)
        assert setting == ((value,) if is_plural else value)


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        (RandomSearch, "trials", 10**23), (RandomSearch, "trials", True), (StudySearch, "trials", 0),
        (StudySearch, "seed", 2**32), (Distribution, "uniform", (0, math.inf)),
        (Distribution, "uniform", (math.nan, 1)), (Distribution, "int", (0, 10**23)),
        (Distribution, "loguniform", (0.1, math.inf)),
    ],
)  # fmt: skip
def test_hostile_numbers_of_a_search_are_refused(model: type[BaseModel], name: str, value: Any) -> None:
    space = {} if model is Distribution else {"space": {"lr": {"uniform": [0.1, 0.2]}}, "trials": 2}
    with pytest.raises(ValueError, match=name):
        model.model_validate({**space, name: value})


def test_a_seed_has_a_range_in_flags_in_toml_and_in_python(door: Door) -> None:
    network = ("--student", "kdcache.networks:convnet", "--student-set", "width=2", "--workers", 0, "--epochs", 1)
    words = ("train", "run", *network, "--data", "digits", "--data-set", "limit=70")
    for seed in (SEED_MAX + 1, WORD_MAX + 1, -1):
        written = door.write("a.toml", f"seed = {seed}\n")
        for flags in ((f"--seed={seed}",), ("--config", written)):
            assert f"seed: give a whole number from 0 to 9_223_372_036_854_775_807 (given {seed}" in door.refused(
                *words, *flags
            ).replace("'", "")
    teacher = ("--teacher", "kdcache.networks:convnet", "--teacher-set", "width=2", "--workers", 0, "--min-accuracy", 0)
    door.done("extract", "s.kd", *teacher, *words[-4:], "--seed", SEED_MAX)
    door.done(*words, "--store", "s.kd", "--seed", SEED_MAX)
    data = open_data("digits", {"limit": 70})
    Loader(data, seed=WORD_MAX, batch_size=32, epochs=1)
    for seed in (WORD_MAX + 1, -1, 0.5, True):
        for make in (partial(Loader, data, batch_size=32, epochs=1), partial(sharpness, nn.Linear(1, 1), [])):
            with pytest.raises(InvalidInputError, match=f"seed is {seed}; give a whole number from 0 to 18_446_744"):
                make(seed=seed)
    with pytest.raises(InvalidInputError, match=r"seed is 9223372036854775808; .* to 9_223_372_036_854_775_807"):
        make_order(70, "shuffled", SEED_MAX + 1)


@pytest.mark.parametrize("flag", ["--epochs", "--batch-size", "--seed", "--workers"])
@pytest.mark.parametrize("value", ["-1", str(10**23), "nan", "inf", "1.5", ""])
def test_flags_are_refused_as_files_are(door: Door, flag: str, value: str) -> None:
    words = ("train", "run", "--student", "kdcache.networks:convnet", "--data", "digits")
    assert flag[2:].replace("-", "_") in door.refused(*words, f"{flag}={value}").replace("-", "_")
    assert not (door.folder / "run").exists()


def test_numbers_of_a_file_are_taken_as_they_are_written(door: Door) -> None:
    config = door.write("a.toml", "views = 2\nmean = 0.5\nstd = [0.25]\nlr = 1\nstep_epochs = 3\ntemperature = 2\n")
    settings = load_settings(TrainSettings, {"run": "r", "student": "m:s", "data": "digits"}, str(config))
    assert settings.views is not None
    assert (list(settings.views), settings.mean, settings.std) == ([0, 1], (0.5,), (0.25,))
    assert (settings.lr, settings.step_epochs, settings.temperature) == (1.0, (3,), 2.0)


def test_numbers_of_commands_without_a_file_are_bounded_too(door: Door) -> None:
    teacher = ("--teacher", "kdcache.networks:convnet", "--teacher-set", "width=2", "--min-accuracy", 0)
    door.done("extract", "s.kd", *teacher, "--data", "digits", "--data-set", "limit=70", "--top-k", 3, "--workers", 0)
    for words in (
        *(("diff", "s.kd", "s.kd", f"--temperature={value}") for value in ("inf", "nan", "0", "-1")),
        *(("doctor", "--data", "digits", f"--workers={value}") for value in ("-1", "100000", 10**23)),
        *(("inspect", "s.kd", f"--view={value}") for value in ("-1", "7", 10**23)),
        *(("inspect", "s.kd", f"--rows={value}") for value in ("-1", "nan")),
    ):
        assert str(words[-1])[2:].partition("=")[0] in door.refused(*words)
    assert door.run("inspect", "s.kd", "--view", 0).exit_code == 0
