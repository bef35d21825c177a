"""Endpoints as typed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.errors import UsageError
from calico_debug.state.endpoint_text import EndpointText, parse_endpoint


@pytest.mark.parametrize(
    ("text", "kind", "name", "namespace", "port"),
    [
        ("pod/shop/web-0", "pod", "web-0", "shop", None),
        ("pod/shop/web-0:8080", "pod", "web-0", "shop", 8080),
        ("pod/web-0", "pod", "web-0", "", None),
        ("shop/web-0", "pod", "web-0", "shop", None),
        ("shop/web-0:http", "pod", "web-0", "shop", "http"),
        ("web-0", "pod", "web-0", "", None),
        ("web-0:1", "pod", "web-0", "", 1),
        ("web.example.com-0", "pod", "web.example.com-0", "", None),
        ("pod/pod/pod", "pod", "pod", "pod", None),
        ("svc", "pod", "svc", "", None),
        ("svc/shop/web", "service", "web", "shop", None),
        ("service/shop/web:65535", "service", "web", "shop", 65535),
        ("svc/web:dns-tcp", "service", "web", "", "dns-tcp"),
        ("node/n1", "node", "n1", "", None),
        ("node/n1.example.com:22", "node", "n1.example.com", "", 22),
        ("external", "external", "", "", None),
        ("external:443", "external", "", "", 443),
        (" shop/web-0 ", "pod", "web-0", "shop", None),
    ],
)
def test_names(text: str, kind: str, name: str, namespace: str, port: int | str | None) -> None:
    assert parse_endpoint(text) == EndpointText(text.strip(), kind, name, namespace, None, port)


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("10.0.0.1", "10.0.0.1", None),
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("10.0.0.1:http", "10.0.0.1", "http"),
        ("fd00::1", "fd00::1", None),
        ("FD00::0:1", "fd00::1", None),
        ("::1", "::1", None),
        # Without brackets every colon belongs to the address.
        ("fd00::1:80", "fd00::1:80", None),
        ("[fd00::1]", "fd00::1", None),
        ("[fd00::1]:80", "fd00::1", 80),
    ],
)
def test_addresses(text: str, address: str, port: int | str | None) -> None:
    assert parse_endpoint(text) == EndpointText(text, "address", address=ip_address(address), port=port)


def test_the_namespace_of_names_without_one() -> None:
    assert parse_endpoint("web", "shop").namespace == "shop"
    assert parse_endpoint("svc/web", "shop").namespace == "shop"
    assert parse_endpoint("bank/web", "shop").namespace == "bank"
    assert parse_endpoint("node/n1", "shop").namespace == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an endpoint is empty: write pod/NS/NAME"),
        ("  ", "is empty"),
        ("x" * 700, "has 700 characters"),
        ("a/b/c", "is no endpoint: write"),
        ("pod/a/b/c", "is no endpoint"),
        ("node/a/b", "is no endpoint"),
        ("deployment/a/b", "is no endpoint"),
        ("pod/", "is no endpoint"),
        ("/web", "is no endpoint"),
        ("-web", "is no endpoint"),
        ("we b", "is no endpoint"),
        ("\x1b[31mweb", r"'\\x1b\[31mweb' is no endpoint"),
        ("web:", "'' in 'web:' is no port"),
        ("web:0", "port 0 .* out of range: ports are 1 to 65535"),
        ("web:65536", "out of range"),
        ("web:" + "9" * 30, "port 99999999999999999999 .* out of range"),
        ("web:-1", "'-1' .* is no port"),
        ("web:٨٠", "is no port"),
        ("web:80/tcp", "is no port|is no endpoint"),
        ("10.0.0.300", "'10.0.0.300' is no IPv4 address"),
        ("10.0.0", "is no IPv4 address"),
        ("10.0.0.0/8", "not a network"),
        ("10.0.0.1:70000", "out of range"),
        ("fd00::1::2", "is no address"),
        ("fd00:xyz:1", "is no address: an IPv6 address with a port"),
        ("[fd00::1", "is no IPv6 address"),
        ("[fd00::1]80", "is no IPv6 address"),
        ("[10.0.0.1]:80", "is no IPv6 address"),
        ("[fd00::1]:", "is no port"),
        ("fe80::1%eth0", "leave out %eth0"),
    ],
)
def test_what_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_endpoint(text)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


WORDS = st.sampled_from(["pod", "svc", "node", "external", "/", ":", "[", "]", "a", "ns", "80", "10.0.0.1", "fd00::1"])


@given(st.text(max_size=40) | st.lists(WORDS, max_size=7).map("".join))
def test_any_text_is_an_endpoint_or_a_usage_error(text: str) -> None:
    try:
        parsed = parse_endpoint(text)
    except UsageError:
        return
    assert parsed.kind in ("pod", "service", "node", "address", "external")
    assert (parsed.address is not None) == (parsed.kind == "address")
    assert parsed.port is None or isinstance(parsed.port, str) or 1 <= parsed.port <= 65535


@given(st.ip_addresses(), st.none() | st.integers(1, 65535))
def test_every_address_comes_back(address: object, port: int | None) -> None:
    bare = f"[{address}]" if ":" in str(address) else str(address)
    parsed = parse_endpoint(bare if port is None else f"{bare}:{port}")
    assert (parsed.address, parsed.port) == (address, port)
