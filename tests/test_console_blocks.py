"""Code on pages: each kdcache line is one that the command takes, Python compiles and imports names that exist."""

import re
from pathlib import Path

import pytest

from tests.kits.doc_blocks import (
    Block,
    blocks_of,
    console_lines,
    fault_of_line,
    fault_of_span,
    faults_of_python,
    is_python,
    pages_in,
    unknown_names,
)
from tests.kits.house import ROOT

SPAN = re.compile(r"(?<!`)`(kdcache [^`\n]+)`(?!`)")
PAGES = pages_in(ROOT)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_line_is_one_that_its_command_takes(path: Path) -> None:
    lines = [line for block in blocks_of(path.read_text()) for line in console_lines(block)]
    faults = [f"kdcache {line}\n  {fault}" for line in lines if (fault := fault_of_line(line))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_in_sentences_have_the_flags_that_they_name(path: Path) -> None:
    faults = [f"`{span}`: {fault}" for span in SPAN.findall(path.read_text()) if (fault := fault_of_span(span))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_python_compiles_and_imports_what_there_is(path: Path) -> None:
    blocks = [block for block in blocks_of(path.read_text()) if is_python(block)]
    faults = [fault for block in blocks for fault in faults_of_python(block.text)]
    faults += [f"there is no {name}" for name in unknown_names(path.read_text())]
    assert not faults, "\n".join(faults)


PAGE = """# A page

    kdcache train run --student kdcache.networks:convnet ...
    torchrun --nproc-per-node 2 -m kdcache extract x.kd \\
        --data digits ...

- a list

    ```console
    alice$ kdcache seal x.kd --name "a # b"   # a comment
    sealed
    ```

```python
import kdcache
```
"""


def test_blocks_and_lines_are_seen() -> None:
    blocks = blocks_of(PAGE)
    assert [block.language for block in blocks] == ["console", "python", ""]
    assert [line for block in blocks for line in console_lines(block)] == [
        'seal x.kd --name "a # b"   # a comment',
        "train run --student kdcache.networks:convnet ...",
        "extract x.kd      --data digits ...",
    ]
    assert [is_python(block) for block in blocks] == [False, True, False]
    assert is_python(Block("", "from kdcache import Store\n"))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("train run --student kdcache.networks:convnet --data digits | jq .loss", None),
        ("train run ...", None),
        ("train run", "must be given"),
        ("train run --lr fast ...", "valid number"),
        ("train run --studnet x ...", "studnet"),
        ("train run --student kdcache.networks:konvnet ...", "no kdcache.networks:konvnet"),
        ("push x.kd", "Missing"),
        ("push x.kd ...", None),
        ("sail x.kd", "no command 'sail'"),
        ("--version", None),
    ],
)
def test_a_line_that_would_be_refused_is_a_fault(line: str, fault: str | None) -> None:
    seen = fault_of_line(line)
    assert seen is None if fault is None else fault in (seen or ""), seen


@pytest.mark.parametrize(
    ("span", "fault"),
    [
        ("kdcache push STORE --without taps", None),
        ("kdcache study [NAME]", None),
        ("kdcache push --wihout taps", "push has no --wihout"),
        ("kdcache posh", "no command 'posh'"),
    ],
)
def test_a_flag_in_a_sentence_is_looked_up(span: str, fault: str | None) -> None:
    assert fault_of_span(span) == fault


def test_python_with_names_that_are_not_there_is_a_fault() -> None:
    assert faults_of_python("from kdcache import Store\nimport kdcache.measures.tally\nkdcache.Tally()\n") == []
    assert faults_of_python("from kdcache.objectives import Nothing\n") == ["kdcache.objectives has no Nothing"]
    assert faults_of_python("import kdcache\nkdcache.Stroe\n") == ["kdcache has no Stroe"]
    assert len(faults_of_python("for x in y\n")) == 1
    text = "`kdcache.Store`, `kdcache.measures.cka`, `kdcache.objectives.make(x)` and the key `kdcache.lineage`"
    assert unknown_names(text) == ["kdcache.objectives.make"]


def test_pages_are_read_at_all() -> None:
    """Of every kind of block there are many; a pattern that matches none would pass in silence."""
    blocks = [block for path in PAGES for block in blocks_of(path.read_text())]
    assert sum(len(console_lines(block)) for block in blocks) > 150
    assert sum(map(is_python, blocks)) > 20
