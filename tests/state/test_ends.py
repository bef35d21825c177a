"""Pieces of messages that resolving uses."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.state.endpoint_text import parse_endpoint
from calico_debug.state.ends import is_everywhere, listed, suggestion


def test_long_lists_are_cut() -> None:
    assert listed([]) == ""
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefgh")) == "a, b, c, d, e, f and 2 more"


def test_suggestions_prefer_the_same_name_elsewhere() -> None:
    names = ["shop/web-0", "bank/web-0", "shop/api-7d5c9", "shop/other"]
    assert suggestion(parse_endpoint("x/web-0"), names) == ": did you mean shop/web-0, bank/web-0?"
    # A Deployment's name, where its pods have a suffix.
    assert suggestion(parse_endpoint("shop/api"), names) == ": did you mean shop/api-7d5c9?"
    # Within a namespace that exists, another name; otherwise the whole.
    assert suggestion(parse_endpoint("shop/othre"), names) == ": did you mean shop/other?"
    assert suggestion(parse_endpoint("shp/other"), names) == ": did you mean shop/other?"
    assert suggestion(parse_endpoint("shop/zzz"), ["shop/six"]) == ": the names there are shop/six"
    assert suggestion(parse_endpoint("q/zzzz"), ["b/x", "a/x"]) == ": the names there are a/x, b/x"
    assert suggestion(parse_endpoint("q/zzzz"), []) == ": there are no names"


@pytest.mark.parametrize(
    ("address", "everywhere"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("fe80::1", True),
        ("169.254.1.1", True),
        ("224.0.0.1", True),
        ("10.0.0.1", False),
    ],
)
def test_addresses_of_every_node(address: str, everywhere: bool) -> None:
    assert is_everywhere(ip_address(address)) is everywhere
