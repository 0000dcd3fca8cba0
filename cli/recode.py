"""`kdcache recode` writes a store anew, smaller, without its teacher."""

import shlex
from typing import Annotated

import typer

from kdcache.base.engine_settings import EngineSettings
from kdcache.base.units import bytes_text
from kdcache.cli.console import stopping
from kdcache.cli.flags import Json, Verbose, Views, with_settings_flags
from kdcache.cli.progress import progress_bar
from kdcache.cli.summary import print_summary
from kdcache.whole_store.engines import open_engine, seen_by
from kdcache.whole_store.recode import RecodeSummary, recode_store
from kdcache.whole_store.recode_plan import Narrowing

EXAMPLES = (
    "kdcache recode digits.kd small.kd --top-k 3",
    "kdcache recode features.kd labels.kd --drop features,taps",
)

Store = Annotated[str, typer.Argument(help="the sealed store: folder, zip file or address, STORE@ID for a pinned seal")]
Out = Annotated[str, typer.Argument(help="folder of the output: new, or one to go on with")]


@with_settings_flags
def command(
    store: Store,
    out: Out,
    *,
    narrowing: Narrowing,
    views: Views = None,
    seal: Annotated[bool, typer.Option("--seal/--no-seal", help="Seal the output once it is whole.")] = True,
    engine: EngineSettings,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    with progress_bar(quiet=as_json) as progress, stopping(as_json) as stop, open_engine(engine) as block_engine:
        result = recode_store(
            seen_by(engine, store),
            seen_by(engine, out),
            narrowing,
            views=views,
            seal=seal,
            engine=block_engine,
            progress=progress,
            stop=stop,
        )
    print_summary(
        "recoded",
        result,
        lines=_lines(result),
        next_commands=[shlex.join(["kdcache", "diff", store, out])],
        as_json=as_json,
        verbose=verbose,
    )


def _lines(result: RecodeSummary) -> dict[str, str]:
    rows, present = max(result.rows, 1), f", {result.present:,} of them before" if result.present else ""
    before, now = (
        f"{bytes_text(size)} ({size / rows:.4g} bytes a row)" for size in (result.bytes_before, result.bytes)
    )
    return {
        "store": result.out if result.content_id is None else f"{result.out}@{result.content_id[:32]}",
        "from": f"{result.source}@{result.source_content_id[:32]}",
        "soft labels": f"{result.encoding}; before: {result.encoding_before}",
        "rows": f"{result.rows:,} in {result.blocks:,} blocks{present}",
        "size": f"{now}; before: {before}",
        **({"clamped rows": f"{result.clamped:,}"} if result.clamped else {}),
    }
