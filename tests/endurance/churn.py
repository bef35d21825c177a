"""Rules that change as Felix changes them: chains replaced and pods added and removed, each in one transaction."""

from __future__ import annotations

import re
from threading import Event, Thread
from typing import Self

from tests.lab import namespaces
from tests.lab.felix_shape import felix_text
from tests.lab.lab import Lab
from tests.lab.model import Model

TABLE = "ip calico"
MAPS = ("filter-cali-from-wl-dispatch", "filter-cali-to-wl-dispatch")


def chain_of(lab: Lab, model: Model, node: str, name: str) -> str:
    """A transaction that puts a model's rules into a chain that is there."""
    text = felix_text(lab.topology, model, lab.topology.node(node))
    found = re.search(rf"^  chain {re.escape(name)} \{{\n.*?^  \}}$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return f"flush chain {TABLE} {name}\ntable {TABLE} {{\n{found[0]}\n}}\n"


def pod_added(number: int) -> str:
    """A pod's chains and its places in the dispatch maps."""
    device = interface(number)
    lines = []
    for way in ("fw", "tw"):
        chain = f"filter-cali-{way}-{device}"
        lines.append(f"add chain {TABLE} {chain}")
        lines.append(f'add rule {TABLE} {chain} ct state established accept comment "cali:churn{way}00000000"')
        lines.append(f'add rule {TABLE} {chain} counter drop comment "cali:churn{way}00000001; End of tier default"')
    lines += [f'add element {TABLE} {MAPS[0]} {{ "{device}" : goto filter-cali-fw-{device} }}']
    lines += [f'add element {TABLE} {MAPS[1]} {{ "{device}" : goto filter-cali-tw-{device} }}']
    return "\n".join(lines) + "\n"


def pod_removed(number: int) -> str:
    """What `pod_added` added, away."""
    device = interface(number)
    lines = [f'delete element {TABLE} {name} {{ "{device}" }}' for name in MAPS]
    for way in ("fw", "tw"):
        lines += [f"flush chain {TABLE} filter-cali-{way}-{device}", f"delete chain {TABLE} filter-cali-{way}-{device}"]
    return "\n".join(lines) + "\n"


def interface(number: int) -> str:
    """The host's side of such a pod's link."""
    return f"cali{number:011x}"


class Churn:
    """A context manager: a thread that changes a node's rules every ``pause`` seconds, until the end."""

    def __init__(self, namespace: str, replacements: list[str], pause: float) -> None:
        """``replacements`` are transactions, in turn; with each a pod comes and another goes."""
        self._namespace, self._replacements, self._pause = namespace, replacements, pause
        self._end = Event()
        self._thread = Thread(target=self._run)
        self.rounds = 0
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._end.wait(self._pause):
                self._round()
        except BaseException as failure:
            self.failure = failure
            raise
        finally:
            if self.rounds:
                namespaces.nft(self._namespace, pod_removed(self.rounds - 1))

    def _round(self) -> None:
        text = self._replacements[self.rounds % len(self._replacements)] + pod_added(self.rounds)
        if self.rounds:
            text += pod_removed(self.rounds - 1)
        namespaces.nft(self._namespace, text)
        self.rounds += 1
