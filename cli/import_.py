"""`kdcache import` makes a store of answers that others captured."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from kdcache.base.units import bytes_text
from kdcache.cli.console import print_first_note, stopping
from kdcache.cli.flags import Json, with_settings_flags
from kdcache.cli.progress import progress_bar
from kdcache.cli.summary import print_summary
from kdcache.pipelines.importing.settings import ImportSettings, Layout

if TYPE_CHECKING:
    from kdcache.pipelines.importing.stage import ImportSummary

EXAMPLES = (
    "kdcache import --from distillkit captured/ --store qwen.kd \\",
    "    --teacher Qwen/Qwen3-235B-A22B --classes 151936",
    "kdcache import --from vllm outputs.jsonl --store llama.kd \\",
    "    --teacher meta-llama/Llama-3.1-70B --classes 128256",
)

Files = Annotated[list[str], typer.Argument(help="files of captured answers, or folders of them")]
From = Annotated[Layout, typer.Option("--from", help="Whose files they are.")]
StorePath = Annotated[str, typer.Option("--store", metavar="STORE", help="Folder: new, or one to go on with.")]
Teacher = Annotated[str, typer.Option("--teacher", metavar="NAME", help="Name of the teacher that answered.")]


@with_settings_flags
def command(
    files: Files,
    *,
    layout: From,
    store: StorePath,
    teacher: Teacher,
    settings: ImportSettings,
    seal: Annotated[bool, typer.Option("--seal/--no-seal", help="Seal the store once it is whole.")] = True,
    as_json: Json = False,
) -> None:
    print_first_note(quiet=as_json)
    from kdcache.pipelines.importing.stage import import_store

    with progress_bar(quiet=as_json) as progress, stopping(as_json) as stop:
        summary = import_store(
            files, store, layout=layout, teacher=teacher, settings=settings, seal=seal, progress=progress, stop=stop
        )
    next_commands = [shlex.join(["kdcache", "inspect", store, "--rows", "5"])]
    print_summary("imported", summary, lines=_lines(summary), next_commands=next_commands, as_json=as_json)


def _lines(summary: "ImportSummary") -> dict[str, str]:
    before = f", {summary.present:,} of them before" if summary.present else ""
    return {
        "store": summary.store if summary.content_id is None else f"{summary.store}@{summary.content_id[:32]}",
        "from": f"{summary.file_rows:,} rows of {summary.files:,} files, {summary.layout}",
        "texts": f"{summary.texts:,} of {summary.sequence:,} tokens, {summary.labelled:,} of these have a label",
        "soft labels": f"top {summary.k:,} of {summary.classes:,} in {summary.blocks:,} blocks{before}",
        "size": f"{bytes_text(summary.bytes)}, {summary.bytes_a_row:.4g} bytes a token",
        "accuracy": "-"
        if summary.accuracy is None
        else f"the teacher's: {100 * summary.accuracy:.1f} % of next tokens",
        **({"normalised": f"{summary.normalised:,} answers"} if summary.normalised else {}),
        **({"clamped rows": f"{summary.clamped:,}"} if summary.clamped else {}),
    }
