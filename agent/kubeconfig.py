"""Which cluster to ask, and as whom: the kubeconfig habits of kubectl, or the service account of a pod.

Files are looked through here, so that an error can name the file and the entry; credentials, certificates and plugins
are then the client library's (`calico_debug.agent.apiserver`). Nothing is written to a kubeconfig.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calico_debug.errors import EvidenceError, UsageError

DEFAULT_FILE = Path(".kube/config")
"""Below the home directory."""

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its service account's token and the cluster's certificate."""

IN_CLUSTER = "this cluster"
LISTS = (("clusters", "cluster"), ("contexts", "context"), ("users", "user"))
"""The lists of a kubeconfig and the key of each entry's content."""

IMPERSONATION = frozenset({"as", "as-uid", "as-groups", "as-user-extra"})
"""Fields of a user that the client library passes over: it would ask with other rights than kubectl."""

Entries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """One cluster and one identity. ``files`` is () for a pod's service account; ``context``, ``user`` and
    ``namespace`` are "" where there is none.
    """

    server: str
    files: tuple[Path, ...] = ()
    context: str = ""
    cluster: str = ""
    user: str = ""
    namespace: str = ""
    install_hint: str = ""
    """What the user's plugin says about how to get it."""

    @property
    def origin(self) -> str:
        """The cluster, for messages."""
        return f"cluster {self.context}" if self.context else IN_CLUSTER

    @property
    def place(self) -> str:
        """Where this is written down, for messages."""
        if not self.files:
            return f"the service account in {ACCOUNT}"
        return f"context {self.context} of {os.pathsep.join(map(str, self.files))}"


def find_access(
    kubeconfig: str | None = None, context: str | None = None, variables: Mapping[str, str] = os.environ
) -> ClusterAccess | None:
    """The cluster that kubectl would ask: ``kubeconfig``, else KUBECONFIG, else ~/.kube/config, else this pod's own
    service account. None when there is none of them.

    Of several files the first that has an entry counts. Raises `UsageError` for a context that does not exist,
    `EvidenceError` for a file that is missing or damaged.
    """
    files = _files(kubeconfig, variables)
    documents = {file: _load(file) for file in files}
    entries = {name: _entries(documents, name, key) for name, key in LISTS}
    if not entries["contexts"] and not entries["clusters"]:
        if kubeconfig is not None:
            raise EvidenceError(f"{kubeconfig} has no contexts: it is not a kubeconfig, or an empty one")
        if context is not None:
            raise UsageError(f"--context {context!r}: there is no kubeconfig; name one with --kubeconfig")
        return _in_cluster(variables)
    shown = os.pathsep.join(map(str, files))
    return _access(files, entries, _chosen(context, documents, entries["contexts"], shown), shown)


def _chosen(context: str | None, documents: Mapping[Path, Mapping[str, Any]], contexts: Entries, shown: str) -> str:
    """The name of the context that is meant."""
    named = ", ".join(sorted(contexts)) or "none"
    if context is not None:
        if context not in contexts:
            raise UsageError(f"--context {context!r} is not in {shown}: it has {named}")
        return context
    current = next((text for text in (d.get("current-context") for d in documents.values()) if text), None)
    if current is None:
        raise EvidenceError(f"{shown} has no current-context: choose one with --context, it has {named}")
    if current not in contexts:
        raise EvidenceError(f"current-context {current!r} is not in {shown}: choose one with --context, it has {named}")
    return str(current)


def _access(files: Sequence[Path], entries: Mapping[str, Entries], context: str, shown: str) -> ClusterAccess:
    chosen = entries["contexts"][context]
    cluster, user = str(chosen.get("cluster") or ""), str(chosen.get("user") or "")
    if cluster not in entries["clusters"]:
        raise EvidenceError(f"context {context!r} of {shown} names cluster {cluster!r}, which is not there: correct it")
    if user and user not in entries["users"]:
        raise EvidenceError(f"context {context!r} of {shown} names user {user!r}, which is not there: log in again")
    server = entries["clusters"][cluster].get("server")
    if not isinstance(server, str) or not server.startswith(("https://", "http://")):
        raise EvidenceError(f"cluster {cluster!r} of {shown} has no server's address: correct its field server")
    account = entries["users"].get(user, {})
    if foreign := sorted(IMPERSONATION & account.keys()):
        raise EvidenceError(
            f"user {user!r} of {shown} acts as somebody else ({', '.join(foreign)}), which is not supported: choose "
            "another with --context"
        )
    plugin = account.get("exec")
    hint = plugin.get("installHint") if isinstance(plugin, dict) else None
    return ClusterAccess(
        server=server.rstrip("/"),
        files=tuple(files),
        context=context,
        cluster=cluster,
        user=user,
        namespace=str(chosen.get("namespace") or ""),
        install_hint=hint if isinstance(hint, str) else "",
    )


def _files(kubeconfig: str | None, variables: Mapping[str, str]) -> Sequence[Path]:
    if kubeconfig is not None:
        return [Path(kubeconfig).expanduser()]
    listed = variables.get("KUBECONFIG", "")
    if listed:
        wanted = [Path(text).expanduser() for text in dict.fromkeys(listed.split(os.pathsep)) if text]
        found = [path for path in wanted if path.exists()]
        if not found:
            raise EvidenceError(f"KUBECONFIG names {listed}, which is not there: correct the variable, or unset it")
        return found
    home = variables.get("HOME", "")
    default = Path(home) / DEFAULT_FILE
    return [default] if home and default.exists() else []


def _load(file: Path) -> Mapping[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise EvidenceError(
            f"cannot read kubeconfig {file}: {error.strerror}; name another with --kubeconfig"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise EvidenceError(
            f"kubeconfig {file} is not YAML{where}: correct it, or name another with --kubeconfig"
        ) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise EvidenceError(f"kubeconfig {file} is not a kubeconfig: name another with --kubeconfig")
    return document


def _entries(documents: Mapping[Path, Mapping[str, Any]], name: str, key: str) -> Entries:
    """The entries of a list by name, of several files' the first."""
    found: dict[str, Mapping[str, Any]] = {}
    for file, document in documents.items():
        listed = document.get(name) or []
        if not isinstance(listed, list):
            raise EvidenceError(f"kubeconfig {file}: {name} is not a list; correct it")
        for entry in listed:
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise EvidenceError(f"kubeconfig {file}: an entry of {name} has no name; correct it")
            content = entry.get(key) or {}
            if not isinstance(content, dict):
                raise EvidenceError(f"kubeconfig {file}: {key} of {entry['name']!r} is not an object; correct it")
            found.setdefault(entry["name"], content)
    return found


def _in_cluster(variables: Mapping[str, str]) -> ClusterAccess | None:
    host, port = variables.get("KUBERNETES_SERVICE_HOST", ""), variables.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port or not (ACCOUNT / "token").exists():
        return None
    return ClusterAccess(server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")
