"""`kdcache merge` joins stores of one identity."""

import shlex
from typing import Annotated

import typer

from kdcache.base.units import bytes_text
from kdcache.cli.console import print_table, stopping
from kdcache.cli.flags import Json
from kdcache.cli.progress import progress_bar
from kdcache.cli.summary import print_summary
from kdcache.sharing.merge import Merged, merge_stores

EXAMPLES = ("kdcache merge part0.kd part1.kd whole.kd",)

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
    next_commands = [shlex.join(["kdcache", "inspect", out, "--rows", "5"])] if result.content_id else []
    print_summary("merged", result, lines=_lines(result), next_commands=next_commands, as_json=as_json)
    if result.missing and not as_json:
        rows = [[gap.segment, gap.missing, gap.blocks, gap.first] for gap in result.missing]
        print_table(["segment", "missing", "of", "first"], rows, title="not sealed: no input has these blocks")


def _lines(result: Merged) -> dict[str, str]:
    taken = [f"{count:,} from {name}" for name, count in result.taken.items()]
    present = [f"{result.present:,} there before"] if result.present else []
    return {
        "store": f"{result.out}, not sealed" if result.content_id is None else f"{result.out}@{result.content_id[:32]}",
        "blocks": f"{result.blocks:,}: {', '.join(taken + present)}",
        "copied": bytes_text(result.bytes),
    }
