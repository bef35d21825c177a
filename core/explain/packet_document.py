"""Packets that were watched, as JSON: one object for each place, and one for the whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from calico_debug.explain.packet_story import direction
from calico_debug.model.explanation import API_VERSION
from calico_debug.model.flow import protocol_name
from calico_debug.model.packet_event import DROPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.explain.packet_story import Places
    from calico_debug.model.explanation import FlowExplanation, Witness
    from calico_debug.model.packet_event import Losses, PacketEvent

EVENT_KIND, SUMMARY_KIND = "PacketEvent", "PacketObservation"
TCP_FLAGS = ((0x02, "SYN"), (0x10, "ACK"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x20, "URG"))


def event_document(event: PacketEvent, number: int, places: Places, marks: Sequence[str]) -> dict[str, Any]:
    """The event as one object of ``-o json``; what is not known is left out."""
    found: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": EVENT_KIND,
        "time": _rfc3339(event.time),
        "node": places.node,
        "packet": number,
        "event": event.kind,
        "direction": direction(event),
        "interface": event.interface,
        "pod": places.pods.get(event.namespace, ""),
        "namespace": event.namespace,
        "protocol": protocol_name(event.ends.protocol),
        "source": _end_document(str(event.ends.source), event.ends.source_port),
        "destination": _end_document(str(event.ends.destination), event.ends.destination_port),
        "length": event.length,
        "mark": hex(event.mark) if event.mark else "",
        "markMeans": list(marks),
        "reason": event.reason,
        "place": event.place,
        "foreignSource": event.kind == DROPPED and bool(places.foreign_source(event)),
        "flags": flag_names(event.flags),
        "icmp": list(event.icmp) if event.icmp is not None else None,
        "translated": event.followed,
        "tunnelled": event.tunnelled,
    }
    return {key: value for key, value in found.items() if value not in ("", None, [], False)}


def predicted_document(explanation: FlowExplanation) -> dict[str, Any]:
    """What is predicted for the packet's flow, in short; what is not known is left out."""
    decision = explanation.decision
    found: dict[str, Any] = {"verdict": explanation.verdict}
    if decision is not None:
        found |= {"node": decision.node, "tier": decision.tier, "reason": decision.reason}
        if (policy := decision.policy) is not None:
            found["policy"] = {"kind": policy.kind, "name": policy.name}
            found["policy"] |= {"namespace": policy.namespace} if policy.namespace else {}
        if decision.rule is not None:
            found["rule"] = decision.rule.index
    return {key: value for key, value in found.items() if value not in ("", None)}


def summary_document(
    story: Witness | None,
    explanation: FlowExplanation | None,
    numbers: tuple[int, int],
    losses: Losses,
    limited_by: str,
    node: str,
) -> dict[str, Any]:
    """The last object of ``-o json``."""
    found: dict[str, Any] = {"apiVersion": API_VERSION, "kind": SUMMARY_KIND, "node": node}
    if story is not None:
        found["witness"] = {"verdict": story.verdict, "at": story.at, "node": story.node, "detail": story.detail}
    if explanation is not None:
        found["predicted"] = explanation.verdict
    found |= {
        "events": numbers[0],
        "packets": numbers[1],
        "endedBy": limited_by or "interrupt",
        "losses": losses_document(losses),
    }
    return found


def losses_document(losses: Losses) -> dict[str, int]:
    """What was not told."""
    return {
        "noRoom": losses.ring_full,
        "rateLimited": losses.limited,
        "passedOver": losses.missed,
        "notIp": losses.unreadable,
    }


def json_line(document: dict[str, Any]) -> str:
    """One object in one line of printable ASCII."""
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).replace("\x7f", "\\u007f") + "\n"


def _end_document(ip: str, port: int) -> dict[str, Any]:
    return {"ip": ip, "port": port} if port else {"ip": ip}


def flag_names(flags: int | None) -> list[str]:
    """Names of TCP's flags."""
    return [name for bit, name in TCP_FLAGS if flags is not None and flags & bit]


def _rfc3339(time: int) -> str:
    return datetime.fromtimestamp(time / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
