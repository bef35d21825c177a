"""Draws the dashboards as docs/ shows them (``make pictures``): the numbers are real, the drawing is not Grafana's.

A lab's node under traffic and a recorded eBPF node are scraped by a real Prometheus for a minute; then every panel is
drawn from what Prometheus answers to the panel's expression, at the panel's place in the grid.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from matplotlib import pyplot as plt

from tests.daemonset.scraped import METRICS, Prometheus, scraped_node
from tests.daemonset.test_dashboards import DASHBOARDS, WIDTH, expressions
from tests.docs.markdown import DOCS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tests.lab.lab import Lab

FOLDER = DOCS / "pictures"
SECONDS = 60
ROW, COLUMN = 0.42, 0.62
"""Inches of a cell of the grid."""
PAPER, INK, FAINT = "#181b1f", "#d0d3da", "#2c3036"
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#b877d9", "#f2495c", "#8ab8ff", "#fade2a")
ROWS = 8
"""Most rows of a table that are drawn."""
UNITS = {"pps": "p/s", "s": "s", "short": "", "percentunit": ""}


def traffic(lab: Lab, seconds: float) -> None:
    """Some flows that policy allows, more and more that it denies by a rule, and a few that nothing allows."""
    end, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turn += 1
        flows = [lab.flow("red/cli1", "red/web1", "tcp", 80) for _ in range(3 + turn % 3)]
        flows += [lab.flow("red/cli1", "red/web1", "udp", 5353) for _ in range(min(turn // 8, 6))]
        flows += [lab.flow("red/cli1", "red/web1", "udp", 53)] * (turn % 4 == 0)
        lab.send_all(flows)


def number(value: float, unit: str) -> str:
    """As short as a reader wants it."""
    return f"{value:.1%}" if unit == "percentunit" else f"{value:.3g} {UNITS.get(unit, unit)}".strip()


def legend(template: str, labels: dict[str, str]) -> str:
    """Grafana's legend: names in double braces; a label that is missing is empty."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template).strip()


def draw_lines(axes: Axes, panel: dict[str, Any], expression: str, prometheus: Prometheus) -> None:
    """A panel of kind timeseries."""
    now = time.time()
    found = prometheus.ask("query_range", query=expression, start=str(now - SECONDS), end=str(now), step="1")["result"]
    found.sort(key=lambda one: -float(one["values"][-1][1]))
    for colour, one in zip(COLOURS, found, strict=False):
        times, values = zip(*((at - now, float(value)) for at, value in one["values"]), strict=True)
        name = legend(panel["targets"][0]["legendFormat"], one["metric"])
        axes.plot(times, values, color=colour, linewidth=1.2, label=name)
    axes.set_ylim(bottom=0)
    axes.tick_params(colors=INK, labelsize=6, length=0)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:.0f} s")
    axes.yaxis.set_major_formatter(lambda value, _: number(value, panel["fieldConfig"]["defaults"]["unit"]))
    axes.legend(loc="upper left", fontsize=6, labelcolor=INK, facecolor=PAPER, edgecolor=FAINT, ncols=2)


def draw_table(axes: Axes, panel: dict[str, Any], expression: str, prometheus: Prometheus) -> None:
    """A panel of kind table, the largest first."""
    found = sorted(prometheus.query(expression), key=lambda one: -one[1])[:ROWS]
    names = sorted({name for labels, _ in found for name in labels})
    unit = panel["fieldConfig"]["defaults"]["unit"]
    rows = [[*(labels.get(name, "") for name in names), number(value, unit)] for labels, value in found]
    shown = panel["transformations"][0]["options"]["renameByName"]["Value"]
    drawn = axes.table(cellText=rows, colLabels=[*names, shown], loc="upper center", cellLoc="left")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(6)
    for (row, _), cell in drawn.get_celld().items():
        cell.set(facecolor=PAPER, edgecolor=FAINT)
        cell.get_text().set(color=INK, weight="bold" if row == 0 else "normal")
    axes.set_axis_off()


def draw_stat(axes: Axes, panel: dict[str, Any], expression: str, prometheus: Prometheus) -> None:
    """A panel of kind stat: one number, red beyond its threshold."""
    ((_, value),) = prometheus.query(expression)
    limits = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"] if step["value"]]
    colour = COLOURS[5] if any(value >= limit for limit in limits) else COLOURS[0]
    text = number(value, panel["fieldConfig"]["defaults"]["unit"])
    axes.text(0.5, 0.4, text, color=colour, fontsize=20, ha="center", va="center")
    axes.set_axis_off()


KINDS = {"timeseries": draw_lines, "table": draw_table, "stat": draw_stat}


def draw(dashboard: dict[str, Any], prometheus: Prometheus, path: Path) -> None:
    """One dashboard to one file."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = plt.figure(figsize=(WIDTH * COLUMN, height * ROW), facecolor="#0d0f12")
    for panel, (title, expression) in zip(dashboard["panels"], expressions(dashboard), strict=True):
        at = panel["gridPos"]
        left, bottom = (at["x"] + 0.7) / WIDTH, 1 - (at["y"] + at["h"] - 0.7) / height
        axes = figure.add_axes((left, bottom, (at["w"] - 1.2) / WIDTH, (at["h"] - 1.6) / height), facecolor=PAPER)
        axes.set_title(title, color=INK, fontsize=8, loc="left")
        for spine in axes.spines.values():
            spine.set_color(FAINT)
        KINDS[panel["type"]](axes, panel, expression, prometheus)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Draw every dashboard."""
    FOLDER.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder, scraped_node(Path(folder)) as (lab, prometheus):
        traffic(lab, SECONDS)
        for name, dashboard in DASHBOARDS.items():
            path = FOLDER / f"dashboard-{name.removesuffix('.json')}.png"
            draw(dashboard, prometheus, path)
            sys.stdout.write(f"{path.name}: from 127.0.0.1:{METRICS} of a lab's node, and a recorded eBPF node\n")


if __name__ == "__main__":
    main()
