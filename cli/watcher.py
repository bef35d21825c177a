"""The real way from a question to packets that are watched on this node."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.cli.environment import Question
from calico_debug.cli.tracer import open_place, open_tracer
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from calico_debug.agent.packets.watch import LiveWatch
    from calico_debug.cli.environment import Place, WatchQuestion
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.explanation import FlowExplanation


def open_watch(place: Place, platform: str, question: WatchQuestion) -> LiveWatch:
    """Watch on this node. Raises `CalicoDebugError`."""
    if platform != "linux":
        raise EvidenceError(f"packets can only be watched on a Linux node, and this system is {platform}")
    if place.bundle is not None:
        raise UsageError("packets are watched live: leave out --bundle")
    from calico_debug.agent.packets.observer import Limits
    from calico_debug.agent.packets.watch import LiveWatch

    _, namespace = open_place(place, platform)

    def source() -> EvidenceSource:
        return open_place(place, platform)[0]

    subject = replace(question.subject, namespace=namespace)

    def predict() -> FlowExplanation:
        asked = Question(subject.source, subject.destination, subject.protocol, subject.via)
        return open_tracer(place, platform).trace(asked)

    limits = Limits(question.seconds, question.packets, question.bytes, question.rate)
    return LiveWatch(source, subject, limits, question.data, predict=predict)
