"""What metrics need of the cluster, read beside the scrapes: a server that is slow or gone must not hold them up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from calico_debug.errors import CalicoDebugError
from calico_debug.policy.identity import PolicyIndex, policy_index
from calico_debug.state.cluster import load_cluster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.routing import Address

log = logging.getLogger("calico_debug.agent")

FRESH_SECONDS = 300.0
"""How long names hold: a list of every policy is asked for by the agent of every node."""
FIRST_SECONDS = 5.0
"""How long the first scrape waits for names; without them it goes on, as those of a node without a cluster do."""
SIGN = "namespaces.json"
"""The list that tells whether the cluster can be read at all: there is no cluster without namespaces."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the cluster: its policies, and when asked for, pods by address. ``problem`` is "" or why not."""

    index: PolicyIndex = field(default_factory=lambda: policy_index(()))
    pods: Mapping[Address, tuple[str, str]] = field(default_factory=dict)
    problem: str = ""


class Names:
    """Reads the cluster in a thread of its own, whenever what is known is old and asked for."""

    def __init__(self, open_source: Callable[[], EvidenceSource], *, pods: bool) -> None:
        """``open_source`` gives the evidence to read the cluster's objects from."""
        self._open = open_source
        self._pods = pods
        self._lock = Lock()
        self._first = Event()
        self._known = Known()
        self._asked_at = float("-inf")
        self._running = False

    def known(self) -> Known:
        """What is known now. The same object until something new is."""
        with self._lock:
            stale = time.monotonic() - self._asked_at > FRESH_SECONDS
            if stale and not self._running:
                self._running = True
                self._asked_at = time.monotonic()
                Thread(target=self._read, daemon=True, name="names").start()
        self._first.wait(FIRST_SECONDS)
        self._first.set()
        with self._lock:
            return self._known

    def _read(self) -> None:
        try:
            found = read_names(self._open(), pods=self._pods)
        except CalicoDebugError as error:
            found = Known(problem=str(error))
        except Exception as error:
            log.exception("the cluster's objects cannot be read")
            found = Known(problem=f"unexpected {type(error).__name__}")
        with self._lock:
            # What was known stays rather than nothing: names change seldom, servers are away often.
            self._known = found if not found.problem else Known(self._known.index, self._known.pods, found.problem)
            self._running = False
        self._first.set()


def read_names(source: EvidenceSource, *, pods: bool) -> Known:
    """The names of a source; without any cluster nothing, and no problem."""
    if not source.cluster_files():
        return Known()
    cluster = load_cluster(source)
    if not cluster.namespaces and (problem := cluster.problem(SIGN)):
        return Known(problem=problem)
    addresses: dict[Address, tuple[str, str]] = {}
    for pod in cluster.pods if pods else ():
        for address in pod.addresses:
            if cluster.pod_by_address(address) is pod:
                addresses[address] = (pod.namespace, pod.name)
    return Known(policy_index(cluster.policies()), addresses)
