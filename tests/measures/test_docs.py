"""docs/measures.md: its table is the catalogue, its example runs, and the page is short."""

import torch

from kdcache.measures.catalogue import MEASURES
from tests.kits.house import ROOT
from tests.kits.measures import random_case, topk_teacher

PAGE = (ROOT / "docs/measures.md").read_text()


def row_of(name: str) -> str:
    facts = MEASURES[name]
    cells = (f"`{name}`", facts.unit, facts.formula, facts.source, ", ".join(facts.needs), facts.exactness)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def test_the_table_is_the_catalogue() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert rows == [row_of(name) for name in MEASURES], "\n".join(row_of(name) for name in MEASURES)


def test_the_example_runs() -> None:
    case = random_case(64)
    batches = [
        (case.logits[rows], topk_teacher(case.teacher[rows], 5), case.hard[rows]) for rows in torch.arange(64).split(20)
    ]
    code = PAGE.partition("```python\n")[2].partition("```")[0]
    names = {"student": lambda images: images, "batches": batches}
    exec(code, names)
    assert names["value"].exactness == "bound"


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) < 150
