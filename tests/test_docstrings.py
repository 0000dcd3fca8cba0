"""The docstrings of public names: each has a first sentence and an example, and every example gives what it says."""

import doctest
import importlib
import inspect
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import kdcache
from kdcache import errors, networks
from kdcache.objectives.catalogue import TERMS
from tests.kits.docstrings import PAGE, names_of_page, write_texts
from tests.kits.stages import Stage, stage

__all__ = ["stage"]

MEASURES = (
    "attention.AttentionTally",
    "cka.BatchTally",
    "cka.FeatureTally",
    "cost.cost",
    "facts.Value",
    "sharpness.sharpness",
    "two_results.affinity",
    "two_results.fidelity_gap",
)
FOR_OBJECTIVES = (
    "by_rows.ByRows",
    "ramps.Ramp",
    "tap_pairs.Sizes",
    "tap_pairs.TeacherSizes",
    "tap_pairs.names_of",
    "tap_pairs.tap_pairs",
    "targets.Targets",
)
ENTRY = re.compile(r'^::: (\S+)\n    options:\n      heading: "?([^"\n]+)"?$', re.MULTILINE)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def of_path(path: str) -> Any:
    """The object at a module's path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def public_names() -> dict[str, Any]:
    """Public objects by the names that people know them by."""
    names = {f"kdcache.{name}": getattr(kdcache, name) for name in kdcache.__all__}
    names |= {f"kdcache.networks.{name}": getattr(networks, name) for name in networks.__all__}
    names |= {f"objective {name}": term for name, term in TERMS.items()}
    paths = [f"kdcache.measures.{path}" for path in MEASURES] + [
        f"kdcache.objectives.{path}" for path in FOR_OBJECTIVES
    ]
    return names | {path: of_path(path) for path in paths}


def docstrings(name: str, public: Any) -> Iterator[tuple[str, str]]:
    """The docstring of a public object, and those of a class's public methods and properties."""
    yield name, inspect.getdoc(public) or ""
    if inspect.isclass(public):
        for member, value in vars(public).items():
            is_method = callable(value) or isinstance(value, property | classmethod | staticmethod)
            if is_method and not member.startswith("_"):
                yield f"{name}.{member}", inspect.cleandoc(value.__doc__ or "")


@pytest.fixture(scope="module")
def page_names(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names that the page of the Python API begins with, in a folder with the stores that examples read."""
    folder = tmp_path_factory.mktemp("examples")
    stage.copy(folder / "digits.kd")
    shutil.copy(stage.weights, folder / "teacher.safetensors")
    write_texts(folder / "texts.kd")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield names_of_page()


def test_every_public_name_has_a_first_sentence_and_an_example(subtests: pytest.Subtests) -> None:
    for name, public in public_names().items():
        with subtests.test(name):
            text = inspect.getdoc(public) or ""
            first = text.partition("\n\n")[0]
            assert ". " in first.replace("\n", " ") or first.endswith("."), "no first sentence that ends in a full stop"
            assert doctest.DocTestParser().get_examples(text), "no example"


def test_the_examples_run(page_names: dict[str, Any], subtests: pytest.Subtests) -> None:
    """In one test, so that one process of several makes the stores."""
    parser, count = doctest.DocTestParser(), 0
    for public_name, public in public_names().items():
        for name, text in docstrings(public_name, public):
            example = parser.get_doctest(text, dict(page_names), name, None, 0)
            if not example.examples:
                continue
            report: list[str] = []
            torch.manual_seed(0)
            with subtests.test(name):
                result = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.append)
                assert not result.failed, "".join(report)
            count += 1
    assert count > 90


def test_every_public_name_has_an_entry_under_its_name() -> None:
    """The pages name the home of each object, since mkdocstrings reads the source and imports nothing."""
    entries = [entry for page in PAGE.parent.glob("*.md") for entry in ENTRY.findall(page.read_text())]
    assert len({path for path, _ in entries}) == len(entries)
    shown = {}
    for path, heading in entries:
        term, _, _ = heading.partition(": ")
        name = f"objective {term}" if term in TERMS else heading
        assert (TERMS[term] if term in TERMS else of_path(name)) is of_path(path), heading
        shown[name] = of_path(path)
    assert {id(public) for public in public_names().values()} <= {id(public) for public in shown.values()}


def test_the_page_of_errors_draws_the_tree_that_there_is() -> None:
    tree = re.findall(r"^([│├└─ ]*)(\w+Error)(?: +exit (\d+))?$", (PAGE.parent / "errors.md").read_text(), re.MULTILINE)
    assert {name for _, name, _ in tree} == {name for name in vars(errors) if name.endswith("Error")}
    above: list[str] = []
    for branch, name, status in tree:
        kind, depth = getattr(errors, name), len(branch) // 4
        assert kind.__base__.__name__ == ("Exception" if depth == 0 else above[depth - 1])
        assert kind.exit_code == int(status or 2)
        above[depth:] = [name]
