"""What marks mean in each release, told by the versions of maps."""

from __future__ import annotations

import pytest

from calico_debug.state.bpf import BpfState
from calico_debug.walk.bpf_marks import Marks, marks_of
from calico_debug.walk.bpf_outcomes import BYPASS, BYPASS_XDP, MASQUERADE_SELF, NAT_OUT, SEEN
from tests.evidence.bpf_node import BpfNode


@pytest.mark.parametrize(
    ("fragments", "counters", "expected"),
    [
        pytest.param("", "cali_counters2", Marks(False, BYPASS, False), id="v3.29"),
        pytest.param("", "cali_counters3", Marks(False, BYPASS_XDP, True), id="v3.30"),
        pytest.param("cali_v4_frgfwd2", "cali_counters5", Marks(False, BYPASS_XDP, True), id="v3.31.3"),
        pytest.param("cali_v4_frgfwd3", "cali_counters5", Marks(True, BYPASS_XDP, True), id="v3.31.4"),
        pytest.param("cali_v4_frgfwd4", "cali_counters6", Marks(), id="master"),
    ],
)
def test_versions_of_maps_tell(fragments: str, counters: str, expected: Marks) -> None:
    node = BpfNode()
    for old, new in (("cali_v4_frgfwd3", fragments), ("cali_counters6", counters)):
        number = node.ids[old]
        node.maps = [info for info in node.maps if info.id != number]
        if new:
            node.add_map(new, number)
    node.files["bpf/pins.txt"] = ""
    assert marks_of(BpfState(node.evidence())) == expected


@pytest.mark.parametrize("mark", [NAT_OUT, MASQUERADE_SELF, BYPASS_XDP])
def test_more_than_the_bypass_mark(mark: int) -> None:
    assert Marks().approved(mark)
    assert not Marks(bits_count=False).approved(mark)


@pytest.mark.parametrize("marks", [Marks(), Marks(bits_count=False)])
def test_in_every_release(marks: Marks) -> None:
    assert marks.approved(BYPASS)
    assert not marks.approved(SEEN)
    assert not marks.approved(None)
