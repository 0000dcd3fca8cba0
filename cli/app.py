"""The `kdcache` command has its subcommands here, and turns errors into messages and exit codes."""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from kdcache.cli.console import print_error
from kdcache.errors import KdcacheError

COMMANDS = {
    "extract": "Ask the teacher once: write its soft labels for views of a data set to a store.",
    "train": "Train a student on a store's views and soft labels; without a store, plainly.",
    "sweep": "Train many students from one file: a grid, random trials or a study, side by side on one stream.",
    "objectives": "List the losses that a student can be trained with: needs, exactness, settings.",
    "inspect": "Show what a store is, and some of its rows.",
    "verify": "Check a store: structure, checksums, and on request its pixels and its teacher.",
    "stats": "Statistics over a whole store: kept mass, entropy, accuracy, agreement of views, classes, bytes.",
    "calibrate": "Fit the temperature at which a held-out store has the least NLL; ECE before and after.",
    "seal": "List a store's digests under one content id.",
    "push": "Copy a sealed store to an object store or a folder, for others to read or pull.",
    "pull": "Copy a sealed store from an object store, a web server or a folder, each file held against its sha256.",
    "export": "Write a sealed store to one zip file, which is read as it is.",
    "cache": "Show what is kept here of far stores, or clear it.",
    "diff": "Compare two stores: identity, provenance, and how far their soft labels agree.",
    "merge": "Join blocks and segments of one identity, extracted apart, in one store.",
    "recode": "Write a store anew with fewer classes, coarser steps or another packing, without its teacher.",
    "card": "Write a README and Croissant metadata for a sealed store.",
    "doctor": "Look at the versions and the device, or at a folder in which stores are to lie.",
    "demo": "Teacher, store and two students on scikit-learn's digits.",
}


_UsageError: Any = typer.BadParameter.__bases__[0]  # click's class; newer versions of typer carry click inside


class _Lazy(TyperGroup):
    """A group of commands that imports a command's module at its first use, so that help answers at once."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"kdcache.cli.{cmd_name}")
        command_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        command_app.command(name=cmd_name, help=COMMANDS[cmd_name])(module.command)
        command = typer.main.get_command(command_app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=_Lazy,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Cached soft labels for knowledge distillation: a label never meets the wrong picture.",
)


@app.callback(invoke_without_command=True)
def _root(ctx: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        import importlib.metadata

        from kdcache.cli.console import print_line

        print_line(importlib.metadata.version("kdcache"))
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit 0 done, 1 a check failed, 2 the user can mend it, 75 stopped and resumable, 130 Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in words
    try:
        code = app(words, prog_name="kdcache", standalone_mode=False)
    except KdcacheError as error:
        if not error.told_elsewhere:
            print_error(str(error), as_json=as_json, exit_code=error.exit_code)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
    except OSError as error:  # 1 would say that a check failed
        print_error(f"{error}; check the path, its permissions and the space left", as_json=as_json, exit_code=2)
        raise SystemExit(2) from None
    except _UsageError as error:
        if as_json:
            print_error(error.format_message(), as_json=True, exit_code=error.exit_code)
        else:
            error.show()
        raise SystemExit(error.exit_code) from None
    except typer.Abort:
        raise SystemExit(130) from None
    raise SystemExit(code or 0)
