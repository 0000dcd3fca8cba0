"""`kdcache extract` writes a teacher's soft labels to a store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdcache.base.launch import launched
from kdcache.base.units import bytes_text, seconds_text
from kdcache.cli.console import print_first_note, print_note, print_record, print_table, stopping
from kdcache.cli.flags import Verbose, with_flags
from kdcache.cli.progress import progress_bar
from kdcache.cli.summary import print_summary
from kdcache.pipelines.settings import ExtractSettings, load_settings

if TYPE_CHECKING:
    from kdcache.pipelines.extract.report import ExtractSummary

EXAMPLES = (
    "kdcache extract digits.kd --teacher run:runs/teacher --data digits --views 4",
    "kdcache extract digits.kd --config extract.toml --views 8  # adds views 4:8",
    "kdcache extract imagenet.kd --teacher timm:vit_base_patch16_224 \\",
    "    --teacher-set pretrained=true --data folder:/data/train \\",
    "    --transform imagenet --views 10 --top-k 20",
    "kdcache extract own.kd --teacher nets.py:make --data sets.py:load --dry-run",
)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Run a few batches and estimate; write nothing.", rich_help_panel="Run")
]


@with_flags(ExtractSettings, "store", dry_run=DryRun, verbose=Verbose)
def command(flags: dict[str, Any], config: str | None, as_json: bool, dry_run: bool, verbose: bool) -> None:
    settings = load_settings(ExtractSettings, flags, config)
    is_first = launched().rank == 0
    is_quiet = as_json or not is_first
    print_first_note(quiet=is_quiet)
    if dry_run:
        from kdcache.pipelines.extract.dry_run import estimate
        from kdcache.pipelines.extract.sizes import outputs_text

        with progress_bar(quiet=as_json) as progress:
            result = estimate(settings, progress=progress)
        if as_json:
            print_record(result.model_dump(), as_json=True)
            return
        record = result.model_dump(exclude={"by_k", "by_tail"})
        if result.output_bytes:
            record["beside the soft labels"] = outputs_text(result.output_bytes, result.label_bytes)
        title = f"dry run on {result.rows_tried:,} of {result.rows:,} rows: nothing was written"
        print_record(record, as_json=False, title=title)
        if not result.by_k:  # subclasses, which need all logits
            return
        columns = ["k", "kept mass T 1", "T 2", "T 4", "bytes a row", "mean KL by quantising"]
        print_table(columns, [[row.k, *row.kept_mass, row.bytes_a_row, row.quantisation_kl] for row in result.by_k])
        _print_tails(result.by_tail)
        return
    from kdcache.cli.next_commands import after_extracting
    from kdcache.pipelines.extract.stage import extract

    with stopping(as_json) as stop, progress_bar(quiet=is_quiet) as progress:
        announce = None if is_quiet else lambda sizes: print_note(sizes.text)
        summary = extract(settings, progress=progress, stop=stop, announce=announce)
    if is_first:
        print_summary(
            "extracted" if summary.blocks > summary.blocks_done_before else "was done before: nothing was extracted",
            summary,
            lines=_lines(summary),
            next_commands=() if as_json else after_extracting(settings),
            as_json=as_json,
            verbose=verbose,
        )


def _lines(summary: "ExtractSummary") -> dict[str, str]:
    before = f", {summary.blocks_done_before:,} of them before" if summary.blocks_done_before else ""
    checks = f"{seconds_text(summary.checks_seconds)} of checks"
    pace = f"{seconds_text(summary.seconds)}, {summary.rows_a_second:,.0f} rows/s, after {checks}"
    accuracies = {"clean rows": summary.accuracy_clean, "the views": summary.accuracy_views}
    known = [f"{100 * share:.1f} % on {rows}" for rows, share in accuracies.items() if share is not None]
    return {
        "store": summary.store if summary.content_id is None else f"{summary.store}@{summary.content_id[:32]}",
        "rows": f"{summary.rows:,} of views {summary.views} in {summary.blocks:,} blocks{before}",
        "size": f"{bytes_text(summary.bytes)}, {summary.bytes_a_row:.4g} bytes a row",
        "time": pace if summary.blocks > summary.blocks_done_before else checks,
        "accuracy": "the teacher's: " + ", ".join(known) if known else "-",
    }


def _print_tails(errors: Sequence[Any]) -> None:
    """Print a line for each k and temperature, a column for each tail."""
    tails = list(dict.fromkeys(error.tail for error in errors))
    lines: dict[tuple[int, float], list[str]] = {}
    for error in errors:
        cell = f"{error.kl_error:.3f} {error.angle_start:.0f}\u00b0 {error.angle_half:.0f}\u00b0"
        lines.setdefault((error.k, error.temperature), []).append(cell)
    print_table(
        ["k", "T", *tails],
        [[k, f"{temperature:g}", *cells] for (k, temperature), cells in lines.items()],
        title="error in KL (nats), angle between gradients at the start and half way, by tail",
    )
