"""From a place to evidence: bundles anywhere, this node on Linux alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from calico_debug.cli.environment import Place, Question
from calico_debug.cli.tracer import open_source, open_tracer
from calico_debug.errors import EvidenceError, UsageError


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    """A bundle with a pod and no node."""
    pod = {
        "metadata": {"namespace": "ns", "name": "pod"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
    }
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "pods.json").write_text(json.dumps({"kind": "List", "items": [pod]}))
    return str(tmp_path)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_bundle_is_read_on_any_system(bundle: str, platform: str) -> None:
    assert open_source(Place(bundle), platform).origin == bundle


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_only_linux_is_read_live(platform: str) -> None:
    with pytest.raises(EvidenceError, match=f"this system is {platform}: name a recording with --bundle"):
        open_source(Place(), platform)


def test_live_without_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calico_debug.agent.evidence", None)
    with pytest.raises(EvidenceError, match=r"install calico-debug\[agent\], or name a recording"):
        open_source(Place(), "linux")


@pytest.mark.skipif(sys.platform != "linux", reason="only a Linux node is read live")
def test_live_has_the_name_that_was_given() -> None:
    assert list(open_source(Place(node="n7"), "linux").nodes()) == ["n7"]


def test_a_bundle_needs_no_agent(bundle: str) -> None:
    script = (
        "import sys; from calico_debug.cli.environment import Place; from calico_debug.cli.tracer import open_tracer;"
        f"open_tracer(Place({bundle!r}), 'linux'); sys.exit('calico_debug.agent' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_names_are_completed_by_the_namespace(bundle: str) -> None:
    explanation = open_tracer(Place(bundle, namespace="ns"), "linux").trace(Question("pod", "10.9.9.9:80", "udp"))
    assert (explanation.source.ip, explanation.protocol, explanation.verdict) == ("10.0.0.1", "udp", "undetermined")
    with pytest.raises(UsageError, match="no pod is named 'other/pod'"):
        open_tracer(Place(bundle, namespace="other"), "linux").trace(Question("pod", "10.9.9.9:80"))
