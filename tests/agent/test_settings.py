from __future__ import annotations

import pytest

from calico_debug.agent.settings import DEFAULT_SOCKET, VARIABLES, Address, Settings, settings
from calico_debug.errors import UsageError

SILENT = dict.fromkeys(VARIABLES)


def test_what_is_usual() -> None:
    assert settings(SILENT, {}) == Settings(DEFAULT_SOCKET, None, Address("127.0.0.1", 9097), False)


def test_what_is_typed_goes_before_the_environment() -> None:
    variables = {
        "CALICO_DEBUG_SOCKET": "/a",
        "CALICO_DEBUG_LISTEN": "[::1]:1",
        "CALICO_DEBUG_METRICS": "10.0.0.1:2",
        "CALICO_DEBUG_METRICS_PODS": "true",
        "CALICO_DEBUG_TOKEN_AUDIENCE": "other",
        "CALICO_DEBUG_INSECURE_LOOPBACK": "1",
    }
    expected = Settings(
        "/a", Address("::1", 1), Address("10.0.0.1", 2), True, token_audience="other", insecure_loopback=True
    )
    assert settings(SILENT, variables) == expected
    typed = {"socket": "/b", "listen": "127.0.0.2:3", "metrics": "off", "token_audience": "mine"}
    assert settings(typed, variables) == Settings(
        "/b", Address("127.0.0.2", 3), None, True, token_audience="mine", insecure_loopback=True
    )


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:80", "[fd00::1]:80", "off"])
def test_only_loopback_goes_without_tls_and_tokens(listen: str) -> None:
    with pytest.raises(UsageError, match="--insecure-loopback"):
        settings(SILENT | {"listen": listen, "insecure_loopback": True}, {})


def test_which_addresses_are_checked() -> None:
    listen, metrics = Address("127.0.0.1", 1), Address("10.0.0.1", 2)
    given = SILENT | {"listen": str(listen), "metrics": str(metrics)}
    assert settings(given, {}).checked == (listen,)
    assert settings(given | {"metrics_auth": True}, {}).checked == (listen, metrics)
    assert settings(given | {"insecure_loopback": True}, {}).checked == ()
    assert settings(SILENT, {}).checked == ()


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1"])
def test_an_own_certificate_is_for_one_address(listen: str) -> None:
    given = SILENT | {"listen": listen}
    with pytest.raises(UsageError, match="listen on the address that peers use"):
        settings(given, {})
    assert settings(given | {"tls_cert": "a", "tls_key": "b"}, {}).checked != ()


@pytest.mark.parametrize("name", ["tls_cert", "tls_key"])
def test_a_certificate_needs_its_key(name: str) -> None:
    with pytest.raises(UsageError, match="belong together"):
        settings(SILENT | {name: "a"}, {})


@pytest.mark.parametrize(
    "text",
    ["x", "9097", ":9097", "localhost:1", "127.0.0.1:", "127.0.0.1:65536", "[127.0.0.1]:1", "127.0.0.1:1:2", "[::1]"],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="ADDR:PORT"):
        settings(SILENT | {"metrics": text}, {})


@pytest.mark.parametrize("text", ["[fd00::7]:9097", "fd00::7:9097"])
def test_ipv6_with_and_without_brackets(text: str) -> None:
    found = settings(SILENT | {"metrics": text}, {}).metrics
    assert found == Address("fd00::7", 9097)
    assert str(found) == "[fd00::7]:9097"


def test_nothing_to_listen_on() -> None:
    with pytest.raises(UsageError, match="nothing to listen on"):
        settings(SILENT | {"socket": "off", "metrics": "off"}, {})


def test_a_flag_that_is_none() -> None:
    with pytest.raises(UsageError, match="CALICO_DEBUG_METRICS_PODS"):
        settings(SILENT, {"CALICO_DEBUG_METRICS_PODS": "maybe"})
