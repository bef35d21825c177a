"""Packets that were watched: one line each, and what they say together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from calico_debug.capture.aim import allowed_before
from calico_debug.cli.render.terminal import Style, safe
from calico_debug.cli.render.words import address, attribution, outcome
from calico_debug.explain.packet_document import flag_names
from calico_debug.explain.packet_drops import drop_words
from calico_debug.explain.packet_story import VERBS, direction
from calico_debug.model.flow import protocol_name
from calico_debug.model.packet_event import DROPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.explain.packet_story import Places
    from calico_debug.model.explanation import FlowExplanation, Witness
    from calico_debug.model.packet_event import Losses, PacketEvent


def event_line(event: PacketEvent, number: int, places: Places, marks: Sequence[str]) -> str:
    """One event: time, packet, direction, what and where, ends, what else is known."""
    where = f"{VERBS[event.kind]} {places.of(event)}"
    if event.kind == DROPPED:
        where += f": {drop_words(event, places)}"
    way = direction(event)
    parts = (_clock(event.time), f"#{number}", f"{way:8}" if way else "", where)
    return safe(f"{' '.join(part for part in parts if part)}  {_ends(event)} {_details(event, marks)}") + "\n"


def summary_lines(
    story: Witness | None,
    explanation: FlowExplanation | None,
    numbers: tuple[int, int],
    losses: Losses,
    limited_by: str,
    style: Style,
) -> str:
    """What was observed, what is predicted, and always what was lost. ``numbers`` are events and packets."""
    lines = []
    if story is not None:
        lines.append(f"observed  {style.paint(story.verdict.upper())} on {safe(story.node)}: {safe(story.detail)}")
    if explanation is not None:
        lines.append(f"predicted {safe(outcome(explanation.verdict, explanation.decision))}{_before(explanation)}")
    lines.append(losses_text(numbers, losses, limited_by))
    return "\n".join(lines) + "\n"


def losses_text(numbers: tuple[int, int], losses: Losses, limited_by: str) -> str:
    """How much was seen, and how much was not."""
    events, packets = numbers
    end = f"; ended by the limit of {limited_by}" if limited_by and limited_by != "seconds" else ""
    what = f"{_count(events, 'event')} of {_count(packets, 'packet')}{end}"
    why = f"{losses.ring_full} for want of room, {losses.limited} over the limit of the rate"
    text = f"{what}; {_count(losses.lost, 'event')} lost ({why})"
    if losses.missed:
        text += f"; up to {losses.missed} packets passed over"
    if losses.unreadable:
        text += f"; {losses.unreadable} drops of what is no IP packet not shown"
    return text


def _before(explanation: FlowExplanation) -> str:
    if (step := allowed_before(explanation)) is None:
        return ""
    return safe(f"; before that {step.direction} ALLOWED on {step.node} by {attribution(step.policy, step.rule)}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _ends(event: PacketEvent) -> str:
    ends = event.ends
    source, destination = (
        address(str(ip), port or None)
        for ip, port in ((ends.source, ends.source_port), (ends.destination, ends.destination_port))
    )
    return f"{protocol_name(ends.protocol)} {source} -> {destination}"


def _details(event: PacketEvent, marks: Sequence[str]) -> str:
    parts = [" ".join(flag_names(event.flags))]
    if event.icmp is not None:
        parts.append(f"type {event.icmp[0]} code {event.icmp[1]}")
    parts.append(f"{event.length} bytes")
    if event.mark:
        means = [word for word in marks if word != hex(event.mark)]
        parts.append(f"mark {event.mark:#x}{' (' + ', '.join(means) + ')' if means else ''}")
    if event.followed:
        parts.append("translated")
    if event.tunnelled:
        parts.append("inside of the tunnel")
    return ", ".join(part for part in parts if part)


def _clock(time: int) -> str:
    return datetime.fromtimestamp(time / 1e9, UTC).strftime("%H:%M:%S.%f")
