"""Which cluster is meant, by the habits of kubectl; and errors that name the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from calico_debug.agent import kubeconfig as module
from calico_debug.agent.kubeconfig import find_access
from calico_debug.errors import EvidenceError, UsageError


def write(path: Path, **parts: Any) -> Path:
    """Contexts, clusters and users are given as {name: content}."""
    found: dict[str, Any] = {
        name: [{"name": one, key: content} for one, content in parts.pop(name, {}).items()]
        for name, key in (("contexts", "context"), ("clusters", "cluster"), ("users", "user"))
    }
    path.write_text(yaml.safe_dump(found | {name.replace("_", "-"): value for name, value in parts.items()}))
    return path


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write(
        tmp_path / "one",
        contexts={"a": {"cluster": "c", "user": "u", "namespace": "ns"}, "b": {"cluster": "c"}},
        clusters={"c": {"server": "https://c:6443/"}},
        users={"u": {"token": "t", "exec": {"installHint": "get it"}}},
        current_context="a",
    )


def test_the_current_context(one: Path) -> None:
    found = find_access(str(one), variables={})
    assert found is not None
    assert (found.server, found.context, found.cluster, found.user) == ("https://c:6443", "a", "c", "u")
    assert (found.namespace, found.files, found.install_hint) == ("ns", (one,), "get it")
    assert (found.origin, found.place) == ("cluster a", f"context a of {one}")


def test_another_context(one: Path) -> None:
    found = find_access(str(one), "b", {})
    assert found is not None
    assert (found.context, found.namespace, found.user) == ("b", "", "")
    with pytest.raises(UsageError, match=f"--context 'x' is not in {one}: it has a, b"):
        find_access(str(one), "x", {})


def test_where_it_is_looked_for(one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEFAULT_FILE", Path(".kube/config"))
    assert find_access(variables={}) is None
    assert find_access(variables={"HOME": str(tmp_path)}) is None
    (tmp_path / ".kube").mkdir()
    home = write(
        tmp_path / ".kube/config",
        contexts={"home": {"cluster": "h"}},
        clusters={"h": {"server": "https://h"}},
        current_context="home",
    )
    assert _context({"HOME": str(tmp_path)}) == "home"
    assert _context({"HOME": str(tmp_path), "KUBECONFIG": str(one)}) == "a"
    found = find_access(str(home), variables={"KUBECONFIG": str(one)})
    assert found is not None
    assert found.context == "home"
    with pytest.raises(EvidenceError, match="KUBECONFIG names /no/such, which is not there: correct the variable"):
        find_access(variables={"KUBECONFIG": "/no/such"})


def _context(variables: dict[str, str]) -> str:
    found = find_access(variables=variables)
    return found.context if found is not None else ""


def test_of_several_files_the_first_counts(one: Path, tmp_path: Path) -> None:
    two = write(
        tmp_path / "two",
        contexts={"a": {"cluster": "other"}, "z": {"cluster": "other", "user": "u"}},
        clusters={"other": {"server": "https://other"}, "c": {"server": "https://second"}},
        current_context="z",
    )
    for files, context, server in (((one, two), "a", "https://c:6443"), ((two, one), "z", "https://other")):
        found = find_access(variables={"KUBECONFIG": os.pathsep.join(map(str, (*files, "/no/such")))})
        assert found is not None
        assert (found.context, found.server, found.files) == (context, server, files)


def test_the_account_of_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCOUNT", tmp_path)
    variables = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert find_access(variables=variables) is None
    (tmp_path / "token").write_text("t")
    found = find_access(variables=variables)
    assert found is not None
    assert (found.server, found.files, found.namespace, found.origin) == (
        "https://10.96.0.1:443",
        (),
        "",
        "this cluster",
    )
    assert found.place == f"the service account in {tmp_path}"
    found = find_access(variables={**variables, "KUBERNETES_SERVICE_HOST": "fd00:96::1"})
    assert found is not None
    assert found.server == "https://[fd00:96::1]:443"
    with pytest.raises(UsageError, match="--context 'a': there is no kubeconfig; name one with --kubeconfig"):
        find_access(context="a", variables=variables)


def test_an_empty_kubeconfig_is_none(tmp_path: Path) -> None:
    for text in ("", "{}", "contexts: []\nclusters:\n"):
        (tmp_path / "empty").write_text(text)
        assert find_access(variables={"KUBECONFIG": str(tmp_path / "empty")}) is None
        with pytest.raises(EvidenceError, match="empty has no contexts: it is not a kubeconfig, or an empty one"):
            find_access(str(tmp_path / "empty"), variables={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"is not YAML at line 1: correct it"),
        ("\x00", "is not YAML: correct it"),
        ("- a", "is not a kubeconfig: name another"),
        ("contexts: 5", "contexts is not a list; correct it"),
        ("contexts: [5]", "an entry of contexts has no name"),
        ("contexts: [{name: a, context: 5}]", "context of 'a' is not an object"),
        ("contexts: [{name: a}]", "has no current-context: choose one with --context, it has a"),
        ("contexts: [{name: a}]\ncurrent-context: b", "current-context 'b' is not in"),
        ("contexts: [{name: a}]\ncurrent-context: a", "names cluster '', which is not there"),
        (
            "contexts: [{name: a, context: {cluster: c, user: u}}]\ncurrent-context: a\nclusters: [{name: c}]",
            "names user 'u', which is not there: log in again",
        ),
        (
            "contexts: [{name: a, context: {cluster: c}}]\ncurrent-context: a\nclusters: [{name: c}]",
            "cluster 'c' of .* has no server's address",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "damaged"
    file.write_text(text)
    with pytest.raises(EvidenceError, match=message) as caught:
        find_access(str(file), variables={})
    assert str(file) in str(caught.value)


def test_a_user_that_acts_as_somebody_else(tmp_path: Path) -> None:
    file = write(
        tmp_path / "as",
        contexts={"a": {"cluster": "c", "user": "u"}},
        clusters={"c": {"server": "https://c"}},
        users={"u": {"token": "t", "as": "viewer"}},
        current_context="a",
    )
    with pytest.raises(EvidenceError, match=r"user 'u' of .*as acts as somebody else \(as\), which is not supported"):
        find_access(str(file), variables={})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"cannot read kubeconfig .*missing: No such file"):
        find_access(str(tmp_path / "missing"), variables={})
    with pytest.raises(EvidenceError, match=r"cannot read kubeconfig .*: Is a directory"):
        find_access(str(tmp_path), variables={})
