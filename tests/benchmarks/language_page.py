"""The tables of docs/language_sizes.md, put between their marks; what people wrote around them stays."""

from pathlib import Path

BEGIN, END = "<!-- made by python -m tests.benchmarks.language_sizes -->", "<!-- end of what is made -->"
PUBLISHED = {  # bytes a token: by their own accounts, or by the layout of their files; none was measured here
    "DistillKit, k 50": "114 to 127",
    "DistillKit, k 128": "328 to 344",
    "Megatron-LM, k 50": "200 to 250, from 5 bytes an entry before zstd",
    "MaxText, k 128": "670 to 900",
    "NeMo-Aligner, k 100": "about 1,800",
    "RS-KD (arXiv 2503.16870), 12 ids a token": "36, ids without a code",
}
ONCE = ("class_means", "commits", "records")  # of a segment, a block, a store: they shrink with its size


def made(sizes: dict[str, dict[str, float]], model: list[str], conditions: str) -> str:
    """The tables from bytes a token by store and part, the lines of the model, and the conditions of the run."""
    parts = [*dict.fromkeys(name for store in sizes.values() for name in store)]
    parts = [name for name in parts if name not in ONCE] + [name for name in ONCE if name in parts]
    lines = ["| bytes a token | measured: all files |", "|---|---|"]
    lines += [f"| kdcache, {title} | {sum(store.values()):.1f} |" for title, store in sizes.items()]
    lines += ["", "| others | published |", "|---|---|"]
    lines += [f"| {name} | {size} |" for name, size in PUBLISHED.items()]
    lines += ["", "By array, and by what stands once a segment, a block or a store:", ""]
    lines += ["| store | " + " | ".join([*parts, "all"]) + " |", "|---" * (len(parts) + 2) + "|"]
    for title, store in sizes.items():
        cells = [f"{store[name]:.2f}" if name in store else "" for name in parts]
        lines.append("| " + " | ".join([title, *cells, f"{sum(store.values()):.2f}"]) + " |")
    lines += ["", "The rows that were written:", "", *(f"- {line}" for line in model), "", conditions]
    return "\n".join(lines)


def write_page(page: Path, sizes: dict[str, dict[str, float]], model: list[str], conditions: str) -> None:
    """Replace the tables of a page; it is begun where there is none. Raises SystemExit for one without the marks."""
    text = page.read_text() if page.exists() else f"# Bytes a token\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    if not begin or END not in rest:
        raise SystemExit(f"{page} lacks the marks {BEGIN} and {END}; put them where the tables belong")
    page.write_text(f"{before}{BEGIN}\n\n{made(sizes, model, conditions)}\n\n{END}{rest.partition(END)[2]}")
