"""`kdcache merge` joins stores of one identity."""

from typing import Annotated

import typer

from kdcache.cli.console import print_json, print_record, print_table, progress_bar, stopping
from kdcache.cli.flags import Json
from kdcache.sharing.merge import Merged, merge_stores

Inputs = Annotated[list[str], typer.Argument(help="two or more stores of one identity: folders, addresses, pins")]
Out = Annotated[str, typer.Argument(help="folder of the output: new, a store of that identity, or one of the inputs")]


def command(
    inputs: Inputs,
    out: Out,
    seal: Annotated[bool, typer.Option("--seal/--no-seal", help="Seal the output once it is whole.")] = True,
    as_json: Json = False,
) -> None:
    with progress_bar(quiet=as_json) as progress, stopping(as_json) as stop:
        result = merge_stores(inputs, out, seal=seal, progress=progress, stop=stop)
    if as_json:
        print_json(result.model_dump())
    else:
        _print(result)


def _print(result: Merged) -> None:
    record = result.model_dump(exclude={"missing"})
    print_record(
        {**record, "taken": [f"{count} from {name}" for name, count in result.taken.items()]},
        as_json=False,
        title="merged",
    )
    if result.missing:
        rows = [[gap.segment, gap.missing, gap.blocks, gap.first] for gap in result.missing]
        print_table(["segment", "missing", "of", "first"], rows, title="not sealed: no input has these blocks")
