"""Code on pages of documentation: blocks of Markdown, the kdcache lines in them, and the names that Python imports.

A kdcache line is read by the command itself, as far as its settings, and not run. `...` in a line stands for settings
that are left out.
"""

import ast
import importlib
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from kdcache.cli.app import COMMANDS, app
from kdcache.errors import InvalidInputError
from kdcache.pipelines.compare.settings import CompareSettings
from kdcache.pipelines.settings import ExtractSettings, TrainSettings, load_settings
from kdcache.pipelines.studies.settings import StudySettings
from kdcache.pipelines.taps_settings import TapsSettings
from kdcache.pipelines.verify.settings import VerifySettings

MODELS: dict[str, Any] = {
    "compare": CompareSettings,
    "extract": ExtractSettings,
    "study": StudySettings,
    "taps": TapsSettings,
    "train": TrainSettings,
    "verify": VerifySettings,
}
FENCE = re.compile(r"^( *)(```+)([a-z]*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^(?:\w*\$ )?(?:export )?(?:[A-Z_]+=\S+ )*(?:torchrun .*?-m |python -m )?kdcache (.+)$")
DOTTED = re.compile(r"`((?:kdcache)(?:\.\w+)+)(?:\([^`]*)?`")
SPEC = re.compile(r"\b(kdcache(?:\.\w+)+):(\w+)")
ENDS = frozenset({"|", ">", "2>", "&", "&&", ";", "||"})


@dataclass(frozen=True)
class Block:
    """A block of code: its language, empty where it names none or is indented, and its text."""

    language: str
    text: str


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page, then the indented ones."""
    fenced = [Block(match[3], textwrap.dedent(match[4])) for match in FENCE.finditer(page)]
    return [*fenced, *(Block("", text) for text in indented(FENCE.sub("", page)))]


def indented(text: str) -> Iterator[str]:
    """Blocks of lines that are indented by four spaces, below an empty line; those of a list are such too."""
    lines: list[str] = []
    is_after_empty = True
    for line in [*text.splitlines(), "end"]:
        if line.startswith("    ") and (lines or is_after_empty):
            lines.append(line)
        elif lines and not line.strip():
            lines.append("")
        elif lines:
            yield textwrap.dedent("\n".join(lines)).strip("\n") + "\n"
            lines = []
        is_after_empty = not line.strip()


def is_python(block: Block) -> bool:
    """True for a block that is marked so, and for an indented one that imports, or defines a function or a class."""
    if block.language:
        return block.language == "python"
    return bool(re.search(r"^(from \S+ import |import \w|def \w+\(|class \w+)", block.text, re.MULTILINE))


def console_lines(block: Block) -> list[str]:
    """The arguments of each kdcache line of a block, lines that end in a backslash joined."""
    text = block.text.replace("\\\n", " ")
    return [match[1] for line in text.splitlines() if (match := LINE.match(line.strip()))]


def fault_of_line(given: str) -> str | None:
    """What is wrong with the arguments of a kdcache line; None where the command takes them."""
    words = list(_words(given))
    is_part = "..." in words
    words = [word for word in words if word != "..."]
    if not words or words[0].startswith("-"):
        return None
    name, *arguments = words
    if name not in COMMANDS:
        return f"no command {name!r}"
    try:
        _read(name, arguments, is_part)
    except InvalidInputError as error:
        return str(error)
    except Exception as error:  # click's errors have no public base that typer keeps
        if not hasattr(error, "format_message"):
            raise
        return None if is_part and "Missing" in error.format_message() else error.format_message()
    return fault_of_specs(given)


def _words(given: str) -> Iterator[str]:
    """The words of a line up to a pipe, a redirection or a comment."""
    for word in shlex.split(given, comments=True):
        if word in ENDS:
            return
        yield word.removesuffix(";")


def _read(name: str, arguments: list[str], is_part: bool) -> None:
    group: Any = typer.main.get_command(app)
    given = group.get_command(None, name).make_context(name, arguments).params
    model = MODELS.get(name)
    if model is None or given.get("config"):
        return
    flags = {field: given[field] for field in model.model_fields if given[field] not in (None, [], ())}
    try:
        load_settings(model, flags, None)
    except InvalidInputError as error:
        cause = error.__cause__
        missing = isinstance(cause, ValidationError) and all(item["type"] == "missing" for item in cause.errors())
        if not (is_part and missing):
            raise


def fault_of_specs(text: str) -> str | None:
    """The first `kdcache.module:name` of a text that is not there."""
    for module, name in SPEC.findall(text):
        if not _has(module, name):
            return f"there is no {module}:{name}"
    return None


def fault_of_span(span: str) -> str | None:
    """What is wrong with `kdcache ...` in a sentence, where values may be left out: an unknown command or flag."""
    name, *rest = span.split()[1:] or ["-"]
    if name not in COMMANDS:
        return None if name.startswith("-") or not name.islower() else f"no command {name!r}"
    group: Any = typer.main.get_command(app)
    known = {flag for option in group.get_command(None, name).params for flag in (*option.opts, *option.secondary_opts)}
    flags = [word.strip("[]().,").partition("=")[0] for word in rest if word.strip("[(").startswith("--")]
    unknown = [flag for flag in flags if flag not in {*known, "--help"}]
    return f"{name} has no {', '.join(unknown)}" if unknown else None


def faults_of_python(text: str) -> list[str]:
    """What is wrong with Python code: syntax, and names of kdcache that are not there."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return [f"{error.msg}: {(error.text or '').strip()}"]
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_ours(node.module):
            module = str(node.module)
            faults += [f"{module} has no {name.name}" for name in node.names if not _has(module, name.name)]
        elif isinstance(node, ast.Import):
            faults += [f"no module {name.name}" for name in node.names if _is_ours(name.name) and not _has(name.name)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "kdcache":
            faults += [] if _has("kdcache", node.attr) else [f"kdcache has no {node.attr}"]
    return faults


def unknown_names(page: str) -> list[str]:
    """Names such as `kdcache.module.name` in sentences that are not there. A key of a file may begin so too: what has
    no room or class of kdcache for its second part is none of ours."""
    names = [name for name in DOTTED.findall(page) if name.split(".")[1][0].isupper() or _has(*name.split(".")[:2])]
    return [name for name in names if not _has(*name.rsplit(".", 1))]


def _is_ours(module: str | None) -> bool:
    return (module or "").partition(".")[0] == "kdcache"


def _has(module: str, name: str = "") -> bool:
    try:
        imported = importlib.import_module(module)
    except ImportError:
        return False
    return not name or hasattr(imported, name) or _has(f"{module}.{name}")


def pages_in(root: Path) -> list[Path]:
    """README.md and all pages of docs/."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
