"""What a file says of each event."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.capture.flows import FlowOf
from calico_debug.capture.predictions import Prediction, Predictions
from calico_debug.capture.teller import Teller
from tests.cli.samples import SAMPLES
from tests.evidence.memory import MemorySource
from tests.explain.test_packet_story import ANSWER, DELIVERED, DENIED, PLACES

if TYPE_CHECKING:
    from calico_debug.model.packet_event import Ends

DENIAL = SAMPLES["denied_end_of_tier"]


class Known(Predictions):
    """Predicts the same for every flow, and notes for which it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda: MemorySource({}))
        self.asked: list[FlowOf] = []

    def of(self, flow: FlowOf) -> Prediction:
        self.asked.append(flow)
        return Prediction(DENIAL)

    def opened(self, ends: Ends) -> tuple[Ends, bool] | None:
        return ends, False


def test_packets_and_their_flow() -> None:
    predictions = Known()
    teller = Teller(None, predictions=predictions)
    told = [teller.tell(event, PLACES, ()) for event in (*DELIVERED, *ANSWER)]
    assert [one.number for one in told] == [1] * len(DELIVERED) + [2] * len(ANSWER)
    assert teller.packets == 2
    assert {flow.ends for flow in predictions.asked} == {DELIVERED[0].ends}
    assert [flow.reply for flow in predictions.asked] == [False] * len(DELIVERED) + [True] * len(ANSWER)
    assert all("predicted DENIED" in one.comment for one in told)
    assert all(DENIAL.source.ip in one.names for one in told)


def test_errors_have_no_prediction() -> None:
    told = Teller(None, predictions=Known()).tell(replace(DENIED[0], about=True), PLACES, ())
    assert (told.prediction, told.names, "predicted" in told.comment) == (None, {}, False)


def test_the_one_prediction_where_no_others_are() -> None:
    told = Teller(DENIAL).tell(DENIED[-1], PLACES, ("accept",))
    assert told.prediction == Prediction(DENIAL)
    assert "; mark accept; predicted DENIED" in told.comment
    assert Teller(None).tell(DENIED[-1], PLACES, ()).prediction is None


def test_the_captured_policy_is_asked_each_time() -> None:
    class Policy:
        def decides(self, _: object) -> str:
            return "decided by it"

    meant: list[Policy | None] = [None]
    teller = Teller(DENIAL, lambda: meant[0])  # type: ignore[arg-type,return-value]
    assert not teller.tell(DENIED[0], PLACES, ()).decided
    meant[0] = Policy()
    told = teller.tell(DENIED[1], PLACES, ())
    assert told.decided
    assert told.comment.endswith("; decided by it")
