"""Completion by bash, zsh and fish: typer's, with the shell's name allowed behind the flag."""

from typer.completion import get_completion_script, install  # type: ignore[attr-defined]  # since 0.15

from kdcache.cli.console import print_line

SHOW, INSTALL = "--show-completion", "--install-completion"
SHELLS = ("bash", "zsh", "fish")
PROGRAM, VARIABLE = "kdcache", "_KDCACHE_COMPLETE"


def completes(words: list[str]) -> bool:
    """True where a line asks for completion in a shell that it names, which is then shown or installed. Without a name
    typer looks which shell it is."""
    if len(words) != 2 or words[0] not in (SHOW, INSTALL) or words[1] not in SHELLS:
        return False
    flag, shell = words
    if flag == SHOW:
        print_line(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell))
    else:
        _, path = install(shell=shell, prog_name=PROGRAM, complete_var=VARIABLE)
        print_line(f"completion for {shell} is in {path}; it works in a new terminal")
    return True
