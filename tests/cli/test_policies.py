"""The commands policies and endpoints, on the project's recordings."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml

from calico_debug.cli.environment import Environment
from calico_debug.cli.main import main
from tests.explain.world import Node, objects, policy_object

DATA = Path(__file__).resolve().parents[1] / "data"
RECORDING = DATA / "v3.32.1-nft.tar.xz"


def _run(*arguments: str, bundle: Path = RECORDING) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main([*arguments, "--bundle", str(bundle)], Environment(io.BytesIO(), out, err))
    return code, out.getvalue(), err.getvalue()


def test_policies_of_a_pod_as_text() -> None:
    code, out, err = _run("policies", "--pod", "attack/rogue")
    assert (code, err) == (0, "")
    assert out.splitlines()[:12] == [
        "pod attack/rogue on node1",
        "egress",
        "  tier security, order 100, Deny at its end",
        "    GlobalNetworkPolicy security.dns         order 5  5 on node1",
        "    GlobalNetworkPolicy security.quarantine  order 10  109 on node1",
        "  where every tier passes: profiles kns.attack, ksa.attack.default",
        "ingress",
        "  tier security, order 100, Deny at its end",
        "    GlobalNetworkPolicy security.dns         order 5  0 on node1",
        "    GlobalNetworkPolicy security.quarantine  order 10  59 on node1",
        "  tier default, order 1000000, passes, as all is staged",
        "    StagedNetworkPolicy attack/staged-lock (staged: Set)  order 100",
    ]
    assert out.splitlines()[-1].startswith("counts are packets ")


@pytest.mark.parametrize("dataplane", ["nft", "iptables", "bpf"])
def test_counts_of_every_dataplane(dataplane: str) -> None:
    """The same flows were sent in all three."""
    bundle = DATA / f"v3.32.1-{dataplane}.tar.xz"
    code, out, _ = _run("policies", "--pod", "client/client-5f8b", "-o", "json", bundle=bundle)
    assert code == 0
    tiers = json.loads(out)["egress"]["tiers"]
    policy = tiers[-1]["policies"][0]
    assert (policy["name"], policy["hits"]["count"]) == ("platform.client-egress", 3)
    assert policy["hits"]["rules"] == [{"index": 0, "action": "Allow", "count": 3}]
    assert "packets" in policy["hits"]["unit"]


def test_wide_shows_rules_with_their_counts() -> None:
    _, out, _ = _run("policies", "--pod", "client-5f8b", "-n", "client", "-o", "wide")
    assert "        rule 0 (Allow TCP to namespace stars, ports 80, 6379): 3" in out.splitlines()


def test_json_and_yaml_are_the_same_document() -> None:
    machine = json.loads(_run("policies", "--pod", "attack/rogue", "-o", "json")[1])
    assert machine == yaml.safe_load(_run("policies", "--pod", "attack/rogue", "-o", "yaml")[1])
    assert (machine["apiVersion"], machine["kind"]) == ("calico-debug/v1", "PodPolicies")
    staged = machine["ingress"]["tiers"][1]
    assert staged["onlyStaged"] is True
    assert staged["policies"][0]["stagedAction"] == "Set"
    assert "hits" not in staged["policies"][0]


def test_every_policy_in_order() -> None:
    code, out, _ = _run("policies")
    lines = out.splitlines()
    assert code == 0
    assert [line for line in lines if line.startswith("tier")] == [
        "tier security, order 100, Deny at its end",
        "tier platform, order 300, Deny at its end",
        "tier default, order 1000000, Deny at its end",
    ]
    assert lines[1].split() == [
        *("GlobalNetworkPolicy", "security.nodeport-guard", "(applyOnForward,", "preDNAT)"),
        *("order", "1", "ingress", "1", "endpoint"),
    ]


def test_endpoints_of_a_policy() -> None:
    code, out, _ = _run("endpoints", "--policy", "yaobank/summary-policy")
    assert code == 0
    assert out.splitlines()[:7] == [
        "NetworkPolicy yaobank/summary-policy, tier default, ingress and egress",
        "  pod yaobank/summary-a-66c8 on node1",
        "  pod yaobank/summary-b-66c8 on node2",
        "  node1  ingress  2",
        "  node1  egress  1",
        "  node2  ingress  1",
        "  node2  egress  1",
    ]
    document = json.loads(_run("endpoints", "--policy", "nodeport-guard", "-o", "json")[1])
    assert document["endpoints"] == [
        {"kind": "HostEndpoint", "name": "node2-eth0", "node": "node2", "interface": "eth0"}
    ]
    assert document["selector"] == 'host == "node2"'


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("policies", "--pod", "nobody"), 2, "no pod is named 'nobody'"),
        (("policies", "--pod", "yaobank/client-5f8b"), 2, "no pod is named"),
        (("endpoints", "--policy", "nobody"), 2, "no policy is named 'nobody'"),
        (("endpoints",), 2, "--policy"),
        (("policies", "--node", "x"), 2, "a bundle names its nodes"),
        (("policies", "-o", "jsonl"), 2, "jsonl"),
        (("policies", "--pod", "a\x1b[31m"), 2, "no pod is named"),
    ],
)
def test_what_cannot_be_answered(arguments: tuple[str, ...], code: int, said: str) -> None:
    ended, out, err = _run(*arguments)
    assert (ended, out) == (code, "")
    assert said in err
    assert "\x1b" not in err


def made(folder: Path, **lists: list[object]) -> Path:
    cluster = folder / "cluster"
    cluster.mkdir()
    for name, text in objects([Node()], **lists).items():  # type: ignore[arg-type]
        (cluster / name).write_text(text)
    return folder


def test_pods_without_policies_of_their_own(tmp_path: Path) -> None:
    host = {
        "metadata": {"namespace": "shop", "name": "agent"},
        "spec": {"nodeName": "n1", "hostNetwork": True},
        "status": {"phase": "Running", "podIP": "172.30.0.1"},
    }
    pending = {"metadata": {"namespace": "shop", "name": "new"}, "spec": {}}
    bundle = made(tmp_path, pods=[host, pending])
    assert "is in its node's network" in _run("policies", "--pod", "agent", bundle=bundle)[2]
    assert "has no address" in _run("policies", "--pod", "new", bundle=bundle)[2]


def test_what_is_not_certain_is_said(tmp_path: Path) -> None:
    known = policy_object("known", selector="all()", types=["Ingress"])
    unknown = policy_object("unknown", namespaceSelector="team == 'a'", types=["Ingress"])
    broken = policy_object("broken", selector="((", types=["Ingress"])
    bundle = made(tmp_path, globalnetworkpolicies_crd_projectcalico_org=[known, unknown, broken])
    code, out, _ = _run("policies", "--pod", "pod11", "-o", "wide", bundle=bundle)
    assert code == 0
    assert "GlobalNetworkPolicy unknown (perhaps)" in out
    assert "not certain: it selects by labels of namespaces, which evidence does not have" in out
    assert "not certain: selector '((': unexpected token" in out
    assert "on n1" in out
    assert "  pod shop/pod11 on n1  perhaps" in _run("endpoints", "--policy", "broken", bundle=bundle)[1]
    assert "not understood: selector '(('" in _run("policies", "-o", "wide", bundle=bundle)[1]


def test_without_pods(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "nodes.json").write_text('{"kind": "List", "items": []}')
    code, out, err = _run("policies", "--pod", "x", bundle=tmp_path)
    assert (code, out) == (1, "")
    assert "pods.json" in err
    assert _run("policies", bundle=tmp_path)[1] == "no policies\n"


def test_names_are_neutralised(tmp_path: Path) -> None:
    bundle = made(tmp_path, globalnetworkpolicies_crd_projectcalico_org=[policy_object("a\x1b[31m")])
    for arguments in (("policies",), ("policies", "--pod", "pod11", "-o", "wide")):
        code, out, _ = _run(*arguments, bundle=bundle)
        assert (code, "\x1b" in out, "\\x1b[31m" in out) == (0, False, True)
