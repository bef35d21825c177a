"""docs/bundle.md against the readers of bundles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from calico_debug.agent.cluster_resources import RESOURCES
from calico_debug.decode.policies import CALICO_GROUPS, POLICY_SOURCES
from calico_debug.evidence.bundle import LIMITS, MEBIBYTE
from calico_debug.evidence.contents import CLUSTER_FILES, NAMED_FILES, NODE_COMMANDS
from calico_debug.evidence.manifest import API_VERSION, KIND, RULES_AFTER, RULES_BEFORE, read_manifest
from calico_debug.state.cluster import load_cluster
from tests.docs.markdown import code, section, tables


def test_files_of_a_node() -> None:
    rows = tables(section("bundle.md", "nodes/&lt;node&gt;/"))[0]
    assert [(code(file), code(command)) for file, command in rows] == list(NODE_COMMANDS.items())


def cluster_rows() -> dict[str, str]:
    return {code(file): use for file, use in tables(section("bundle.md", "cluster/"))[0]}


class Asked:
    """An evidence source that notes which lists the state looks for."""

    origin = "test"

    def __init__(self, files: tuple[str, ...]) -> None:
        self._files = files
        self.read: list[str] = []

    def nodes(self) -> tuple[str, ...]:
        return ()

    def node(self, name: str) -> object:
        raise NotImplementedError

    def cluster_files(self) -> tuple[str, ...]:
        return self._files

    def read_cluster(self, file: str) -> bytes:
        self.read.append(file)
        return json.dumps({"kind": "List", "items": []}).encode()


def test_lists_are_those_that_are_read() -> None:
    files = tuple(cluster_rows())
    source = Asked(tuple(file for file in files if file != "endpoints.json"))
    state = load_cluster(source)  # type: ignore[arg-type]
    assert state.cluster.missing == ()
    assert (state.namespaces, list(state.pools), list(state.network_sets)) == ({}, [], [])
    assert list(state.felix_configurations) == []
    assert set(source.read) == set(files) - {"endpoints.json"}
    old = Asked(("services.json", "endpoints.json"))
    assert list(load_cluster(old).services) == []  # type: ignore[arg-type]
    assert old.read == ["services.json", "endpoints.json"]


def test_settings_are_read_of_a_cluster() -> None:
    known = {f"{plural}.{group}.json" for group, plurals in RESOURCES.items() for plural in plurals}
    rows = tables(section("bundle.md", "cluster/"))[1]
    files = {code(row[0]) for row in rows}
    assert set(NAMED_FILES) < files <= known | set(NAMED_FILES)


def test_lists_that_are_asked_for_are_listed() -> None:
    rows = cluster_rows()
    assert set(CLUSTER_FILES) < set(rows)
    policies = {file: use for file, use in rows.items() if use.startswith("policies of kind ")}
    assert policies == {source.files[0]: f"policies of kind {source.kind}" for source in POLICY_SOURCES}


def test_groups() -> None:
    text = section("bundle.md", "cluster/")
    first, second = CALICO_GROUPS
    assert f"Objects of group `{first}` may as well be those of `{second}`" in text


def test_manifest() -> None:
    rows = dict(tables(section("bundle.md", "manifest.json"))[0])
    assert (code(rows["`apiVersion`"]), code(rows["`kind`"])) == (API_VERSION, KIND)
    given: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "takenAt": "2026-01-01T00:00:00Z",
        "tool": "by hand",
        "nodes": {"n": {"rulesBefore": 1, "rulesAfter": 2}},
        "files": {"nodes/n/ip-addr.json": {"status": "no such command", "takenAt": "2026-01-01T00:00:01Z"}},
        "redactions": ["secrets"],
        "replaced": ["addresses"],
    }
    assert list(given) == [code(name) for name in rows]
    manifest = read_manifest(json.dumps(given).encode())
    assert manifest.notes == ()
    assert (manifest.taken_at, manifest.tool, manifest.redactions) == ("2026-01-01T00:00:00Z", "by hand", ("secrets",))
    assert (manifest.nodes, manifest.replaced) == (given["nodes"], ("addresses",))
    assert set(given["nodes"]["n"]) == {RULES_BEFORE, RULES_AFTER}
    assert manifest.files["nodes/n/ip-addr.json"].error == "no such command"


def test_limits() -> None:
    numbers = [int(number) for number in re.findall(r"\d+", section("bundle.md", "Limits"))]
    assert numbers == [LIMITS.file // MEBIBYTE, LIMITS.total // MEBIBYTE, LIMITS.members]


def test_commands_by_hand_write_files_of_the_tables() -> None:
    text = section("bundle.md", "By hand")
    made = re.findall(r"^(.+?) > bundle/(\S+)$", text, re.MULTILINE)
    assert len(made) >= 9
    for command, path in made:
        file = Path(path).name
        if path.startswith("cluster/"):
            assert file in CLUSTER_FILES
            assert command == f"kubectl get {file.removesuffix('.json')} -A -o json"
        else:
            assert command == NODE_COMMANDS[file]
