"""Takes the events of a capture one by one, and gives what a file says of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calico_debug.capture.comments import comment, names
from calico_debug.capture.flows import PacketFlows
from calico_debug.capture.predictions import Prediction, Predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calico_debug.capture.aim import NamedPolicy
    from calico_debug.explain.packet_story import Places
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.packet_event import Ends, PacketEvent


@dataclass(frozen=True, slots=True)
class Told:
    """``number`` tells packets apart; ``names`` are of the flow's addresses. ``decided``: by the captured policy."""

    number: int
    comment: str
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    decided: bool = False
    prediction: Prediction | None = None


class Teller:
    """Keeps what it knows of flows, within bounds."""

    def __init__(
        self,
        explanation: FlowExplanation | None,
        policy: Callable[[], NamedPolicy | None] = lambda: None,
        predictions: Predictions | None = None,
    ) -> None:
        """``explanation`` is of the one flow that is captured, if it is one; ``policy`` gives what was named.

        Without ``predictions`` only that one flow has a prediction.
        """
        self._fixed = None if explanation is None else Prediction(explanation)
        self._policy = policy
        self._predictions = predictions
        self._flows = PacketFlows(self._opened)

    @property
    def packets(self) -> int:
        """Packets that were told apart."""
        return self._flows.packets

    def tell(self, event: PacketEvent, places: Places, marks: Sequence[str]) -> Told:
        """What is to be said of an event."""
        number, flow = self._flows.add(event)
        prediction = self._fixed
        if self._predictions is not None:
            prediction = self._predictions.of(flow) if flow is not None else None
        explanation = prediction.explanation if prediction is not None else None
        policy = self._policy()
        decided = policy.decides(explanation) if policy is not None and explanation is not None else ""
        text = comment(event, places, marks, prediction, flow, decided)
        return Told(number, text, names(explanation) if explanation is not None else {}, bool(decided), prediction)

    def _opened(self, ends: Ends) -> tuple[Ends, bool] | None:
        return None if self._predictions is None else self._predictions.opened(ends)
