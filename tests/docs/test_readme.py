"""The examples of pages are run with the installed program, and print what is shown."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("calico-debug")
CONSOLE = re.compile(r"^```console\n\$ (?P<command>[^\n]+)\n(?P<shown>.*?)^```$", re.MULTILINE | re.DOTALL)


def _run(command: str) -> str:
    program, *arguments = shlex.split(command)
    assert program == "calico-debug"
    done = subprocess.run([PROGRAM, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    # What compares says by its exit code that something differs.
    compares = {"compare", "diff"} & set(arguments)
    assert done.returncode in ((0, 1, 4) if compares else (0,)), done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/architecture.md",
        "docs/cli.md",
        "docs/examples/README.md",
        "docs/module5.md",
        "docs/module7.md",
        "docs/switch.md",
    ],
)
def test_examples_print_what_is_shown(page: str, update_goldens: bool) -> None:
    path = ROOT / page
    text = path.read_text()
    assert CONSOLE.search(text)
    true = CONSOLE.sub(lambda found: f"```console\n$ {found['command']}\n{_run(found['command'])}```", text)
    if update_goldens:
        path.write_text(true)
    assert path.read_text() == true
