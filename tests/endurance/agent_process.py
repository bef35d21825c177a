"""An agent as a process of its own in a node's namespace, asked over its socket and looked at from outside."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from tests.lab import namespaces

SECONDS = 60.0
_PROGRAM = """
import sys
from calico_debug.agent import collector
from calico_debug.cli.main import main
collector.CACHED_SECONDS = float(sys.argv.pop(1))
sys.exit(main())
"""


class AgentProcess:
    """A context manager. ``cached`` is how many seconds a page of metrics holds; 0 makes every scrape read."""

    def __init__(self, namespace: str, folder: Path, *, node: str, cached: float = 0.0) -> None:
        self._namespace, self.path, self._log = namespace, folder / "agent.sock", folder / "agent.log"
        arguments = ["agent", "--socket", self.path, "--metrics", "off", "--metrics-pods", "--node", node]
        self._command = [sys.executable, "-c", _PROGRAM, str(cached), *arguments]
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log, namespaces.entered(self._namespace):
            self._running = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + SECONDS
        while not self._answers():
            if self._running.poll() is not None or time.monotonic() > end:
                self._running.kill()
                raise AssertionError(f"the agent did not start: {self.log()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._running is not None
        self._running.kill()
        self._running.wait(SECONDS)

    def ask(self, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and body of one request, on a connection of its own."""
        connection = http.client.HTTPConnection("agent", timeout=SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(SECONDS)
        try:
            connection.sock.connect(str(self.path))
            data = None if body is None else json.dumps(body).encode()
            connection.request("GET" if data is None else "POST", path, data)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def trace(self, question: object) -> tuple[int, Any]:
        """Status and document of a trace."""
        status, body = self.ask("/v1/trace", question)
        return status, json.loads(body)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def resident(self) -> int:
        """Bytes of memory that are its own, files that are mapped left out."""
        (kib,) = re.findall(r"^RssAnon:\s+(\d+) kB", self._proc("status").read_text(), re.MULTILINE)
        return int(kib) << 10

    def peak(self) -> int:
        """Bytes of the most memory that it has had, mapped files among it."""
        (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB", self._proc("status").read_text(), re.MULTILINE)
        return int(kib) << 10

    def descriptors(self) -> int:
        return len(list(self._proc("fd").iterdir()))

    def threads(self) -> int:
        return len(list(self._proc("task").iterdir()))

    def children(self) -> list[str]:
        """Processes that it has started and not waited for."""
        return [pid for task in self._proc("task").iterdir() for pid in (task / "children").read_text().split()]

    def cpu(self) -> float:
        """Seconds that it and the programs it ran have had of the CPU."""
        fields = self._proc("stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def terminate(self) -> tuple[int, float]:
        """Send SIGTERM; its exit status, and the seconds it took."""
        assert self._running is not None
        started = time.monotonic()
        self._running.send_signal(signal.SIGTERM)
        return self._running.wait(SECONDS), time.monotonic() - started

    def _proc(self, name: str) -> Path:
        assert self._running is not None
        return Path(f"/proc/{self._running.pid}/{name}")

    def _answers(self) -> bool:
        try:
            return self.ask("/healthz")[0] == http.client.OK
        except OSError:
            return False
