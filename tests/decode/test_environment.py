"""Felix's environment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.environment import decode_environment


def test_lines() -> None:
    text = b"""FELIX_NFTABLESMODE=Enabled
# FELIX_X=1
FELIX_FAILSAFEINBOUNDHOSTPORTS=tcp:0.0.0.0/0:22, udp:68
export FELIX_A="b c"
FELIX_EMPTY=
no assignment
FELIX_SELECTOR=a == 'b'
"""
    assert decode_environment(text) == {
        "FELIX_NFTABLESMODE": "Enabled",
        "FELIX_FAILSAFEINBOUNDHOSTPORTS": "tcp:0.0.0.0/0:22, udp:68",
        "FELIX_A": '"b c"',
        "FELIX_EMPTY": "",
        "FELIX_SELECTOR": "a == 'b'",
    }


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    assert all(name and not name.startswith("#") for name in decode_environment(data))
