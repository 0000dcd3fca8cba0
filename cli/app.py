"""The `kdcache` command has its subcommands here, and turns errors into messages and exit codes."""

import importlib
import inspect
import keyword
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kdcache.base.specs import at_home
from kdcache.base.user_code import exception_text, place_of, traceback_text, user_error
from kdcache.cli.completion import completes
from kdcache.cli.console import ClosedOutputError, print_error, print_traceback, results_apart, show_all_signs
from kdcache.cli.help_pages import CONTEXT, OUTPUT, HelpCommand
from kdcache.errors import InvalidInputError, KdcacheError, SampleError, UserCodeError

PIPE_CLOSED = 141  # 128 and the number of SIGPIPE, as a program that it ended: 1 would say that a check failed

COMMANDS = {
    "extract": "Ask the teacher once: write its soft labels for views of a data set to a store.",
    "train": "Train a student on a store's views and soft labels; without a store, plainly.",
    "sweep": "Train many students from one file: a grid, random trials or a study, side by side on one stream.",
    "compare": "Hold runs and stores against a teacher's stored answers on held-out rows: accuracy, fidelity, more.",
    "study": "Ask a published system's question again from stores: arms, paired intervals, a verdict for each claim.",
    "taps": "List the layers of a network whose outputs a store can keep: shapes, bytes a row, stages.",
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
    "import": "Make a store of top-k log-probabilities that DistillKit or vLLM captured.",
    "card": "Write a README and Croissant metadata for a sealed store.",
    "doctor": "Look at the versions and the device, or at a folder in which stores are to lie.",
    "demo": "Teacher, store and two students on scikit-learn's digits, or on a text of yours.",
}


Traceback = Annotated[
    bool, typer.Option("--traceback", help="Print the whole traceback of an error too.", rich_help_panel=OUTPUT)
]

_UsageError: Any = typer.BadParameter.__bases__[0]  # click's class; newer versions of typer carry click inside


def module_of(command: str) -> str:
    """The module of a command; one that is a word of Python has an underscore behind it."""
    return f"kdcache.cli.{command}{'_' if keyword.iskeyword(command) else ''}"


class _Lazy(TyperGroup):
    """A group of commands that imports a command's module at its first use, so that help answers at once."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(module_of(cmd_name))
        command_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        command_app.command(
            name=cmd_name,
            cls=HelpCommand,
            context_settings=CONTEXT,
            help=COMMANDS[cmd_name],
            epilog="\n".join(module.EXAMPLES),
        )(_guarded(module.command))
        command = typer.main.get_command(command_app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=_Lazy,
    context_settings=CONTEXT,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Cached soft labels for knowledge distillation: a label never meets the wrong picture.",
)


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version."),
    traceback: Traceback = False,
) -> None:
    if version:
        import importlib.metadata

        from kdcache.cli.console import print_line

        print_line(importlib.metadata.version("kdcache"))
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit 0 done, 1 a check failed, 2 the user can mend it, 75 stopped and resumable, 130 Ctrl-C."""
    words = at_home(sys.argv[1:] if arguments is None else arguments)
    as_json, with_traceback = "--json" in words, "--traceback" in words
    show_all_signs()
    if completes(words):
        raise SystemExit(0)
    try:
        code = app(words, prog_name="kdcache", standalone_mode=False)
    except typer.Abort:
        code = 130
    except _UsageError as error:
        code = error.exit_code
        if as_json:
            print_error(error.format_message(), as_json=True, exit_code=error.exit_code)
        else:
            error.show()
    except ClosedOutputError:
        code = PIPE_CLOSED
    except _RaisedInCommand as carrier:
        code = _report(carrier.error, as_json=as_json, with_traceback=with_traceback)
    except Exception as error:  # noqa: BLE001  what is not reported is raised again
        code = _report(error, as_json=as_json, with_traceback=with_traceback)
    raise SystemExit(code or 0)


class _RaisedInCommand(Exception):  # noqa: N818
    """Carries what a command raised past typer, which has answers of its own to OSError, EOFError and SystemExit."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command with the flag --traceback, whose code prints to stderr, and whose exceptions reach `main` as they
    are."""

    def run(**values: Any) -> Any:
        del values["traceback"]  # `main` looks for it
        with results_apart():
            try:
                return function(**values)
            except (OSError, EOFError, SystemExit) as error:
                raise _RaisedInCommand(error) from None

    flag = inspect.Parameter("traceback", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Traceback)
    parameters = [
        *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in inspect.signature(function).parameters.values()),
        flag,
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _report(error: BaseException, *, as_json: bool, with_traceback: bool) -> int:
    """Print an error and return its exit code. Raises the error again where it is a fault of kdcache."""
    failure = error if isinstance(error, KdcacheError) else user_error(error)
    if failure is None and isinstance(error, SystemExit):  # of a library: its code is not the command's
        failure = InvalidInputError(exception_text(error))
    if failure is None and isinstance(error, OSError):  # 1 would say that a check failed
        failure = InvalidInputError(f"{error}; check the path, its permissions and the space left")
    if failure is None:
        raise error
    if failure.told_elsewhere:
        return failure.exit_code
    if with_traceback:
        print_traceback(failure.details or traceback_text(error))
    print_error(_with_place(failure), as_json=as_json, exit_code=failure.exit_code)
    return failure.exit_code


def _with_place(failure: KdcacheError) -> str:
    """The text of an error, with the line of the user's code where an exception of that is behind it."""
    text, cause = str(failure), failure.__cause__
    place = None if isinstance(failure, SampleError | UserCodeError) or cause is None else place_of(cause)
    return text if place is None or str(place) in text else f"{text}\n  {place}"
