"""``calico-debug top`` in a real terminal of its own: keys go in, the screen is read, its size changes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyte
import pytest

from tests.agent.packets.conftest import need_observer
from tests.cli.worlds import run
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Model, Policy, Rule, Selector

if TYPE_CHECKING:
    from tests.lab.traffic import Flow

PROGRAM = Path(sys.executable).with_name("calico-debug")
SECONDS = 40.0
XTERM = {"TERM": "xterm", "LANG": "C.UTF-8"}
LEAVE = b"\x1b[?1049l"
"""Back from the alternate screen (rmcup of xterm)."""
POLICY = Policy(
    "NetworkPolicy", "only-tcp", namespace="red", selector=Selector("app", ("web",)), ingress=(Rule("Allow", "tcp"),)
)


class Terminal:
    """A terminal, and the command that runs in it."""

    def __init__(self, namespace: str, *options: str, columns: int = 100, lines: int = 24) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._end, own = pty.openpty()
        self._size(columns, lines)
        self.before = termios.tcgetattr(own)
        self._own = own
        command = ["ip", "netns", "exec", namespace, str(PROGRAM), "top", "--interval", "0.3", *options]
        self.process = subprocess.Popen(
            command,
            stdin=own,
            stdout=own,
            stderr=own,
            start_new_session=True,
            # COLUMNS and LINES would go before the terminal's own size
            env={**{name: os.environ[name] for name in os.environ.keys() - {"COLUMNS", "LINES"}}, **XTERM},
        )

    def press(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        self._size(columns, lines)
        self.screen.resize(lines, columns)
        os.kill(self.process.pid, signal.SIGWINCH)

    def until(self, wanted: Callable[[str], bool]) -> str:
        """Read what is written until the screen is as wanted."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            self._read(0.2)
            shown = "\n".join(self.screen.display)
            if wanted(shown):
                return shown
        raise AssertionError("the screen did not come to be as wanted:\n" + "\n".join(self.screen.display))

    def ended(self) -> int:
        code = self.process.wait(SECONDS)
        self._read(0.2)
        return code

    @property
    def restored(self) -> bool:
        return LEAVE in self.raw and termios.tcgetattr(self._own) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._end)
        os.close(self._own)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self, seconds: float) -> None:
        while select.select([self._end], [], [], seconds)[0]:
            data = os.read(self._end, 1 << 16)
            self.raw += data
            self._stream.feed(data)
            seconds = 0.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab() as built:
        built.program(Model(policies=(POLICY,)))
        yield built


@contextmanager
def terminal(lab: Lab, *options: str, columns: int = 100, lines: int = 24) -> Iterator[Terminal]:
    opened = Terminal(lab.namespace("node1"), *options, columns=columns, lines=lines)
    try:
        yield opened
    finally:
        opened.close()


def denied(lab: Lab) -> Flow:
    return lab.flow("red/cli1", "red/web1", "udp", 53)


def row(shown: str, word: str) -> str:
    return next((line for line in shown.splitlines() if word in line), "")


@pytest.mark.kernel
def test_rates_of_rules_and_keys(lab: Lab) -> None:
    with terminal(lab) as opened:
        opened.until(lambda shown: "only-tcp, rule #0 (Allow) ingress" in shown)
        for _ in range(5):
            assert lab.send(lab.flow("red/cli1", "red/web1", "tcp", 80)).verdict == "allowed"
        opened.until(lambda shown: row(shown, "only-tcp, rule #0 (Allow)").split()[1:2] == ["5"])
        opened.press("s")
        opened.until(lambda shown: "by total" in shown)
        opened.press("p")
        opened.until(lambda shown: "PAUSED" in shown)
        assert lab.send(lab.flow("red/cli1", "red/web1", "tcp", 80)).verdict == "allowed"
        assert row("\n".join(opened.screen.display), "only-tcp, rule #0 (Allow)").split()[1] == "5"
        opened.press("p")
        opened.until(lambda shown: row(shown, "only-tcp, rule #0 (Allow)").split()[1:2] == ["6"])
        opened.press("q")
        assert opened.ended() == 0
        assert opened.restored


@pytest.mark.kernel
def test_drops_and_findings(lab: Lab) -> None:
    with terminal(lab) as opened:
        opened.until(lambda shown: "findings: " in shown)
        opened.press("v")
        opened.until(lambda shown: "[drops]" in shown)
        assert lab.send(denied(lab)).verdict == "denied"
        shown = opened.until(lambda shown: "end-of-tier ingress" in shown and "dropped 0.0/s" not in shown)
        assert row(shown, "end-of-tier ingress").startswith("!")
        opened.press("v")
        opened.until(lambda shown: "[findings]" in shown and "SEVERITY" in shown)
        opened.press("q")
        assert opened.ended() == 0


@pytest.mark.kernel
def test_dropped_flows(lab: Lab) -> None:
    need_observer()
    with terminal(lab, "--drops") as opened:
        opened.until(lambda shown: "q quit" in shown)
        opened.press("vvv")
        opened.until(lambda shown: "[flows]" in shown)
        flow = denied(lab)
        assert lab.send(flow).verdict == "denied"
        shown = opened.until(lambda shown: f"{flow.destination}:53" in shown)
        assert row(shown, f"{flow.destination}:53").split()[0] == "1"
        opened.press("q")
        assert opened.ended() == 0
        assert opened.restored


@pytest.mark.kernel
def test_narrow_and_resized(lab: Lab) -> None:
    with terminal(lab, columns=32, lines=8) as opened:
        opened.until(lambda shown: "q p s v" in shown and "RATE/S" in shown)
        opened.resize(120, 40)
        opened.until(lambda shown: "calico-debug top" in shown and "q quit  p pause" in shown)
        opened.resize(20, 3)
        opened.until(lambda shown: "…" in shown)
        opened.press("q")
        assert opened.ended() == 0


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_terminal_is_put_back(lab: Lab, number: signal.Signals) -> None:
    with terminal(lab) as opened:
        opened.until(lambda shown: "q quit" in shown)
        os.kill(opened.process.pid, number)
        opened.ended()
        assert opened.restored


@pytest.mark.kernel
def test_once(lab: Lab) -> None:
    command = [str(PROGRAM), "top", "--once", "--interval", "0.3"]
    told = json.loads(namespaces.run(lab.namespace("node1"), [*command, "-o", "json"]))
    assert told["kind"] == "NodeView"
    assert any(one.get("policy") == "only-tcp" and one["perSecond"] == 0 for one in told["rules"])
    assert "DROPS" in namespaces.run(lab.namespace("node1"), command)


@pytest.mark.kernel
def test_through_an_agent(lab: Lab, tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    command = ["ip", "netns", "exec", lab.namespace("node1"), str(PROGRAM), "agent", "--socket", str(socket)]
    with subprocess.Popen([*command, "--metrics", "off"], stderr=subprocess.PIPE) as agent:
        try:
            assert agent.stderr is not None
            assert agent.stderr.readline()  # it says that it serves
            ran = subprocess.run(
                [PROGRAM, "top", "--once", "--agent", str(socket), "-o", "json"],
                capture_output=True,
                timeout=SECONDS,
                check=True,
            )
        finally:
            agent.terminate()
    told = json.loads(ran.stdout)
    assert any(one.get("policy") == "only-tcp" for one in told["rules"])
    assert all("perSecond" in one for one in told["rules"])


def test_what_makes_no_sense() -> None:
    for options, message in (
        (("-o", "json"), "give both"),
        ((), "use --once"),
        (("--drops", "--agent", "/run/agent.sock", "--once"), "leave out --agent"),
    ):
        ran = run("top", *options)
        assert ran.code == 2
        assert message in ran.err
