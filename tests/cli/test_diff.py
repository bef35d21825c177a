"""``calico-debug diff``: from two bundles to an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.worlds import Ran, run
from tests.recordings import DATA

NFT, STALE, BPF = (str(DATA / f"v3.32.1-{name}.tar.xz") for name in ("nft", "stale-nft", "bpf"))
FROZEN = b'{"from": "client/client-5f8b", "to": "svc/stars/backend"}\n'
SAME = b'{"from": "client/client-5f8b", "to": "svc/stars/frontend", "protocol": 6}\n'
NOBODY = b'{"from": "client/client-5f8b", "to": "svc/stars/none"}\n'


def diff(*arguments: str, flows: bytes = FROZEN + SAME) -> Ran:
    return run("diff", NFT, STALE, "--flows", "-", *arguments, stdin=flows)


def test_text() -> None:
    ran = diff()
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.splitlines()[:3] == [f"before  {NFT}", f"after   {STALE}", ""]
    assert ran.out.splitlines()[3:] == [
        "added GlobalNetworkPolicy platform.freeze",
        "    client/client-5f8b -> svc/stars/backend",
        "        was  ALLOWED egress: tier platform, by NetworkPolicy client/platform.client-egress, rule 0",
        "             ALLOWED ingress: tier platform, by NetworkPolicy stars/platform.stars-backend, rule 0",
        "        is   DENIED ingress: tier platform, by GlobalNetworkPolicy platform.freeze, rule 0",
        "",
        "3 objects changed",
        "    added GlobalNetworkPolicy platform.freeze",
        "    changed Node node1 (tunnel addresses)",
        "    changed Node node2 (tunnel addresses)",
        "2 flows asked about: 1 with another verdict, 0 decided by another rule, 0 not settled, 0 only in one state",
    ]


def test_documents() -> None:
    document = json.loads(diff("-o", "json").out)
    assert document == yaml.safe_load(diff("-o", "yaml").out)
    assert (document["kind"], document["result"], document["asked"]) == ("FlowDiff", "changed", 2)
    (flow,) = document["flows"]
    assert flow["flow"] == {"from": "client/client-5f8b", "to": "svc/stars/backend"}
    assert (flow["changed"], flow["before"]["verdict"], flow["after"]["verdict"]) == ("verdict", "allowed", "denied")
    assert flow["cause"] == {
        "kind": "objects",
        "objects": [[{"kind": "GlobalNetworkPolicy", "name": "platform.freeze", "change": "added"}]],
    }


@pytest.mark.parametrize(
    ("flows", "code"), [(SAME, 0), (FROZEN, 1), (NOBODY, 4), (FROZEN + NOBODY, 1)], ids=["same", "one", "open", "both"]
)
def test_exit_codes(flows: bytes, code: int) -> None:
    assert diff(flows=flows).code == code


def test_a_file_of_assertions_names_flows_too(tmp_path: Path) -> None:
    file = tmp_path / "flows.yaml"
    file.write_text("flows: [{from: client/client-5f8b, to: svc/stars/backend, expect: allowed}]")
    ran = run("diff", NFT, STALE, "--flows", str(file))
    assert ran.code == 1
    assert "1 flow asked about: 1 with another verdict" in ran.out
    file.write_text(
        json.dumps({"flows": [{"from": "client/client-5f8b", "to": "svc/stars/backend", "expect": "denied"}]})
    )
    assert run("diff", NFT, STALE, "--flows", str(file)).out == ran.out


def test_other_dataplanes_are_named() -> None:
    ran = run("diff", NFT, BPF, "--flows", "-", stdin=b'{"from": "client/client-5f8b", "to": "svc/yaobank/ghost"}')
    assert "the nodes run another dataplane (nftables became ebpf)" in ran.out
    assert "DENIED egress" in ran.out
    assert "REJECTED the service" in ran.out


def test_what_reads_otherwise_stands_apart() -> None:
    """Two tiers' ends are the same kind of denial, and other policies stand behind them."""
    flows = [("client/client-5f8b", "stars/backend-6c9d:80"), ("stars/frontend-77cd", "stars/backend-6c9d:6379")]
    lines = b"".join(json.dumps({"from": a, "to": b}).encode() + b"\n" for a, b in flows)
    shown = diff(flows=lines).out.splitlines()
    assert (
        shown.count("        is   DENIED ingress: tier platform, by GlobalNetworkPolicy platform.freeze, rule 0") == 2
    )
    assert len([line for line in shown if line.startswith("        was")]) == 2


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        ((NFT, "no-such-bundle"), b"", 1, "no-such-bundle"),
        ((NFT, STALE, "--node", "n"), b"", 2, "contradict each other"),
        ((NFT, STALE, "--flows", "none.jsonl"), b"", 1, "cannot read none.jsonl"),
        ((NFT, STALE, "--flows", "-"), b'{"from": 1}', 2, 'the standard input, line 1: "from"'),
        ((NFT, STALE, "--flows", "-"), b"flows: 1", 2, "the standard input"),
        ((), b"", 2, "Missing argument 'BEFORE'"),
    ],
)
def test_what_cannot_be(arguments: tuple[str, ...], stdin: bytes, code: int, message: str) -> None:
    ran = run("diff", *arguments, stdin=stdin)
    assert ran.code == code
    assert message in ran.err
    assert ran.out == ""
