"""The blocks of docs/language_sizes.md, put between their marks; what people wrote around them stays."""

from pathlib import Path
from typing import Any

from tests.benchmarks.blocks import marks, replaced, table
from tests.benchmarks.report import line_of_conditions

MAKER = "python -m tests.benchmarks.language_sizes"
SIZES, DETAILS = (marks(name, MAKER) for name in ("sizes", "details"))
PUBLISHED = {  # bytes a token: by their own accounts, or by the layout of their files; none was measured here
    "DistillKit, k 50": "114 to 127",
    "DistillKit, k 128": "328 to 344",
    "Megatron-LM, k 50": "200 to 250, from 5 bytes an entry before zstd",
    "MaxText, k 128": "670 to 900",
    "NeMo-Aligner, k 100": "about 1,800",
    "RS-KD (arXiv 2503.16870), 12 ids a token": "36, ids without a code",
}
ONCE = ("class_means", "commits", "records")  # of a segment, a block, a store: they shrink with its size
Record = dict[str, Any]  # device, versions, command, minutes; "sizes": bytes a token by store and part; "model": lines


def sizes(record: Record) -> str:
    """Bytes a token of each store, and those that others publish."""
    ours = [[f"kdcache, {title}", f"{_all(parts):.1f}"] for title, parts in record["sizes"].items()]
    others = table(("others", "published"), [[name, size] for name, size in PUBLISHED.items()])
    return "\n".join([table(("bytes a token", "measured: all files"), ours), "", others])


def details(record: Record) -> str:
    """Bytes a token by array, the rows that were written, and the conditions of the run."""
    stores = record["sizes"]
    parts = [*dict.fromkeys(name for store in stores.values() for name in store if name != "all")]
    parts = [name for name in parts if name not in ONCE] + [name for name in ONCE if name in parts]
    rows = [
        [title, *(f"{store[name]:.2f}" if name in store else "" for name in parts), f"{_all(store):.2f}"]
        for title, store in stores.items()
    ]
    model = [f"- {line}" for line in record["model"]]
    lines = [table(("store", *parts, "all"), rows), "", "The rows that were written:", "", *model, ""]
    return "\n".join([*lines, line_of_conditions(record)])


def _all(parts: dict[str, float]) -> float:
    """The sum, which a record of rounded parts brings along."""
    return parts["all"] if "all" in parts else sum(parts.values())


def write_page(page: Path, record: Record) -> None:
    """Replace the blocks of a page; it is begun where there is none. Raises SystemExit for one without their marks."""
    empty = "\n\n".join(["# Bytes a token", *("\n".join(block) for block in (SIZES, DETAILS)), ""])
    text = page.read_text() if page.exists() else empty
    for block, made in ((SIZES, sizes(record)), (DETAILS, details(record))):
        text = replaced(text, block, made, page=page)
    page.write_text(text)
