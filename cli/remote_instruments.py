"""The second and third witness on another node, through its agent (docs/agent.md)."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from calico_debug.errors import CalicoDebugError, EvidenceError
from calico_debug.evidence.plain import from_plain, to_plain
from calico_debug.evidence.wire import OBSERVATION_SECONDS
from calico_debug.model.explanation import Witness
from calico_debug.model.observation import Observation, ProbeReport

if TYPE_CHECKING:
    from calico_debug.agent.instruments import Observing
    from calico_debug.cli.agent_source import AgentSource
    from calico_debug.model.observation import FlowTuple
    from calico_debug.model.packet_event import Ends
    from calico_debug.state.node import NodeState

LONGEST_LINE = 64 << 20
"""Bytes of what was seen: 200 packets of some 50 events."""
MOST_LINES = 1000


class RemoteInstruments:
    """Those of an agent; implements `Instruments`."""

    def __init__(self, node: str, connect: Callable[[], AgentSource]) -> None:
        """``connect`` gives the node's agent, on a connection of its own."""
        self._node = node
        self._connect = connect

    def trace_rules(self, flows: Sequence[FlowTuple], seconds: float) -> Observing:
        """See `Instruments`."""
        return RemoteObservation(self._node, self._connect, "rules", flows, seconds)

    def watch_packets(self, state: NodeState, flows: Sequence[Ends], seconds: float) -> Observing:  # noqa: ARG002
        """See `Instruments`."""
        return RemoteObservation(self._node, self._connect, "packets", flows, seconds)

    def probe(self, flow: FlowTuple, interface: str, words: str) -> ProbeReport:
        """See `Instruments`."""
        body = {"node": self._node, "flow": to_plain(flow), "interface": interface}
        try:
            return from_plain(ProbeReport, self._connect().json("/v1/probes", body))
        except CalicoDebugError as error:
            return replace(ProbeReport(0, words, flow), error=str(error))


class RemoteObservation:
    """An observation on another node, from the moment that its agent says it has begun; implements `Observing`."""

    def __init__(
        self,
        node: str,
        connect: Callable[[], AgentSource],
        kind: str,
        flows: Sequence[FlowTuple] | Sequence[Ends],
        seconds: float,
    ) -> None:
        """Begin. Raises `EvidenceError`."""
        self._node = node
        self._agent = connect()
        self._other = connect()
        milliseconds = max(1, round(min(seconds, OBSERVATION_SECONDS) * 1000))
        body = {"node": node, "kind": kind, "flows": to_plain(tuple(flows)), "milliseconds": milliseconds}
        self._stream = self._agent.opened("/v1/observations", body)
        number = self._line().get("id")
        if not isinstance(number, str) or not number.isalnum():
            raise self._broken("its beginning is not understood")
        self._number = number

    def finish(self, seconds: float) -> Observation | Witness:
        """See `Observing`."""
        time.sleep(seconds)
        # An observation that has ended by itself cannot be ended: what it saw is told all the same.
        with suppress(EvidenceError):
            self._other.json(f"/v1/observations/{self._number}/finish", {})
        for _ in range(MOST_LINES):
            line = self._line()
            if "observation" in line:
                return from_plain(Observation, line["observation"])
            if "witness" in line:
                return from_plain(Witness, line["witness"])
            if "error" in line:
                raise EvidenceError(f"{self._node}: {str(line['error'])[:500]}")
        raise self._broken("it does not end")

    def close(self) -> None:
        """See `Observing`: the agent ends what its client left."""
        self._stream.close()
        self._agent.close()
        self._other.close()

    def _line(self) -> Mapping[str, Any]:
        try:
            data = self._stream.readline(LONGEST_LINE)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(repr(error)) from None
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._broken("it broke off" if not data else "it is not understood")
        return document

    def _broken(self, why: str) -> EvidenceError:
        return EvidenceError(f"the observation by {self._agent.origin} is lost ({why}); observe again")
