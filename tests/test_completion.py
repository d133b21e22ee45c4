"""`r2reg completion`: the shells are asked what they would complete; one that is not installed is skipped."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = """
set -e; source <(r2reg completion bash)
COMP_WORDS=(r2reg reg); COMP_CWORD=1; COMPREPLY=(); _r2reg_completion r2reg; echo "${COMPREPLY[@]}"
COMP_WORDS=(r2reg register --simil); COMP_CWORD=2; COMPREPLY=(); _r2reg_completion r2reg; echo "${COMPREPLY[@]}"
"""
FISH = """
r2reg completion fish | source
for begun in "r2reg reg" "r2reg register --simil"; complete -C $begun | string split -f 1 \\t; end
"""
# zsh completes in its line editor alone, which needs a terminal; it waits until the whole word stands there.
ZSH = """
zmodload zsh/zpty; zpty shell zsh -f -i
zpty -w shell 'autoload -Uz compinit; compinit -u -D; source <(r2reg completion zsh); echo rea""dy'
zpty -r shell seen '*ready*'
zpty -w -n shell $'r2reg reg\\t'; zpty -r shell seen '*register*'
zpty -w -n shell $'--simil\\t'; zpty -r shell seen '*--similarity*'
print register --similarity
"""
SHELLS = {"bash": ["bash", "-c", BASH], "fish": ["fish", "--no-config", "-c", FISH], "zsh": ["zsh", "-f", "-c", ZSH]}


def answer(command: list[str], home: Path) -> str:
    """What a command prints, with this environment's r2reg found first and nobody's own settings."""
    variables = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home)}
    done = subprocess.run(
        command,
        env=variables,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_and_options_are_completed(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    assert answer(SHELLS[shell], tmp_path).split() == ["register", "--similarity"]
