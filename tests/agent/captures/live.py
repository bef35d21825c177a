"""An agent as a process on a node of the lab, with a cluster's objects, and the command line that speaks to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.lab import Lab

PROGRAM = Path(sys.executable).with_name("calico-debug")
SECONDS = 60


@dataclass
class Running:
    """An agent."""

    lab: Lab
    folder: Path
    process: subprocess.Popen[str]

    @property
    def socket(self) -> str:
        return str(self.folder / "agent.sock")

    @property
    def captures(self) -> Path:
        return self.folder / "captures"

    def text(self, *arguments: str, code: int = 0) -> str:
        """What ``calico-debug capture`` prints."""
        done = subprocess.run(
            [PROGRAM, "capture", arguments[0], "--agent", self.socket, *arguments[1:]],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout or done.stderr

    def document(self, *arguments: str) -> Any:
        """The same as JSON."""
        return json.loads(self.text(*arguments, "-o", "json"))

    def ends(self, source: str, target: str, port: int, protocol: str) -> tuple[str, ...]:
        there = self.lab.topology.address(target, 4)
        return ("--from", self.lab.topology.address(source, 4), "--to", f"{there}:{port}", "-p", protocol)


@contextmanager
def agent(lab: Lab, folder: Path, **variables: str) -> Iterator[Running]:
    """An agent of node1 that listens on a socket in ``folder``; stopped at the end, if it still runs."""
    arguments = [
        *("--socket", str(folder / "agent.sock"), "--metrics", "off", "--node", "node1"),
        *("--captures", str(folder / "captures")),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    process = subprocess.Popen(
        ["ip", "netns", "exec", lab.namespace("node1"), PROGRAM, "agent", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", **variables},
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert "listening on" in said, said
        yield Running(lab, folder, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            _, said = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert "Traceback" not in said, said
