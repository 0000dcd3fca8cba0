"""`kdcache recode` writes a store anew, smaller, without its teacher."""

from typing import Annotated

import typer

from kdcache.base.engine_settings import EngineSettings
from kdcache.base.progress import stop_on_signals
from kdcache.base.records import validated
from kdcache.cli.console import print_json, print_record, progress_bar
from kdcache.cli.flags import Json, Views, with_engine_flags
from kdcache.whole_store.engines import open_engine, seen_by
from kdcache.whole_store.recode import RecodeSummary, recode_store
from kdcache.whole_store.recode_plan import Narrowing

Store = Annotated[str, typer.Argument(help="the sealed store: folder, zip file or address, STORE@ID for a pinned seal")]
Out = Annotated[str, typer.Argument(help="folder of the output: new, or one to go on with")]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, help="Classes kept of each row, up to the store's.")]
Quantisation = Annotated[
    str | None, typer.Option("--quantisation", metavar="default|high", help="Steps of the gaps; not finer ones.")
]
Packing = Annotated[
    str | None, typer.Option("--packing", metavar="residuals|plain", help="How gaps and tail are laid out.")
]
Drop = Annotated[list[str] | None, typer.Option("--drop", metavar="features,head", help="What to leave out.")]


@with_engine_flags
def command(
    store: Store,
    out: Out,
    *,
    top_k: TopK = None,
    quantisation: Quantisation = None,
    packing: Packing = None,
    drop: Drop = None,
    views: Views = None,
    seal: Annotated[bool, typer.Option("--seal/--no-seal", help="Seal the output once it is whole.")] = True,
    engine: EngineSettings,
    as_json: Json = False,
) -> None:
    names = tuple(name.strip() for text in drop or () for name in text.split(","))
    values = {"top_k": top_k, "quantisation": quantisation, "packing": packing, "drop": names}
    narrowing = validated(Narrowing, "recode", **values)
    with progress_bar(quiet=as_json) as progress, stop_on_signals() as stop, open_engine(engine) as block_engine:
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
