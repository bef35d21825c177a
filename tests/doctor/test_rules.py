"""Rules of others."""

from __future__ import annotations

import json

import pytest

from tests.doctor.patients import bpf, bpf_report, codes, report, seen
from tests.explain.rules import ruleset
from tests.explain.world import Node, objects


def with_table(*rules: str, name: str = "inet own", chain: str = "c@forward:0", **more: list[str]) -> Node:
    return Node(1, pods=[1], tables={name: {chain: list(rules), **more}})


@pytest.mark.parametrize(
    ("rules", "severity"),
    [
        (["drop"], "warning"),
        (["protocol=tcp drop"], "warning"),
        (["reject"], "warning"),
        (["accept"], ""),
        (["iif=cali* accept", "protocol=udp return"], ""),
    ],
)
def test_rules_that_drop(rules: list[str], severity: str) -> None:
    assert codes(report(with_table(*rules))) == ([(severity, "foreign-drop-rule")] if severity else [])


def test_rules_for_some_packets_that_met_none_yet() -> None:
    made = bpf()
    rules = {"inet own": {"c@forward:0": ["protocol=tcp drop"]}}
    made.files["nft-ruleset.json"] = ruleset(rules).replace('"packets": 7', '"packets": 0')
    assert codes(bpf_report(made)) == [("info", "foreign-drop-rule")]


def test_chains_behind_jumps_are_looked_at_once() -> None:
    node = with_table(
        "jump:d", "protocol=tcp jump:d", "jump:e", d=["protocol=tcp drop", "protocol=udp drop"], e=["goto:c"]
    )
    found = report(node)
    (text,) = seen(found, "foreign-drop-rule")
    assert text.startswith("table inet own, chain d (from hook forward): 2 rules drop or reject")


def test_a_policy_to_drop() -> None:
    found = report(with_table("accept", chain="c@forward:0:drop"))
    assert codes(found) == [("warning", "foreign-drop-policy")]
    assert seen(found, "foreign-drop-policy") == [
        "table inet own, chain c (hook forward, priority 0) drops what none of its rules accepts"
    ]


SAVED = (
    "*filter\n:FORWARD DROP [0:0]\n:cali-FORWARD - [0:0]\n:cali-from-wl-dispatch - [0:0]\n:cali-tw-cali1 - [0:0]\n"
    '-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD\nCOMMIT\n'
)


def test_a_policy_to_drop_behind_rules_of_calico() -> None:
    """Docker sets it. Calico's rules accept before; unless FilterAllowAction says that they shall not."""
    files = {"iptables-save.txt": SAVED, "ipset-save.txt": ""}
    assert codes(report(Node(1, pods=[1], calico=False, files=files))) == [("info", "foreign-drop-policy")]
    files["felix-env.txt"] = "FELIX_IPTABLESFILTERALLOWACTION=Return\n"
    assert codes(report(Node(1, pods=[1], calico=False, files=files))) == [("warning", "foreign-drop-policy")]


def test_other_families_and_unused_chains_do_not_matter() -> None:
    assert codes(report(with_table("drop", name="arp own", chain="c@input:0"))) == []
    assert codes(report(with_table("accept", unused=["drop"]))) == []


def test_kube_proxy_and_calico_are_no_strangers() -> None:
    assert codes(report(with_table("drop", name="ip kube-proxy"))) == []
    assert codes(report(Node(1, pods=[1]))) == []


def test_notrack() -> None:
    node = with_table("notrack", name="ip raw", chain="PREROUTING@prerouting:-300")
    found = report(node)
    assert codes(found) == [("warning", "notrack")]
    assert seen(found, "notrack") == ["table ip raw, chain PREROUTING (from hook prerouting): 1 rule with notrack"]
    own = Node(1, pods=[1], chains={"raw-PREROUTING@prerouting:-300": ["notrack"]})
    assert codes(report(own)) == []


def test_kube_proxy_beside_programs() -> None:
    made = bpf()
    made.files["nft-ruleset.json"] = ruleset({"ip kube-proxy": {"filter-forward@forward:0": []}})
    found = bpf_report(made)
    assert codes(found) == [("warning", "kube-proxy-beside-bpf")]
    assert seen(found, "kube-proxy-beside-bpf") == ["table ip kube-proxy; Felix's clean-up of kube-proxy's rules is on"]
    made.files["felix-env.txt"] = "FELIX_BPFKUBEPROXYIPTABLESCLEANUPENABLED=false\n"
    assert codes(bpf_report(made)) == [("info", "kube-proxy-beside-bpf")]


@pytest.mark.parametrize(
    ("environment", "of_node", "severity"),
    [
        ("A=b", None, "info"),  # the default FelixConfiguration says false
        ("A=b", True, "warning"),
        ("FELIX_BPFKUBEPROXYIPTABLESCLEANUPENABLED=true", None, "warning"),
    ],
)
def test_settings_of_felix_configuration(environment: str, of_node: bool | None, severity: str) -> None:
    """The environment goes first, then the node's own, then the default one."""
    made = bpf()
    made.files["nft-ruleset.json"] = ruleset({"ip kube-proxy": {"filter-forward@forward:0": []}})
    made.files["felix-env.txt"] = f"{environment}\n"
    names = {"default": False} | ({"node.n1": of_node} if of_node is not None else {})
    items = [
        {"metadata": {"name": name}, "spec": {"bpfKubeProxyIptablesCleanupEnabled": value}}
        for name, value in names.items()
    ]
    lists = {
        **objects([Node(1, pods=[1])]),
        "felixconfigurations.crd.projectcalico.org.json": json.dumps({"items": items}),
    }
    assert codes(bpf_report(made, lists)) == [(severity, "kube-proxy-beside-bpf")]


def test_kubelets_chains_are_not_kube_proxys() -> None:
    made = bpf()
    made.files["nft-ruleset.json"] = ruleset({"ip mangle": {"KUBE-KUBELET-CANARY": []}})
    assert codes(bpf_report(made)) == []
