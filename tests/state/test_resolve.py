"""From what users type to a flow; every way in which that can fail says what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calico_debug.errors import CalicoDebugError, EvidenceError, MissingEvidence, UsageError
from calico_debug.evidence.bundle import open_bundle
from calico_debug.model.flow import Endpoint, Flow
from calico_debug.state.cluster import load_cluster
from calico_debug.state.node import NodeState
from calico_debug.state.resolve import Resolver, parse_protocol, resolve_flow
from tests.evidence.memory import MemoryNode, MemorySource, recorded_bundles

A = ip_address


def pod(namespace: str, name: str, *addresses: str, ports: Any = (), **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": fields.get("node", "n1"),
            "hostNetwork": fields.get("host", False),
            "containers": [{"ports": list(ports)}],
        },
        "status": {"phase": fields.get("phase", "Running"), "podIPs": [{"ip": a} for a in addresses]},
    }


def service(namespace: str, name: str, ports: Any, *addresses: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"metadata": metadata, "spec": {"clusterIPs": list(addresses) or ["None"], "ports": ports, **spec}}


def node(name: str, *addresses: str) -> dict[str, Any]:
    listed = [{"type": "InternalIP", "address": address} for address in addresses]
    return {"metadata": {"name": name}, "status": {"addresses": listed}}


HTTP = {"containerPort": 8080, "name": "http"}
LISTS: dict[str, list[dict[str, Any]]] = {
    "pods.json": [
        pod("shop", "web-0", "10.244.1.1", "fd00:244::1", ports=[HTTP]),
        pod("shop", "web-1", "10.244.1.2", ports=[HTTP, {"containerPort": 9090}], node="n2"),
        pod("shop", "bare", "10.244.1.3"),
        pod("shop", "six", "fd00:244::6", ports=[HTTP]),
        pod("shop", "done", "10.244.1.9", phase="Succeeded"),
        pod("shop", "pending", phase="Pending", node=""),
        pod("bank", "web-0", "10.244.1.4", ports=[{"containerPort": 53, "protocol": "UDP"}]),
        pod("kube-system", "proxy", "172.30.0.11", host=True, ports=[{"containerPort": 10256}]),
    ],
    "services.json": [
        service("shop", "web", [{"name": "http", "port": 80, "nodePort": 30080}], "10.96.0.1", "fd00:96::1"),
        service("shop", "multi", [{"name": "a", "port": 1}, {"name": "b", "port": 2}], "10.96.0.2"),
        service("shop", "headless", [{"port": 80}]),
        service("shop", "alias", [], type="ExternalName"),
        service("shop", "portless", [], "10.96.0.5"),
        service("kube", "dns", [{"name": "dns", "port": 53, "protocol": "UDP"}], "10.96.0.10"),
        service(
            "kube",
            "dns2",
            [{"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53, "protocol": "TCP"}],
            "10.96.0.11",
        ),
        service("bank", "web", [{"port": 80}], "10.96.0.12"),
    ],
    "endpointslices.discovery.k8s.io.json": [
        {
            "metadata": {"name": "h", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [
                {"addresses": [a], "targetRef": {"kind": "Pod", "namespace": "shop", "name": f"web-{n}"}}
                for n, a in enumerate(("10.244.1.1", "10.244.1.2"))
            ],
            "ports": [{"port": 8080}],
        }
        for name in ("headless", "web")
    ],
    "nodes.json": [node("n1", "172.30.0.11", "fd00:30::11"), node("n2", "172.30.0.12")],
    "ippools.crd.projectcalico.org.json": [{"metadata": {"name": "p"}, "spec": {"cidr": "10.244.0.0/16"}}],
    "globalnetworksets.crd.projectcalico.org.json": [
        {"metadata": {"name": "s"}, "spec": {"nets": ["192.0.2.0/25", "2001:db8:ffff::/120"]}}
    ],
}


def source(**without: None) -> MemorySource:
    return MemorySource({name: json.dumps(items) for name, items in LISTS.items() if name.split(".")[0] not in without})


def flow(start: str, end: str, nodes: Mapping[str, NodeState] | None = None, **options: str) -> Flow:
    return resolve_flow(start, end, cluster=load_cluster(source()), nodes=nodes or {}, **options)


WEB = Endpoint(A("10.244.1.1"), None, ("shop", "web-0"), None, "n1")


def test_pod_to_pod() -> None:
    found = flow("shop/web-0", "pod/shop/web-1:9090")
    assert found == Flow(WEB, Endpoint(A("10.244.1.2"), 9090, ("shop", "web-1"), None, "n2"), 6)


def test_one_end_with_all_its_addresses() -> None:
    resolver = Resolver(load_cluster(source()), {})
    assert resolver.find_end("web-0", "shop").addresses == (A("10.244.1.1"), A("fd00:244::1"))
    with pytest.raises(UsageError):
        resolver.find_end("nobody", "shop")


def test_names_without_a_namespace() -> None:
    assert flow("bare", "web-1:1", namespace="shop").source.pod == ("shop", "bare")
    # Without -n a name that is unique in the cluster is enough.
    assert flow("bare", "web-1:1").source.pod == ("shop", "bare")


@pytest.mark.parametrize(
    ("text", "port", "notes"),
    [
        ("shop/web-0", 8080, ("port 8080 is taken, the only tcp port that pod shop/web-0 declares",)),
        ("shop/web-0:http", 8080, ()),
        ("shop/web-0:81", 81, ()),
        ("10.244.1.1", 8080, ("port 8080 is taken, the only tcp port that pod shop/web-0 declares",)),
    ],
)
def test_the_port_of_a_pod(text: str, port: int, notes: tuple[str, ...]) -> None:
    found = flow("shop/bare", text)
    assert (found.destination.port, found.destination.pod, found.notes) == (port, ("shop", "web-0"), notes)


@pytest.mark.parametrize(
    ("text", "options", "address", "port", "name", "protocol"),
    [
        ("svc/shop/web", {}, "10.96.0.1", 80, ("shop", "web", "http"), 6),
        ("svc/shop/web:http", {}, "10.96.0.1", 80, ("shop", "web", "http"), 6),
        ("svc/shop/multi:b", {}, "10.96.0.2", 2, ("shop", "multi", "b"), 6),
        ("svc/shop/multi:1", {}, "10.96.0.2", 1, ("shop", "multi", "a"), 6),
        ("svc/kube/dns", {}, "10.96.0.10", 53, ("kube", "dns", "dns"), 17),
        ("svc/kube/dns2:u", {}, "10.96.0.11", 53, ("kube", "dns2", "u"), 17),
        ("svc/kube/dns2", {"protocol": "udp"}, "10.96.0.11", 53, ("kube", "dns2", "u"), 17),
        ("svc/kube/dns2:53", {"protocol": "TCP"}, "10.96.0.11", 53, ("kube", "dns2", "t"), 6),
        ("10.96.0.1:80", {}, "10.96.0.1", 80, ("shop", "web", "http"), 6),
        ("10.96.0.1", {}, "10.96.0.1", 80, ("shop", "web", "http"), 6),
        ("10.96.0.1:81", {}, "10.96.0.1", 81, ("shop", "web", ""), 6),
        ("svc/shop/portless", {"protocol": "icmp"}, "10.96.0.5", None, ("shop", "portless", ""), 1),
    ],
)
def test_services(
    text: str, options: dict[str, str], address: str, port: int | None, name: tuple[str, str, str], protocol: int
) -> None:
    found = flow("shop/bare", text, **options)
    assert found.destination == Endpoint(A(address), port, service=name)
    assert (found.protocol, found.notes) == (protocol, ())


def test_a_port_of_two_protocols_is_tcp_with_a_note() -> None:
    found = flow("shop/bare", "svc/kube/dns2:53")
    assert found.protocol == 6
    assert found.notes == ("svc/kube/dns2:53 is a port of udp and tcp: tcp is meant, ask for another with --protocol",)


def test_nodes() -> None:
    found = flow("node/n2", "node/n1:22")
    assert found.source == Endpoint(A("172.30.0.12"), node="n2")
    assert found.destination == Endpoint(A("172.30.0.11"), 22, node="n1")
    assert flow("10.1.1.1", "172.30.0.12:30080").destination.service == ("shop", "web", "http")
    assert flow("10.1.1.1", "node/n1:30080", protocol="udp").destination.service is None


def test_host_network_pods_are_on_the_nodes_address() -> None:
    found = flow("kube-system/proxy", "shop/web-0:80")
    assert found.source == Endpoint(A("172.30.0.11"), None, ("kube-system", "proxy"), None, "n1")
    assert flow("172.30.0.11", "shop/web-0:80").source == Endpoint(A("172.30.0.11"), node="n1")


def test_addresses_that_only_a_node_knows() -> None:
    listing = [
        {
            "ifindex": 2,
            "ifname": "eth1",
            "addr_info": [
                {"family": "inet", "local": "192.168.7.7", "prefixlen": 24},
                {"family": "inet", "local": "127.0.0.9", "prefixlen": 8},
            ],
        }
    ]
    nodes = {
        "n2": NodeState(MemoryNode({"ip-addr.json": json.dumps(listing)}, "n2")),
        "broken": NodeState(MemoryNode({"ip-addr.json": "["}, "broken")),
        "n9": NodeState(MemoryNode({"ip-addr.json": json.dumps(listing).replace("7.7", "7.9")}, "n9")),
    }
    assert flow("192.168.7.7", "127.0.0.9:80", nodes).source.node == "n2"
    assert flow("192.168.7.7", "127.0.0.9:80", nodes).destination.node is None
    assert flow("node/n9", "shop/web-0:80", nodes).source == Endpoint(A("192.168.7.9"), node="n9")
    with pytest.raises(EvidenceError, match="truncated"):
        flow("node/broken", "shop/web-0:80", nodes)


def test_an_address_of_several_nodes_is_nobodys() -> None:
    listing = [{"ifname": "docker0", "addr_info": [{"family": "inet", "local": "172.17.0.1", "prefixlen": 16}]}]
    nodes = {name: NodeState(MemoryNode({"ip-addr.json": json.dumps(listing)}, name)) for name in ("n1", "n2")}
    assert flow("172.17.0.1", "shop/web-0:80", nodes).source.node is None
    assert flow("172.17.0.1", "shop/web-0:80", {"n2": nodes["n2"]}).source.node == "n2"


def test_a_services_external_address_on_a_node() -> None:
    lists = {
        **LISTS,
        "services.json": [service("shop", "web", [{"port": 80}], "10.96.0.1", externalIPs=["172.30.0.12"])],
    }
    cluster = load_cluster(MemorySource({name: json.dumps(items) for name, items in lists.items()}))
    at_port = resolve_flow("10.1.1.1", "172.30.0.12:80", cluster=cluster, nodes={}).destination
    assert at_port == Endpoint(A("172.30.0.12"), 80, service=("shop", "web", ""), node="n2")
    beside = resolve_flow("10.1.1.1", "172.30.0.12:22", cluster=cluster, nodes={}).destination
    assert beside == Endpoint(A("172.30.0.12"), 22, node="n2")


def test_external_is_an_address_that_nothing_has() -> None:
    found = flow("external", "node/n1:30080", via="n2")
    # The first half of 192.0.2.0/24 is in a network set.
    assert found.source == Endpoint(A("192.0.2.128"), external=True)
    assert found.via == "n2"
    assert found.notes == (
        "192.0.2.128, an address of a documentation range, stands for every address outside the cluster",
    )
    assert flow("shop/six", "external:443").destination == Endpoint(A("2001:db8:fffe::1"), 443, external=True)


def test_families_agree() -> None:
    assert flow("shop/web-0", "svc/shop/web").destination.address == A("10.96.0.1")
    six = flow("shop/web-0", "[fd00:96::1]:80")
    assert (six.source.address, six.destination.address) == (A("fd00:244::1"), A("fd00:96::1"))
    assert flow("shop/six", "svc/shop/web").destination.address == A("fd00:96::1")


def test_icmp() -> None:
    assert flow("shop/web-0", "shop/web-1", protocol="icmp") == Flow(
        WEB, Endpoint(A("10.244.1.2"), None, ("shop", "web-1"), None, "n2"), 1, icmp=(8, 0)
    )
    six = flow("shop/web-0", "node/n1", protocol="icmpv6")
    assert (six.protocol, six.icmp, six.destination.address) == (58, (128, 0), A("fd00:30::11"))
    assert flow("shop/web-0", "shop/web-1", protocol="47").destination.port is None


def test_an_address_in_a_pool_without_a_pod_is_noted() -> None:
    assert flow("10.244.9.9", "shop/web-0:80").notes == (
        "10.244.9.9 is in an IP pool of the cluster, and no pod of memory has it",
    )


@pytest.mark.parametrize(
    ("start", "end", "options", "message"),
    [
        ("web-0", "shop/web-1:80", {}, "'web-0' could be any of shop/web-0, bank/web-0: give the namespace"),
        ("shop/wbe-0", "shop/web-1:80", {}, r"no pod is named 'shop/wbe-0' in memory: did you mean shop/web-0"),
        ("shp/web-1", "shop/web-1:80", {}, r"did you mean shop/web-1"),
        ("shop/zzz", "shop/web-1:80", {}, r"the names there are bank/web-0, kube-system/proxy, .* and 2 more"),
        ("shop/bare", "shop/web", {}, "no pod is named 'shop/web', but a service is: write svc/shop/web"),
        ("shop/bare", "svc/web", {}, "'svc/web' could be any of svc/shop/web, svc/bank/web: give the namespace"),
        ("shop/bare", "svc/shop/wbe", {}, "no service is named 'shop/wbe' .* did you mean shop/web"),
        (
            "shop/bare",
            "svc/shop/multi",
            {},
            r"shop/multi has several ports: give one, its ports are 1/tcp \(a\), 2/tcp",
        ),
        ("shop/bare", "svc/kube/dns2", {}, "several ports"),
        ("shop/bare", "svc/shop/web:81", {}, r"has no tcp port 81: its ports are 80/tcp \(http\)"),
        ("shop/bare", "svc/shop/web:nope", {}, "has no tcp port nope"),
        ("shop/bare", "svc/kube/dns", {"protocol": "tcp"}, "has no tcp port: its ports are 53/udp"),
        ("shop/bare", "svc/shop/portless", {}, "it has no ports"),
        ("shop/bare", "svc/shop/headless", {}, "is headless .* name one, pod/shop/web-0:8080, pod/shop/web-1:8080"),
        ("shop/bare", "svc/shop/alias", {}, "is of type ExternalName"),
        ("svc/shop/web", "shop/web-0:80", {}, "opens no connections: name one of its pods: pod/shop/web-0, pod/shop"),
        ("svc/kube/dns", "shop/web-0:80", {}, "opens no connections: name a pod, a node or an address"),
        ("shop/bare", "shop/web-1", {}, "needs a port, pod shop/web-1 declares 8080, 9090: write shop/web-1:PORT"),
        ("shop/web-1", "shop/bare", {}, "pod shop/bare declares no tcp port"),
        ("shop/bare", "shop/web-0:https", {}, r"has no tcp port named 'https': it names http \(tcp 8080\)"),
        ("shop/bare", "shop/bare:x", {}, "it names none; give a number"),
        ("shop/bare", "node/n1", {}, "'node/n1' needs a port for tcp: write node/n1:PORT"),
        ("shop/bare", "node/n1:ssh", {}, "only pods and services name ports"),
        ("shop/bare", "10.9.9.9", {}, "'10.9.9.9' needs a port for tcp"),
        ("shop/six", "fd00::9", {}, r"write \[fd00::9\]:PORT"),
        ("shop/bare", "external", {}, "needs a port"),
        ("external", "external:80", {}, "both ends are outside the cluster"),
        ("shop/done", "shop/web-0", {}, r"pod shop/done has ended \(phase Succeeded\)"),
        ("shop/pending", "shop/web-0", {}, r"has no address \(phase Pending\)"),
        ("node/n3", "shop/web-0", {}, "no node is named 'n3' in memory: the nodes there are n1, n2"),
        ("shop/bare", "[fd00:96::1]:80", {}, "'shop/bare' has IPv4 addresses and '.fd00:96::1.:80' IPv6"),
        ("10.244.1.1", "fd00::1", {}, "give two ends of one address family"),
        ("shop/six", "[fd00:96::1]", {"protocol": "icmp"}, "ask for --protocol icmpv6"),
        ("shop/bare", "node/n2", {"protocol": "icmpv6"}, "ask for --protocol icmp$"),
        ("shop/bare", "shop/web-0:80", {"protocol": "icmp"}, "has a port and icmp has none: leave it out"),
        ("shop/bare:80", "shop/web-0", {"protocol": "47"}, "has a port and 47 has none"),
        ("shop/bare", "shop/web-0", {"protocol": "http"}, "'http' is no protocol: give icmp, tcp, udp"),
        ("shop/bare", "shop/web-0", {"protocol": "256"}, "number from 0 to 255"),
        ("10.1.1.1", "shop/web-0", {"via": "n3"}, "--via 'n3' is no node of memory: its nodes are n1, n2"),
        ("shop/bare", "shop/web-0", {"via": "n2"}, "--via is for sources outside the cluster"),
        ("shop/bare", "", {}, "an endpoint is empty"),
    ],
)
def test_what_cannot_be_meant(start: str, end: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        flow(start, end, **options)
    assert "\n" not in str(caught.value)


def test_names_cannot_be_looked_up_without_the_lists() -> None:
    cluster = load_cluster(MemorySource({}))
    for start, file in (("shop/web-0", "pods"), ("web-0", "pods"), ("node/n1", "nodes")):
        with pytest.raises(MissingEvidence, match=f"'{start}' cannot be looked up: cluster/{file}.json .*give the IP"):
            resolve_flow(start, "10.0.0.1:80", cluster=cluster, nodes={})
    with pytest.raises(MissingEvidence, match=r"services\.json"):
        resolve_flow("10.0.0.1", "svc/shop/web", cluster=cluster, nodes={})
    found = resolve_flow("10.0.0.1:1234", "10.0.0.2:80", cluster=cluster, nodes={})
    assert found == Flow(Endpoint(A("10.0.0.1"), 1234), Endpoint(A("10.0.0.2"), 80), 6)
    with pytest.raises(UsageError, match="knows no nodes; leave --via out"):
        resolve_flow("10.0.0.1", "10.0.0.2:80", via="n1", cluster=cluster, nodes={})


def test_a_damaged_list_is_the_reason() -> None:
    cluster = load_cluster(MemorySource({"pods.json": '{"items": ['}))
    with pytest.raises(MissingEvidence, match=r"pods\.json of memory is not complete JSON"):
        resolve_flow("shop/web-0", "10.0.0.1:80", cluster=cluster, nodes={})


def test_protocols() -> None:
    assert [parse_protocol(text) for text in (None, "tcp", "UDP", "icmpv6", "132", "0", "255")] == [
        None,
        6,
        17,
        58,
        132,
        0,
        255,
    ]
    for text in ("", "-1", "256", "0x6", "٦", "tcpp", "1" * 50):
        with pytest.raises(UsageError, match="is no protocol"):
            parse_protocol(text)


WORDS = st.sampled_from(
    ["shop/", "svc/", "node/", "pod/", "web-0", "web", "n1", ":", "80", "http", "external", "10.96.0.1", "[fd00:96::1]"]
)
RESOLVER = Resolver(load_cluster(source()), {})


@settings(max_examples=300, deadline=None)
@given(
    st.lists(WORDS, max_size=5).map("".join),
    st.lists(WORDS, max_size=5).map("".join) | st.text(max_size=10),
    st.none() | st.sampled_from(["tcp", "udp", "icmp", "icmpv6", "sctp", "47", "x"]),
)
def test_any_question_is_a_flow_or_one_clear_error(start: str, end: str, protocol: str | None) -> None:
    try:
        found = RESOLVER.resolve(start, end, protocol=protocol)
    except CalicoDebugError:
        return
    assert found.source.address.version == found.destination.address.version
    assert (found.destination.port is not None) == (found.protocol in (6, 17, 132))


def test_recorded_probes_resolve_to_their_addresses() -> None:
    for path in recorded_bundles():
        if not (path / "probes.json").exists():
            continue
        bundle = open_bundle(path)
        resolver = Resolver(load_cluster(bundle), {name: NodeState(bundle.node(name)) for name in bundle.nodes()})
        probes = json.loads((path / "probes.json").read_text())
        for probe in probes:
            bare = f"[{probe['dst_ip']}]" if ":" in probe["dst_ip"] else probe["dst_ip"]
            port = f":{probe['dport']}" if probe["proto"] in ("tcp", "udp") else ""
            protocol = "icmpv6" if probe["proto"] == "icmp" and ":" in bare else probe["proto"]
            start = probe["src_ip"] if probe["src"].startswith("host/") else probe["src"]
            found = resolver.resolve(start, bare + port, protocol=protocol)
            assert str(found.source.address) == probe["src_ip"], probe
            assert str(found.destination.address) == probe["dst_ip"]
            if not probe["src"].startswith("host/external"):
                assert found.source.node == probe["src_node"]
            words = probe["dst"].split()
            if words[0] == "pod" and not words[2:]:
                assert found.destination.pod == tuple(words[1].split("/"))
            if words[0] == "svc":
                assert found.destination.service is not None
                assert found.destination.service[:2] == tuple(words[1].split("/"))
            if words[0] == "node":
                assert found.destination.node == words[1]
