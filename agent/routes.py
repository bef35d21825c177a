"""Every path of the agent: evidence as bundles have it, single questions to the kernel, traces, counters, health."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from calico_debug import __version__
from calico_debug.agent.capture_routes import CaptureHandlers, OpenWatch, capture_routes
from calico_debug.agent.openapi import describe
from calico_debug.agent.progress import told
from calico_debug.agent.routing import BYTES, LINES, TEXT, Answer, Request, Route, gathered
from calico_debug.agent.routing import object_schema as _object
from calico_debug.agent.witnessing import witness_routes
from calico_debug.errors import CalicoDebugError, MissingEvidence, UsageError
from calico_debug.evidence import wire
from calico_debug.evidence.bpf import LiveMaps
from calico_debug.evidence.source import PointLookups
from calico_debug.model.explanation import API_VERSION

if TYPE_CHECKING:
    from calico_debug.agent.captures.manager import Captures
    from calico_debug.evidence.source import EvidenceSource, NodeEvidence
    from calico_debug.model.bpf_objects import MapInfo
    from calico_debug.model.flow import Flow
    from calico_debug.state.resolve import Resolver

PLAIN = "text/plain; charset=utf-8"

_TEXT = {"type": "string", "maxLength": 1024}
_NAME = {"type": "string", "minLength": 1, "maxLength": 600}
_HEX = {"type": "string", "maxLength": 32768, "pattern": "^(?:[0-9a-f]{2})*$"}
_STRINGS = {"type": "array", "items": {"type": "string"}}


def _number(most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, "maximum": most}


_WANTED = {"type": "string", "maxLength": 7, "pattern": "^(allowed|denied)$"}
TRACE = _object(
    "from to",
    **{"from": _NAME, "to": _NAME, "protocol": _TEXT, "via": _TEXT, "namespace": _TEXT, "want": _WANTED},
)
NETLINK = _object("type flags family", type=_number(255), flags=_number(0xFFFF), family=_number(255), attributes=_HEX)
CONNECTION = _object(
    "protocol source destination",
    protocol=_number(255),
    source=_NAME,
    destination=_NAME,
    sourcePort=_number(65535),
    destinationPort=_number(65535),
    icmp={"type": "array", "items": _number(65535), "minItems": 3, "maxItems": 3},
    zone=_number(65535),
)
LOOKUP = _object("key", key=_HEX)

NODES = _object("nodes", nodes=_STRINGS)
FILES = _object("files", files=_STRINGS)
SUMMARY = _object(
    "name origin takenAt live dataplane problem version",
    name={"type": "string"},
    origin={"type": "string"},
    takenAt={"type": "string"},
    live={"type": "boolean", "description": "whether netlink, connection, sysctl and maps can be asked"},
    dataplane={"type": "string", "description": "nftables, iptables, ebpf, or nothing"},
    problem={"type": "string", "description": "why the dataplane is not known"},
    version={"type": "string"},
)
COUNTERS = _object(
    "apiVersion kind counters",
    apiVersion={"const": API_VERSION},
    kind={"const": "Counters"},
    counters={
        "type": "array",
        "items": _object(
            "name labels value",
            name={"type": "string"},
            labels={"type": "object", "additionalProperties": {"type": "string"}},
            value={"type": "number"},
        ),
    },
)


@dataclass(frozen=True, slots=True)
class Work:
    """What the paths are answered from. ``source`` is the evidence of the request, guarded and closed behind it.

    ``metrics`` gives the page of metrics, ``counters`` its samples as (name, labels, value); ``ready`` is "" or what is
    missing. ``captures`` are those of the agent, ``open_watch`` watches packets; where they are None nothing does.
    """

    source: Callable[[Request], EvidenceSource]
    metrics: Callable[[], bytes]
    counters: Callable[[], Iterable[tuple[str, Mapping[str, str], float]]]
    ready: Callable[[], str]
    captures: Captures | None = None
    open_watch: OpenWatch | None = None


class Handlers:
    """One method for each route."""

    def __init__(self, work: Work) -> None:
        """Answer from ``work``."""
        self._work = work
        self._maps: dict[int, MapInfo] = {}
        self.description: bytes = b""

    # ----------------------------------------------------------------------------------------------------- the agent

    def healthz(self, _request: Request) -> Answer:
        """The process answers."""
        return Answer([b"ok\n"], PLAIN)

    def readyz(self, _request: Request) -> Answer:
        """The node can be read."""
        missing = self._work.ready()
        return Answer([f"{missing or 'ok'}\n".encode()], PLAIN, 503 if missing else 200)

    def metrics(self, _request: Request) -> Answer:
        """The page for Prometheus."""
        return Answer([self._work.metrics()], TEXT)

    def openapi(self, _request: Request) -> Answer:
        """The description."""
        return Answer([self.description])

    def counters(self, _request: Request) -> Answer:
        """The counters as a document."""
        listed = [{"name": n, "labels": dict(labels), "value": value} for n, labels, value in self._work.counters()]
        return _json({"apiVersion": API_VERSION, "kind": "Counters", "counters": listed})

    # ------------------------------------------------------------------------------------------------------ evidence

    def nodes(self, request: Request) -> Answer:
        """Names of nodes."""
        return _json({"nodes": list(self._work.source(request).nodes())})

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
        return _json(
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
        return _json({"files": list(self._node(request).files())})

    def file(self, request: Request) -> Answer:
        """One file."""
        return Answer([self._node(request).read(request.parameters["file"])], BYTES)

    def cluster(self, request: Request) -> Answer:
        """Names of the cluster's lists."""
        return _json({"files": list(self._work.source(request).cluster_files())})

    def cluster_file(self, request: Request) -> Answer:
        """One list."""
        return Answer([self._work.source(request).read_cluster(request.parameters["file"])], BYTES)

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
        return _json({"value": self._lookups(request).read_sysctl(request.parameters["key"])})

    def map_lookup(self, request: Request) -> Answer:
        """One value of a map."""
        node, info = self._map(request)
        key = bytes.fromhex(request.body["key"])
        if len(key) != info.key_size:
            raise UsageError(f"a key of {len(key)} bytes does not fit map {info.name}: its keys have {info.key_size}")
        value = node.kernel_maps.lookup(info, key)
        return _json({"value": None if value is None else value.hex()})

    def map_entries(self, request: Request) -> Answer:
        """Every entry of a map."""
        node, info = self._map(request)
        return Answer(gathered(wire.pack_batches(node.kernel_maps.batches(info))), BYTES)

    def trace(self, request: Request) -> Answer:
        """The explanation of a flow, with advice for the verdict that is wanted, if any is."""
        from calico_debug.advice.words import Advisor
        from calico_debug.explain.document import to_document
        from calico_debug.explain.engine import Engine
        from calico_debug.explain.settled import explain_settled

        body = request.body

        def resolve(resolver: Resolver) -> Flow:
            return resolver.resolve(
                body["from"],
                body["to"],
                protocol=body.get("protocol"),
                namespace=body.get("namespace"),
                via=body.get("via"),
            )

        source = self._work.source(request)

        def work() -> Mapping[str, Any]:
            engine, flow, explanation = explain_settled(Engine(source), resolve)
            if wanted := body.get("want"):
                explanation = replace(explanation, advice=Advisor(engine.cluster).advice(flow, explanation, wanted))
            return to_document(explanation)

        return Answer(told(request, work, "/v1/trace"), LINES) if request.accepts(LINES) else _json(work())

    # ----------------------------------------------------------------------------------------------------- internals

    def _node(self, request: Request) -> NodeEvidence:
        return self._work.source(request).node(request.parameters["node"])

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


def routes(work: Work) -> tuple[Route, ...]:
    """The table of routes; docs/agent.md has the same, and the description is made from it."""
    do = Handlers(work)
    node = "/v1/nodes/{node}"
    value = _object("value", value={"type": ["string", "null"]})
    found = (
        Route("GET", "/healthz", "healthz", "Is the process alive", "ok", do.healthz, PLAIN, light=True, role=""),
        Route(
            "GET",
            "/readyz",
            "readyz",
            "Can the node be read",
            "ok, else with 503 what is missing",
            do.readyz,
            PLAIN,
            light=True,
            statuses=(503,),
            role="",
        ),
        Route(
            "GET",
            "/metrics",
            "metrics",
            "Metrics for Prometheus",
            "text format 0.0.4",
            do.metrics,
            TEXT,
            light=True,
            role="",
        ),
        Route(
            "GET",
            "/v1/openapi.json",
            "openapi",
            "This description",
            "an OpenAPI 3.1 document",
            do.openapi,
            schema={"type": "object"},
            light=True,
        ),
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
        Route(
            "POST",
            "/v1/trace",
            "trace",
            "Explain a flow",
            "a FlowExplanation (json.md); to `Accept: application/jsonl` behind lines that say what is done",
            do.trace,
            schema={"$ref": "#/components/schemas/flowExplanation"},
            body=TRACE,
        ),
        Route(
            "GET",
            "/v1/counters",
            "counters",
            "The samples of /metrics as JSON",
            "names, labels, values",
            do.counters,
            schema=COUNTERS,
        ),
        *capture_routes(CaptureHandlers(work.captures, work.open_watch)),
        *witness_routes(work.source),
    )
    do.description = json.dumps(describe(found)).encode()
    return found


def _json(document: object) -> Answer:
    return Answer([json.dumps(document).encode()])
