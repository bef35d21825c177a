"""The table of what is read, against the role that grants it and the pages that name it."""

from __future__ import annotations

from pathlib import Path

import yaml

from calico_debug.agent.cluster_resources import NAMED, RESOURCES, TIERED, Listing
from calico_debug.decode.policies import POLICY_SOURCES
from calico_debug.evidence.contents import NAMED_FILES
from tests.docs.markdown import section, tables

ROLE = Path(__file__).parents[2] / "daemonset" / "base" / "rbac.yaml"


def test_where_lists_are() -> None:
    core, grouped = Listing("", "v1", "pods"), Listing("projectcalico.org", "v3", "tiers")
    assert (core.resource, core.path) == ("pods", "/api/v1/pods")
    assert (grouped.resource, grouped.path) == ("tiers.projectcalico.org", "/apis/projectcalico.org/v3/tiers")


def test_the_role_grants_what_is_read_and_no_more() -> None:
    account, role, binding, *_ = yaml.safe_load_all(ROLE.read_text())
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    granted: dict[str, set[str]] = {}
    others = set()
    named = set()
    for rule in role["rules"]:
        if "resourceNames" in rule:
            assert rule["verbs"] == ["list"]
            named |= {(rule["apiGroups"][0], rule["resources"][0], name) for name in rule["resourceNames"]}
            continue
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                if rule["verbs"] == ["list"]:
                    granted.setdefault(group, set()).add(resource)
                else:
                    others.add((group, resource, *rule["verbs"]))
    pseudo = {f"tier.{plural}" for plural in TIERED}
    assert granted.pop("projectcalico.org") == {*RESOURCES["projectcalico.org"], *pseudo}
    assert granted == {group: set(plurals) for group, plurals in RESOURCES.items() if group != "projectcalico.org"}
    assert others == {
        ("projectcalico.org", "tiers", "get"),
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    }
    assert named == {(one.group, one.plural, one.name) for one in NAMED}
    assert {one.file: (one.resource, one.name) for one in NAMED} == NAMED_FILES
    assert not [plural for plurals in RESOURCES.values() for plural in plurals if "secret" in plural]


def test_the_page_lists_what_is_read() -> None:
    rows = tables(section("cli.md", "A live cluster"))[0]
    found = {}
    for groups_cell, plurals in rows:
        for group in groups_cell.split(", "):
            found[group.strip("`")] = tuple(plural.strip("`") for plural in plurals.split(", "))
    assert found == dict(RESOURCES)


def test_everything_a_bundle_may_hold_is_read() -> None:
    known = {
        f"{plural}.{group}.json" if group else f"{plural}.json" for group in RESOURCES for plural in RESOURCES[group]
    }
    known |= {one.file for one in NAMED}
    assert {row[0].strip("`") for row in tables(section("bundle.md", "cluster/"))[0]} <= known
    assert {file for source in POLICY_SOURCES for file in source.files} <= known
