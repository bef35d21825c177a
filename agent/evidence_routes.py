"""The agent's paths to evidence: files as bundles have them, and single questions to the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from calico_debug import __version__
from calico_debug.agent.routing import (
    BYTES,
    Answer,
    Request,
    Route,
    gathered,
    json_answer,
    number_schema,
    object_schema,
)
from calico_debug.errors import CalicoDebugError, MissingEvidence, UsageError
from calico_debug.evidence import wire
from calico_debug.evidence.bpf import LiveMaps
from calico_debug.evidence.source import PointLookups

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource, NodeEvidence
    from calico_debug.model.bpf_objects import MapInfo

_NAME = {"type": "string", "minLength": 1, "maxLength": 600}
_HEX = {"type": "string", "maxLength": 32768, "pattern": "^(?:[0-9a-f]{2})*$"}
_STRINGS = {"type": "array", "items": {"type": "string"}}


def _upto(most: int) -> Mapping[str, Any]:
    return number_schema(0, most)


NETLINK = object_schema("type flags family", type=_upto(255), flags=_upto(0xFFFF), family=_upto(255), attributes=_HEX)
CONNECTION = object_schema(
    "protocol source destination",
    protocol=_upto(255),
    source=_NAME,
    destination=_NAME,
    sourcePort=_upto(65535),
    destinationPort=_upto(65535),
    icmp={"type": "array", "items": _upto(65535), "minItems": 3, "maxItems": 3},
    zone=_upto(65535),
)
LOOKUP = object_schema("key", key=_HEX)

NODES = object_schema("nodes", nodes=_STRINGS)
FILES = object_schema("files", files=_STRINGS)
SUMMARY = object_schema(
    "name origin takenAt live dataplane problem version",
    name={"type": "string"},
    origin={"type": "string"},
    takenAt={"type": "string"},
    live={"type": "boolean", "description": "whether netlink, connection, sysctl and maps can be asked"},
    dataplane={"type": "string", "description": "nftables, iptables, ebpf, or nothing"},
    problem={"type": "string", "description": "why the dataplane is not known"},
    version={"type": "string"},
)


class EvidenceHandlers:
    """One method for each route."""

    def __init__(self, source: Callable[[Request], EvidenceSource]) -> None:
        """``source`` is the evidence of a request, guarded and closed behind it."""
        self._source = source
        self._maps: dict[int, MapInfo] = {}

    def nodes(self, request: Request) -> Answer:
        """Names of nodes."""
        return json_answer({"nodes": list(self._source(request).nodes())})

    def node(self, request: Request) -> Answer:
        """A node in short."""
        from calico_debug.agent.guard import is_live
        from calico_debug.state.node import NodeState

        node = self._node(request)
        dataplane, problem = "", ""
        try:
            dataplane = NodeState(node).dataplane
        except CalicoDebugError as error:
            problem = str(error)
        return json_answer(
            {
                "name": node.name,
                "origin": node.origin,
                "takenAt": node.taken_at,
                "live": is_live(node),
                "dataplane": dataplane,
                "problem": problem,
                "version": __version__,
            }
        )

    def files(self, request: Request) -> Answer:
        """Names of a node's files."""
        return json_answer({"files": list(self._node(request).files())})

    def file(self, request: Request) -> Answer:
        """One file."""
        return Answer([self._node(request).read(request.parameters["file"])], BYTES)

    def cluster(self, request: Request) -> Answer:
        """Names of the cluster's lists."""
        return json_answer({"files": list(self._source(request).cluster_files())})

    def cluster_file(self, request: Request) -> Answer:
        """One list."""
        return Answer([self._source(request).read_cluster(request.parameters["file"])], BYTES)

    def netlink(self, request: Request) -> Answer:
        """A question to nf_tables."""
        dump = self._node(request).nftables
        if dump is None:
            raise MissingEvidence("this node is not live: read nft-ruleset.json")
        body = request.body
        if body["type"] not in wire.READ_REQUESTS or body["flags"] & ~wire.READ_FLAGS:
            raise UsageError(
                f"netlink request {body['type']} with flags {body['flags']:#x} is not one that reads: only those pass"
            )
        answers = dump(body["type"], body["flags"], body["family"], bytes.fromhex(body.get("attributes", "")))
        return Answer(gathered(wire.pack_messages(answers)), BYTES)

    def connection(self, request: Request) -> Answer:
        """A tracked connection."""
        return Answer([self._lookups(request).find_connection(wire.tuple_of(request.body))], BYTES)

    def sysctl(self, request: Request) -> Answer:
        """A kernel setting."""
        return json_answer({"value": self._lookups(request).read_sysctl(request.parameters["key"])})

    def map_lookup(self, request: Request) -> Answer:
        """One value of a map."""
        node, info = self._map(request)
        key = bytes.fromhex(request.body["key"])
        if len(key) != info.key_size:
            raise UsageError(f"a key of {len(key)} bytes does not fit map {info.name}: its keys have {info.key_size}")
        value = node.kernel_maps.lookup(info, key)
        return json_answer({"value": None if value is None else value.hex()})

    def map_entries(self, request: Request) -> Answer:
        """Every entry of a map."""
        node, info = self._map(request)
        return Answer(gathered(wire.pack_batches(node.kernel_maps.batches(info))), BYTES)

    def _node(self, request: Request) -> NodeEvidence:
        return self._source(request).node(request.parameters["node"])

    def _lookups(self, request: Request) -> PointLookups:
        node = self._node(request)
        if not isinstance(node, PointLookups):
            raise MissingEvidence("this node is not live: read its files")
        return node

    def _map(self, request: Request) -> tuple[LiveMaps, MapInfo]:
        """A map by its id. What the kernel says of it counts, not the client: sizes of buffers depend on it."""
        from calico_debug.state.bpf import BpfState

        node = self._node(request)
        if not isinstance(node, LiveMaps):
            raise MissingEvidence("this node is not live: read its dumps of maps")
        text = request.parameters["map"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1
        if number not in self._maps:
            self._maps = dict(BpfState(node).maps)
        if number not in self._maps:
            raise MissingEvidence(f"the kernel of {node.name} has no map {text[:20]}: list bpf/map-show.json again")
        return node, self._maps[number]


def evidence_routes(source: Callable[[Request], EvidenceSource]) -> tuple[Route, ...]:
    """Their table."""
    do = EvidenceHandlers(source)
    node = "/v1/nodes/{node}"
    value = object_schema("value", value={"type": ["string", "null"]})
    return (
        Route("GET", "/v1/nodes", "nodes", "Nodes that evidence exists for", "names", do.nodes, schema=NODES),
        Route("GET", node, "node", "A node in short", "name, origin, dataplane", do.node, schema=SUMMARY),
        Route("GET", f"{node}/files", "files", "Files of a node", "names as in a bundle", do.files, schema=FILES),
        Route(
            "GET",
            f"{node}/files/{{file}}",
            "file",
            "One file of a node, made now",
            "the file, verbatim",
            do.file,
            BYTES,
            large=True,
        ),
        Route(
            "POST",
            f"{node}/netlink",
            "netlink",
            "A reading question to nf_tables",
            "netlink payloads, each behind its length (32 bits, little-endian)",
            do.netlink,
            BYTES,
            body=NETLINK,
        ),
        Route(
            "POST",
            f"{node}/connection",
            "connection",
            "One tracked connection, by its tuple",
            "lines of conntrack",
            do.connection,
            BYTES,
            body=CONNECTION,
        ),
        Route(
            "GET",
            f"{node}/sysctl/{{key}}",
            "sysctl",
            "One kernel setting",
            "its value, or null",
            do.sysctl,
            schema=value,
        ),
        Route(
            "POST",
            f"{node}/maps/{{map}}/lookup",
            "mapLookup",
            "One value of an eBPF map",
            "hexadecimal, or null",
            do.map_lookup,
            schema=value,
            body=LOOKUP,
        ),
        Route(
            "GET",
            f"{node}/maps/{{map}}/entries",
            "mapEntries",
            "Every entry of an eBPF map, in batches",
            "batches: entries, CPUs, bytes of keys and of values (32 bits each), keys, values",
            do.map_entries,
            BYTES,
            statuses=(400,),
        ),
        Route("GET", "/v1/cluster", "cluster", "Lists of cluster objects", "names", do.cluster, schema=FILES),
        Route(
            "GET",
            "/v1/cluster/{file}",
            "clusterFile",
            "One list of objects",
            "the list, verbatim",
            do.cluster_file,
            BYTES,
            large=True,
        ),
    )
