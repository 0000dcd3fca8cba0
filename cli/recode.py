"""`kdcache recode` writes a store anew, smaller, without its teacher."""

from typing import Annotated

import typer

from kdcache.base.engine_settings import EngineSettings
from kdcache.cli.console import print_json, print_record, progress_bar, stopping
from kdcache.cli.flags import Json, Views, with_settings_flags
from kdcache.whole_store.engines import open_engine, seen_by
from kdcache.whole_store.recode import RecodeSummary, recode_store
from kdcache.whole_store.recode_plan import Narrowing

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
    if as_json:
        print_json(result.model_dump())
    else:
        _print(result)


def _print(result: RecodeSummary) -> None:
    record = result.model_dump()
    rows = max(result.rows, 1)
    record["bytes_a_row"] = f"{result.bytes_before / rows:.2f} before, {result.bytes / rows:.2f} now"
    print_record(record, as_json=False, title="recoded")
