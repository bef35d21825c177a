"""The way back over nodes of the eBPF dataplane, which programs settle by what they noted on the way there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.explanation import Step
from calico_debug.walk.context import Translated, Tunnelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.walk.journey import Journey, Leg


def answers(journey: Journey) -> Iterator[Step]:
    """A step for each node whose programs let the answer through by the entry that the request made, the last first."""
    if not journey.by_entries:
        return
    walked = {leg.made.node for leg in journey.legs if leg.reply}
    legs = [leg for leg in journey.legs if not (leg.outer or leg.reply or leg.made.node in walked)]
    for leg, before in zip(reversed(legs), reversed([None, *legs][:-1]), strict=True):
        through_tunnel = before is not None and _tunnelled(before)
        yield Step(leg.made.node, "reply", "passed", _detail(_tunnelled(leg), through_tunnel, _translated(leg)))


def _tunnelled(leg: Leg) -> bool:
    return any(isinstance(event, Tunnelled) for event in leg.made.trace.events)


def _translated(leg: Leg) -> bool:
    return any(isinstance(event, Translated) and event.service for event in leg.made.trace.events)


def _detail(tunnelled: bool, through_tunnel: bool, translated: bool) -> str:
    """Why an answer passes a node of the eBPF dataplane: one that ``tunnelled`` its request to a backend elsewhere, one
    that got it ``through_tunnel``, one that ``translated`` it from a service, or any other.
    """
    passes = "the programs' own connection tracking lets the answer through"
    if through_tunnel:
        return f"{passes}: back into the tunnel, or straight to the client if BPFExternalServiceMode is DSR"
    if tunnelled:
        return f"{passes}: out of the tunnel, as from the service (not with BPFExternalServiceMode DSR)"
    return f"{passes}, as from the service" if translated else passes
