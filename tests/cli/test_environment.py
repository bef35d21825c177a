"""The environment of a real process on a real (pseudo) terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

SCRIPT = (
    "from calico_debug.cli.environment import process_environment as p; w = p();"
    "print(w.terminal, w.columns, w.colour('auto'), w.colour('never'), w.platform)"
)


def on_terminal(columns: int, **variables: str) -> str:
    primary, secondary = pty.openpty()
    try:
        fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {"PATH": os.environ["PATH"], "TERM": "xterm", **variables}
        subprocess.run([sys.executable, "-c", SCRIPT], stdout=secondary, env=environment, check=True)
        return os.read(primary, 1000).decode().strip()
    finally:
        os.close(primary)
        os.close(secondary)


@pytest.mark.parametrize(
    ("columns", "variables", "seen"),
    [
        (97, {}, "True 97 True False"),
        (97, {"COLUMNS": "60"}, "True 60 True False"),
        (97, {"COLUMNS": "many"}, "True 97 True False"),
        (0, {}, "True None True False"),
        (97, {"NO_COLOR": "1"}, "True 97 False False"),
        (97, {"TERM": "dumb"}, "True 97 False False"),
    ],
)
def test_on_a_terminal(columns: int, variables: dict[str, str], seen: str) -> None:
    assert on_terminal(columns, **variables) == f"{seen} {sys.platform}"


def test_in_a_pipe() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[:3] == ["False", "None", "False"]
