"""The ways to an agent; tests/cluster/test_reach.py takes both of them."""

from __future__ import annotations

import pytest

from calico_debug.cli.agent_client import Trust
from calico_debug.cli.transports import CONNECT_SECONDS, TlsConnection
from calico_debug.errors import EvidenceError


@pytest.mark.parametrize("url", ["http://10.0.0.1:9098", "https://10.0.0.1", "https://:9098", "https://[x:1", "", "x"])
def test_what_is_published_is_checked(url: str) -> None:
    with pytest.raises(EvidenceError, match="which is no https://ADDR:PORT: look at its Lease"):
        TlsConnection(url, Trust())


def test_a_node_that_is_gone_is_given_up_soon() -> None:
    connection = TlsConnection("https://[fd00::1]:9098", Trust())
    assert (connection.host, connection.port, connection.timeout) == ("fd00::1", 9098, CONNECT_SECONDS)


def test_a_certificate_that_is_none_is_the_agents_fault() -> None:
    with pytest.raises(EvidenceError, match=r"https://10\.0\.0\.1:1 published no certificate"):
        TlsConnection("https://10.0.0.1:1", Trust(pem="PEM"))
