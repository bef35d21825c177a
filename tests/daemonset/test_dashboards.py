"""Grafana's dashboards: fields that Grafana knows, metrics and labels that exist, panels with a place of their own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from calico_debug.metrics.families import FAMILIES
from tests.daemonset.test_manifests import DAEMONSET, built, documents

FOLDER = DAEMONSET / "overlays" / "metrics" / "dashboards"
DASHBOARDS: dict[str, dict[str, Any]] = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.iterdir())}
WIDTH = 24
"""Columns of Grafana's grid."""


def expressions(dashboard: dict[str, Any], *, window: str = "10s") -> list[tuple[str, str]]:
    """Title and PromQL of every target, with Grafana's variables as it would fill them in."""
    filled = {"$__rate_interval": window, "$__range": "5m", "$instance": ".*"}
    found = []
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in filled.items():
                expression = expression.replace(variable, value)
            assert "$" not in expression
            found.append((panel["title"], expression))
    return found


@pytest.fixture(params=DASHBOARDS)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    return DASHBOARDS[request.param]


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_empty(one) for key, one in value.items() if one not in (None, [], {})}
    if isinstance(value, list):
        return [without_empty(one) for one in value]
    return value


def covered(part: Any, whole: Any) -> bool:
    """Whether everything of one document is in another, which may say more."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and covered(one, whole[key]) for key, one in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(covered(*pair) for pair in zip(part, whole, strict=True))
    return bool(part == whole)


def test_grafana_knows_every_field(dashboard: dict[str, Any]) -> None:
    register_default_plugins()
    read = json.loads(JSONEncoder(sort_keys=True, indent=2).encode(Dashboard.from_json(dashboard)))
    assert covered(without_empty(dashboard), read)


def test_only_metrics_and_labels_that_exist_are_asked_for(dashboard: dict[str, Any]) -> None:
    labels = {family.name: {*family.labels, "instance"} for family in FAMILIES}
    for title, expression in expressions(dashboard):
        used = re.findall(r"(calico_debug_\w+)\{([^}]*)\}", expression)
        assert used, title
        assert len(used) == len(re.findall(r"calico_debug_\w+", expression))
        for name, chosen in used:
            assert set(re.findall(r'(\w+)[!=]?[=~]"', chosen)) <= labels[name], title
        for by in re.findall(r"\bby \(([^)]*)\)", expression):
            known = set.union(*(labels[name] for name, _ in used))
            assert {one.strip() for one in by.split(",")} <= known, title


def test_a_counter_is_shown_as_a_rate(dashboard: dict[str, Any]) -> None:
    for title, expression in expressions(dashboard):
        for name in re.findall(r"calico_debug_\w+_total", expression):
            assert re.search(rf"(rate|increase)\({name}", expression), title


def test_panels_have_a_place_of_their_own(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < WIDTH
        taken |= cells


def test_what_grafana_is_given_is_what_is_shipped() -> None:
    (maps,) = (one for one in built(DAEMONSET / "overlays" / "metrics") if one["kind"] == "ConfigMap")
    assert {name: json.loads(content) for name, content in maps["data"].items()} == DASHBOARDS
    assert maps["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


def test_the_page_tells_of_every_dashboard() -> None:
    (made,) = documents(DAEMONSET / "overlays" / "metrics" / "kustomization.yaml")
    (generated,) = made["configMapGenerator"]
    assert generated["files"] == [f"dashboards/{name}" for name in sorted(DASHBOARDS, reverse=True)]
    page = (DAEMONSET.parent / "docs" / "dashboards.md").read_text(encoding="utf-8")
    for dashboard in DASHBOARDS.values():
        for panel in dashboard["panels"]:
            assert panel["title"] in page
