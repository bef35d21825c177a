"""An answer behind lines that say, about each second, what is done for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from calico_debug.activity import heard_by
from calico_debug.agent.application import failed
from calico_debug.agent.guard import OutOfTime, RequestEnded
from calico_debug.explain.packet_document import json_line
from calico_debug.model.explanation import API_VERSION

if TYPE_CHECKING:
    from calico_debug.agent.routing import Request

KIND = "Progress"
SECONDS = 1.0
"""Between lines."""
PATIENCE = 30.0
"""Seconds that work may go on for which nobody waits any more: it ends where evidence is read next."""


def told(request: Request, work: Callable[[], Mapping[str, Any]], path: str) -> Iterator[bytes]:
    """Lines of JSON: while ``work`` goes on those of `KIND`, then what it gave, or an Error.

    Raises what ``work`` raises while there was no line yet, so that the answer has its status.
    """
    task = _Task(work)
    request.closing.callback(task.thread.join, PATIENCE)
    begun, lines = monotonic(), 0
    task.thread.start()
    while True:
        task.thread.join(SECONDS)
        if not task.thread.is_alive():
            break
        try:
            request.check()
        except OutOfTime as error:
            task.error = error
            break
        lines += 1
        seconds = round(monotonic() - begun, 1)
        line = {"apiVersion": API_VERSION, "kind": KIND, "seconds": seconds, "doing": task.doing}
        yield json_line(line).encode()
    if task.error is None:
        assert task.answer is not None
        yield json_line(dict(task.answer)).encode()
    elif lines == 0 or isinstance(task.error, RequestEnded):
        raise task.error
    else:
        yield b"".join(failed(task.error, path).body) + b"\n"


class _Task:
    """Work in a thread of its own, which hears what is said there."""

    def __init__(self, work: Callable[[], Mapping[str, Any]]) -> None:
        self._work = work
        self.doing = ""
        self.answer: Mapping[str, Any] | None = None
        self.error: Exception | None = None
        self.thread = Thread(target=self._run, name="progress", daemon=True)

    def _run(self) -> None:
        try:
            with heard_by(self._hear):
                self.answer = self._work()
        except Exception as error:  # noqa: BLE001 - it is raised again, or told, where the request is answered
            self.error = error

    def _hear(self, what: str) -> None:
        self.doing = what
