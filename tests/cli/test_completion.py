"""Completion: real shells complete a command and a flag."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ASK = {
    "bash": 'source <(kdcache --show-completion bash); COMP_WORDS=({words} "{word}"); COMP_CWORD={number}; '
    'COMP_LINE="{words} {word}"; COMP_POINT=${{#COMP_LINE}}; _kdcache_completion kdcache; '
    'printf "%s\\n" "${{COMPREPLY[@]}}"',
    "zsh": "autoload -Uz compinit; compinit -D; source <(kdcache --show-completion zsh); "
    '_arguments() {{ print -r -- "$@" }}; words=({words} {word}); CURRENT={count}; _kdcache_completion',
    "fish": 'kdcache --show-completion fish | source; complete -C "{words} {word}"',
}
CASES = {"ext": ("kdcache", "extract"), "--val-tr": ("kdcache train", "--val-transform-set")}


def shell(name: str, script: str, home: Path) -> str:
    """The output of a shell that has kdcache on its PATH."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    program = home / "bin/kdcache"
    if not program.exists():
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m kdcache "$@"\n')
        program.chmod(0o755)
    environment = {**os.environ, "HOME": str(home), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run([name, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("name", list(ASK))
@pytest.mark.parametrize("word", list(CASES))
def test_a_shell_completes_commands_and_flags(tmp_path: Path, name: str, word: str) -> None:
    words, expected = CASES[word]
    count = len(words.split())
    printed = shell(name, ASK[name].format(words=words, word=word, number=count, count=count + 1), tmp_path)
    assert expected in printed
    assert "sweep" not in printed
    assert "--lr" not in printed


def test_values_of_a_choice_complete(tmp_path: Path) -> None:
    script = ASK["bash"].format(words="kdcache train --schedule", word="", number=3, count=4)
    assert shell("bash", script, tmp_path).split() == ["cosine", "step", "constant"]


@pytest.mark.parametrize(
    ("name", "file"), [("bash", ".bash_completions/kdcache.sh"), ("zsh", ".zfunc/_kdcache"),
                       ("fish", ".config/fish/completions/kdcache.fish")],
)  # fmt: skip
def test_completion_is_installed_for_a_shell_that_is_named(tmp_path: Path, name: str, file: str) -> None:
    said = shell("bash", f"kdcache --install-completion {name}", tmp_path)
    assert str(tmp_path / file) in said
    assert (tmp_path / file).read_text().strip() == shell("bash", f"kdcache --show-completion {name}", tmp_path).strip()
