"""What Calico's programs do otherwise in older releases: marks at egress, and refusals of the node's own packets.

Sources: the first tests of calico_tc_main in felix/bpf-gpl/tc.c, and bpf.h. The version of a map tells the release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.walk.bpf_outcomes import BYPASS, BYPASS_XDP

if TYPE_CHECKING:
    from calico_debug.state.bpf import BpfState

BITS_COUNT = 3
"""Version of cali_v4_frgfwd that came with v3.31.4, since when every mark with the bits of BYPASS is approved; before,
only that mark itself. The map is there since v3.31.0.
"""

OWN_XDP_MARK = 3
"""Version of cali_counters that came with v3.30, since when what XDP accepted has a mark of its own.

Since then, too, a refusal does not always have the interface's own address (icmp4.h): with v3.29.7 a node that asks
for a service without backends was seen to get none.
"""


@dataclass(frozen=True, slots=True)
class Marks:
    """``bits_count`` says that any mark with the bits of BYPASS is approved; ``accepted_by_xdp`` is what XDP's has.

    ``refuses_own`` says that a node gets the refusal of its own packet.
    """

    bits_count: bool = True
    accepted_by_xdp: int = BYPASS_XDP
    refuses_own: bool = True

    def approved(self, mark: object) -> bool:
        """Whether a program at egress lets a packet with this mark go, since another one has approved it."""
        if not isinstance(mark, int):
            return False
        return mark & BYPASS == BYPASS if self.bits_count else mark == BYPASS


def marks_of(state: BpfState) -> Marks:
    """The meanings on a node. Raises `EvidenceError` when its programs or maps cannot be read."""
    fragments, counters = state.map(Role.FRAGMENT_FORWARD, 4), state.map(Role.COUNTERS)
    old = counters is not None and counters.layout.version < OWN_XDP_MARK
    return Marks(
        fragments is not None and fragments.layout.version >= BITS_COUNT,
        BYPASS if old else BYPASS_XDP,
        not old,
    )
