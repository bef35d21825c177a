"""docs/agent.md against the code."""

from __future__ import annotations

from calico_debug.agent import application, reviews, server, tls
from calico_debug.agent.capture_routes import EVENTS, SECONDS, STREAM_EVENTS, STREAM_SECONDS, STREAMS
from calico_debug.agent.captures.manager import MOST_BYTES, MOST_KEPT, MOST_RUNNING
from calico_debug.agent.captures.running import BOUNDS, CaptureLimits
from calico_debug.agent.publication import LABEL, NAME
from calico_debug.agent.reviews import AUDIENCE
from calico_debug.agent.routes import routes
from calico_debug.agent.routing import ERRORS
from calico_debug.agent.run import METRICS_PATHS
from calico_debug.agent.settings import DEFAULT_CAPTURES, DEFAULT_METRICS, DEFAULT_SOCKET, VARIABLES
from calico_debug.agent.witnessing import MOST_OBSERVATIONS
from calico_debug.capture.predictions import MOST
from calico_debug.cli.reach import MOST_NODES, RETRY_SECONDS
from calico_debug.cli.transports import CONNECT_SECONDS, RELAY, SILENCE
from calico_debug.evidence.wire import OBSERVATION_SECONDS
from tests.agent.serving import work_over
from tests.daemonset.test_manifests import OVERLAYS
from tests.docs.markdown import DOCS, code, section, tables
from tests.evidence.memory import MemorySource

TEXT = (DOCS / "agent.md").read_text(encoding="utf-8")


def test_listeners() -> None:
    (rows,) = tables(section("agent.md", "The agent"))[:1]
    assert [code(row[2]) for row in rows] == [VARIABLES[name] for name in ("socket", "listen", "metrics")]
    assert [row[3] for row in rows] == [f"`{DEFAULT_SOCKET}`", "closed", f"`{DEFAULT_METRICS}`"]
    assert rows[2][4] == ", ".join(f"`{path}`" for path in ("/metrics", "/healthz", "/readyz"))
    assert {"/metrics", "/healthz", "/readyz"} == METRICS_PATHS


def test_options() -> None:
    rows = {code(row[0]).split()[0]: code(row[1]) for row in tables(section("agent.md", "The agent"))[1]}
    others = {f"--{name.replace('_', '-')}": variable for name, variable in VARIABLES.items()}
    assert rows == {option: others[option] for option in rows}
    assert rows.keys() | {"--socket", "--listen", "--metrics"} == others.keys()
    assert f"`{AUDIENCE}`" in section("agent.md", "The agent")


def test_paths() -> None:
    table = routes(work_over(MemorySource({})))
    assert tables(section("agent.md", "Paths"))[0] == [
        (f"`{route.method} {route.path}`", route.summary, route.answer, route.role.removeprefix(f"{NAME}-"))
        for route in table
    ]


def test_errors() -> None:
    assert tables(section("agent.md", "Errors"))[0] == [(str(status), meaning) for status, meaning in ERRORS.items()]
    for _, _, reason in application.REASONS:
        assert reason in section("agent.md", "Errors")


def test_limits() -> None:
    values = [row[1] for row in tables(section("agent.md", "Limits"))[0]]
    assert values == [
        f"{application.CONCURRENT}; others get 503 at once",
        "1; they can be large",
        f"{server.CONNECTIONS}; more wait",
        f"{tls.HANDSHAKE_SECONDS:g} s",
        f"{reviews.REVIEWS}; others wait {reviews.WAIT_SECONDS:g} s, then get 503",
        f"{server.LARGEST_HEADER >> 10} KiB",
        f"{application.LARGEST_BODY >> 10} KiB",
        f"{server.REQUEST_SECONDS:g} s",
        f"{application.REQUEST_SECONDS:g} s",
        f"{server.EXCHANGE_SECONDS:g} s",
        f"{server.IDLE_SECONDS:g} s",
        f"{server.PENDING_BYTES >> 20} MiB, then making it waits",
    ]
    assert f"under way {server.GRACE_SECONDS:g} s" in TEXT


def test_limits_of_captures() -> None:
    usual = CaptureLimits()
    rows = tables(section("agent.md", "Captures"))[0]
    for name, (_, most) in BOUNDS.items():
        row = next(row for row in rows if row[0].startswith(f"`{name}`"))
        assert row[1:] == (f"{getattr(usual, name):g}" if name == "seconds" else str(getattr(usual, name)), str(most))
    assert [row[2] for row in rows[len(BOUNDS) :]] == [str(n) for n in (MOST_RUNNING, MOST_KEPT, MOST_BYTES, MOST)]
    text = section("agent.md", "Captures")
    assert DEFAULT_CAPTURES in text
    assert f"`seconds` ({SECONDS}, at most {STREAM_SECONDS}), `events` ({EVENTS}, at most {STREAM_EVENTS})" in text
    assert f"{STREAMS} streams at once" in text


def test_overlays() -> None:
    assert tuple(code(row[0]) for row in tables(section("agent.md", "On a cluster"))[0]) == OVERLAYS


def test_observations_for_others() -> None:
    said = f"An agent makes {MOST_OBSERVATIONS} observations at once, each of {OBSERVATION_SECONDS} s at most"
    assert said in section("agent.md", "Paths")


def test_limits_of_other_nodes() -> None:
    for said in (
        f"service are, {MOST_NODES} at the most",
        f"An agent is given {CONNECT_SECONDS:g} s to take a",
        f"and {SILENCE:g} s of silence",
        f"left alone for {RETRY_SECONDS:g} s",
        f"`{' '.join(RELAY)}`",
        f"`{LABEL}={NAME}`",
    ):
        assert said in TEXT, said
