"""docs/security.md against the code and the manifests."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from calico_debug.agent import reviews
from calico_debug.agent.publication import CERTIFICATE
from calico_debug.agent.routing import OBSERVER, READER
from calico_debug.agent.run import METRICS_PATHS, PROBES
from tests.cluster.contents import OBSERVER_ROLE, ROLE
from tests.docs.markdown import DOCS, code, section, tables

TEXT = " ".join((DOCS / "security.md").read_text(encoding="utf-8").split())


def shipped(kind: str, name: str) -> Any:
    documents = [*yaml.safe_load_all(ROLE.read_text()), *yaml.safe_load_all(OBSERVER_ROLE.read_text())]
    return next(one for one in documents if (one["kind"], one["metadata"]["name"]) == (kind, name))


def test_listeners() -> None:
    rows = {row[0]: row[3] for row in tables(section("security.md", "Who may ask what"))[0]}
    for listener in ("`--metrics`", "`--metrics` with `--metrics-auth`"):
        assert {code(path) for path in rows[listener].split(", ")} == METRICS_PATHS
    for path in PROBES:
        assert f"`{path}`" in section("security.md", "Who may ask what").partition("--metrics-auth")[2]


@pytest.mark.parametrize(("number", "name"), [(1, READER), (2, OBSERVER)])
def test_the_roles_for_callers(number: int, name: str) -> None:
    written = yaml.safe_load(section("security.md", "Tokens").split("```yaml\n")[number].split("```")[0])
    role = shipped("ClusterRole", name)
    assert (written["kind"], written["metadata"]["name"]) == (role["kind"], role["metadata"]["name"])
    assert written["rules"] == role["rules"]


def test_numbers() -> None:
    for said in (
        f"audience `{reviews.AUDIENCE}`",
        f"A yes of the API server holds for {reviews.ALLOWED_SECONDS:g} s",
        f"a no for {reviews.DENIED_SECONDS:g} s; {reviews.REMEMBERED} of each kind",
        f"works for {reviews.ALLOWED_SECONDS:g} s more",
        f"a deleted account for {reviews.ALLOWED_SECONDS + 10:g} s",
        f"After {reviews.REFUSALS} tokens of one address",
        f"not shown to it for {reviews.REFUSED_SECONDS:g} s",
        f"the path of the request behind `{reviews.PREFIX}`",
        f"`{reviews.METRICS}` is `{reviews.METRICS}`",
        CERTIFICATE,
    ):
        assert said in TEXT, said


def test_every_right_of_the_agent_is_explained() -> None:
    rows = [row[0] for row in tables(section("security.md", "Rights of the agent"))[0]]
    for kind in ("ClusterRole", "Role"):
        for rule in shipped(kind, "calico-debug")["rules"]:
            if rule["verbs"][0] in ("create", "list") and rule["resources"][0] in (
                "tokenreviews",
                "subjectaccessreviews",
                "leases",
            ):
                assert any(rule["resources"][0] in row and all(verb in row for verb in rule["verbs"]) for row in rows)
            else:
                assert set(rule["verbs"]) <= {"list", "get"}
