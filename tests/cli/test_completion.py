"""Completion by the shells themselves, and by kubectl's protocol."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calico_debug.cli.commands import commands
from calico_debug.cli.completion import NO_FILES, SHELLS, answer_kubectl
from tests.cli.worlds import run
from tests.recordings import DATA

if TYPE_CHECKING:
    from collections.abc import Sequence

BUNDLE = str(DATA / "v3.32.1-nft.tar.xz")
PROGRAMS = Path(sys.executable).parent
SECONDS = 60.0

WORDS = {
    "a command": (["calico-debug", "stal"], "stale"),
    "an option": (["calico-debug", "trace", "--kubec"], "--kubeconfig"),
    "a choice": (["calico-debug", "trace", "-o", "wi"], "wide"),
    "a pod": (["calico-debug", "trace", "--bundle", BUNDLE, "--from", "client/"], "client/client-5f8b"),
    "a service": (["calico-debug", "trace", "--bundle", BUNDLE, "--to", "svc/management-ui/"], "svc/management-ui/"),
    "a node": (["calico-debug", "trace", "--bundle", BUNDLE, "--via", "node1"], "node1"),
}


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb"}


def need(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


@pytest.mark.parametrize("case", WORDS)
def test_bash(case: str) -> None:
    words, wanted = WORDS[case]
    script = """
source <(calico-debug completion bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_calico_debug_completion calico-debug
printf '%s\\n' "${COMPREPLY[@]}"
"""
    command = [need("bash"), "--norc", "-c", script, "bash", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=SECONDS)
    assert any(line.startswith(wanted) for line in done.stdout.splitlines()), done
    assert done.stderr == ""


@pytest.mark.parametrize("case", WORDS)
def test_fish(case: str) -> None:
    words, wanted = WORDS[case]
    script = f"calico-debug completion fish | source; complete -C '{' '.join(words)}'"
    command = [need("fish"), "--no-config", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=SECONDS)
    assert any(line.startswith(wanted) for line in done.stdout.splitlines()), done


def test_zsh(tmp_path: Path) -> None:
    """Somebody types the beginning of a command and presses the tabulator."""
    script = run("completion", "zsh").out
    assert script.startswith("#compdef calico-debug")
    (tmp_path / "_calico-debug").write_text(script)
    begin = f"fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -D; echo rea''dy\n"
    written = typed(need("zsh"), begin, "ready", "calico-debug stal\t", "calico-debug stale ")
    assert "calico-debug stale " in written


def typed(shell: str, begin: str, ready: str, keys: str, wanted: str) -> str:
    """What an interactive shell shows after ``keys``; stops as soon as ``wanted`` is there."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(shell, [shell, "-f", "-i"], environment())  # noqa: S606
    try:
        os.write(terminal, begin.encode())
        shown = read_until(terminal, ready)
        os.write(terminal, keys.encode())
        return shown + read_until(terminal, wanted)
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def read_until(terminal: int, wanted: str) -> str:
    shown, ends = "", time.monotonic() + SECONDS
    while wanted not in shown and time.monotonic() < ends:
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
    return shown


def test_kubectl() -> None:
    def asked(*words: str) -> Sequence[str]:
        return answer_kubectl(commands, words).splitlines()

    *found, directive = asked("tr")
    assert [line.split("\t")[0] for line in found] == ["trace"]
    assert directive == NO_FILES
    assert asked("trace", "--bundle", BUNDLE, "--from", "client/") == ["client/client-5f8b", NO_FILES]
    assert asked("no-such-command", "x")[-1] == NO_FILES
    assert len(asked()) > len(commands.commands) // 2


def test_what_relays_is_not_offered() -> None:
    assert "agent-relay" not in answer_kubectl(commands, [""])


@pytest.mark.parametrize("bundle", ["/nonexistent", __file__])
def test_what_is_no_bundle_offers_nothing(bundle: str) -> None:
    assert answer_kubectl(commands, ["trace", "--bundle", bundle, "--from", ""]).splitlines() == [NO_FILES]
    assert answer_kubectl(commands, ["trace", "--from", ""]).splitlines() == [NO_FILES]


def test_the_scripts_are_for_this_program() -> None:
    for shell in SHELLS:
        ran = run("completion", shell)
        assert ran.code == 0
        assert "_CALICO_DEBUG_COMPLETE" in ran.out
    assert run("completion", "tcsh").code == 2
