"""The objects of a live cluster, as the lists of a bundle's ``cluster/``: only what is asked for, and no Secrets.

They are what ``kubectl get <plural>.<group> -A -o json`` prints, without its white space.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from calico_debug.activity import say
from calico_debug.agent.apiserver import ApiServer, Refusal, SilentServerError, UnusableServerError
from calico_debug.agent.cluster_resources import ASSUMED, NAMED, RESOURCES, SLICES, TIER_LABEL, TIERED, Listing
from calico_debug.agent.kubeconfig import ClusterAccess
from calico_debug.decode.policies import CALICO_GROUPS
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.contents import CLUSTER_FILES

PAGE = 500
"""Objects asked for at once, as kubectl does."""

MAX_PAGES = 10_000

SILENCES = 2
"""Questions without an answer after which a server is asked no more."""

FORBIDDEN, NOT_FOUND, GONE = 403, 404, 410
ROLE = "ClusterRole calico-debug (daemonset/base/rbac.yaml)"


class ClusterReader(Protocol):
    """What `calico_debug.agent.evidence.LiveSource` needs of a cluster."""

    @property
    def origin(self) -> str:
        """The cluster, for messages."""

    @property
    def namespace(self) -> str:
        """The namespace of names without one; "" when nothing says."""

    def files(self) -> Sequence[str]:
        """See `EvidenceSource.cluster_files`. Never raises: what is wrong is said by `read`."""

    def read(self, file: str) -> bytes:
        """See `EvidenceSource.read_cluster`."""


@dataclass(frozen=True, slots=True)
class UnusableCluster:
    """A cluster whose configuration cannot be used; every list says why."""

    problem: str
    origin: str = "the cluster"
    namespace: str = ""

    def files(self) -> Sequence[str]:
        """See `ClusterReader`."""
        return CLUSTER_FILES

    def read(self, file: str) -> bytes:  # noqa: ARG002 - no list can be read
        """See `ClusterReader`."""
        raise EvidenceError(self.problem)


class LiveCluster:
    """Reads lists from an API server; implements `ClusterReader`."""

    def __init__(self, access: ClusterAccess, page: int = PAGE) -> None:
        """Nothing is asked before the first list is. ``page`` is how many objects are asked for at once."""
        self._access = access
        self._page = page
        self._unusable = ""
        self._silences = 0

    @property
    def origin(self) -> str:
        """See `ClusterReader`."""
        return self._access.origin

    @property
    def namespace(self) -> str:
        """See `ClusterReader`."""
        return self._access.namespace

    @property
    def of_pod(self) -> bool:
        """Whether it is asked as the service account of the pod that this process runs in."""
        return not self._access.files

    def check(self) -> None:
        """Raise `EvidenceError` when the server cannot be asked."""
        if not self._listings:
            raise EvidenceError(self._unusable)

    def files(self) -> Sequence[str]:
        """See `ClusterReader`. Of Calico's two API groups that which users work with, where it answers."""
        return tuple(self._listings) or CLUSTER_FILES

    def read(self, file: str) -> bytes:
        """One list. Raises `MissingEvidence` when it is forbidden or not served, `EvidenceError` when it cannot be
        had for another reason.
        """
        say(f"reading cluster/{file} of {self.origin}")
        listing = self._listings.get(file)
        if self._unusable:
            raise EvidenceError(self._unusable)
        if listing is None:
            raise MissingEvidence(f"{self.origin} does not serve cluster/{file}: nothing there has such objects")
        try:
            found = self._objects(listing)
            if listing.group == CALICO_GROUPS[0] and listing.plural in TIERED and self._tiers in self._listings:
                self._ask_for_every_tier(listing)
            return _as_kubectl(found)
        except UnusableServerError as error:
            self._unusable = str(error)
            raise
        except SilentServerError as error:
            self._silences += 1
            if self._silences == SILENCES:
                self._unusable = str(error)
            raise
        except Refusal as error:
            raise _refused(listing, error, self.origin) from error

    # ------------------------------------------------------------------------------------------------- discovery

    @cached_property
    def server(self) -> ApiServer:
        """The server, as asked by this identity. Raises `EvidenceError` when its configuration cannot be used."""
        return ApiServer(self._access)

    @cached_property
    def _listings(self) -> Mapping[str, Listing]:
        """What is served, by its file name; {} when the server cannot be asked."""
        served = [*(Listing("", "v1", plural) for plural in RESOURCES[""]), *NAMED]
        unsure: list[Listing] = []
        try:
            for group, versions in self._groups().items():
                self._discover(group, versions, served, unsure)
        except EvidenceError as error:
            self._unusable = str(error)
            return {}
        found: dict[tuple[str, str], Listing] = {}
        for listing in (*served, *unsure):
            # Calico's two groups show the same objects: one of them is read.
            group = "calico" if listing.group in CALICO_GROUPS else listing.group
            found.setdefault((group, listing.plural), listing)
        if (SLICES, "endpointslices") in found:
            del found["", "endpoints"]
        return {listing.file: listing for listing in found.values()}

    def _groups(self) -> Mapping[str, Sequence[str]]:
        """The versions of each group that matters, the preferred first."""
        try:
            document = self.server.get("/apis")
        except Refusal:
            # A user without the right to discover may still have the right to list.
            return {group: (version,) for group, version in ASSUMED.items()}
        groups = document.get("groups") if isinstance(document, dict) else None
        if not isinstance(groups, list):
            raise EvidenceError(f"{self._access.server}/apis lists no API groups: check {self._access.place}")
        found = {}
        for group in groups:
            if isinstance(group, dict) and group.get("name") in RESOURCES:
                versions = [entry.get("version") for entry in group.get("versions") or () if isinstance(entry, dict)]
                found[str(group["name"])] = [version for version in versions if isinstance(version, str)]
        return {group: found[group] for group in RESOURCES if group in found}

    def _discover(self, group: str, versions: Sequence[str], served: list[Listing], unsure: list[Listing]) -> None:
        """Add the lists of a group, each in the first version that has it, to ``served``; to ``unsure`` those of a
        version that does not say what it has: reading one of them tells why.
        """
        for version in versions:
            try:
                document = self.server.get(f"/apis/{group}/{version}")
            except Refusal as error:
                if error.status != NOT_FOUND:
                    unsure.extend(Listing(group, version, plural) for plural in RESOURCES[group])
                continue
            resources = document.get("resources") if isinstance(document, dict) else None
            for entry in resources if isinstance(resources, list) else ():
                name = entry.get("name") if isinstance(entry, dict) else None
                if name in RESOURCES[group] and "list" in (entry.get("verbs") or ()):
                    served.append(Listing(group, version, name))

    # ----------------------------------------------------------------------------------------------------- lists

    def _objects(self, listing: Listing) -> list[dict[str, Any]]:
        """Every object of a list, page by page. When the server forgets a list meanwhile it is asked for at once."""
        found: list[dict[str, Any]] = []
        limit, token = self._page, ""
        for _ in range(MAX_PAGES):
            query: dict[str, str | int] = {"limit": limit} if limit else {}
            if listing.name:
                query["fieldSelector"] = f"metadata.name={listing.name}"
            if token:
                query["continue"] = token
            try:
                document = self.server.get(listing.path, query)
            except Refusal as error:
                if error.status != GONE or not token:
                    raise
                found, limit, token = [], 0, ""
                continue
            page, following = _page(document, listing)
            found.extend(page)
            if not following:
                return found
            if following == token or not page:
                break
            token = following
        raise EvidenceError(f"the list of {listing.resource} of {self.origin} does not end: try again")

    _tiers = f"tiers.{CALICO_GROUPS[0]}.json"

    def _ask_for_every_tier(self, listing: Listing) -> None:
        """Raise `MissingEvidence` when policies of some tiers are kept from this user."""
        resource = listing.resource
        try:
            names = [str(tier["metadata"]["name"]) for tier in self._objects(self._listings[self._tiers])]
            if names:
                self.server.get(listing.path, {"limit": 1, "labelSelector": f"{TIER_LABEL} in ({','.join(names)})"})
        except (KeyError, TypeError) as error:
            raise EvidenceError(f"a tier of {self.origin} has no name: policies cannot be listed completely") from error
        except Refusal as error:
            if error.status != FORBIDDEN:
                raise
            raise MissingEvidence(
                f"cannot list {resource} of every tier: forbidden ({error.message}); grant get on "
                f"tiers.{listing.group} and list on tier.{resource}, as {ROLE} does"
            ) from error


def _page(document: Any, listing: Listing) -> tuple[list[dict[str, Any]], str]:
    """The objects of one answer, each with its kind, and the token of the next page."""
    kind = document.get("kind") if isinstance(document, dict) else None
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or not isinstance(items, list | None):
        raise EvidenceError(f"the API server's answer for {listing.resource} is not a list: try again")
    own = {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List")}
    objects = [{**own, **item} for item in items or () if isinstance(item, dict)]
    metadata = document.get("metadata")
    following = metadata.get("continue") if isinstance(metadata, dict) else None
    return objects, following if isinstance(following, str) else ""


def _as_kubectl(objects: Sequence[dict[str, Any]]) -> bytes:
    """A list as kubectl prints it: keys sorted, without ``managedFields``."""
    for entry in objects:
        metadata = entry.get("metadata")
        if isinstance(metadata, dict):
            metadata.pop("managedFields", None)
    document = {"apiVersion": "v1", "items": objects, "kind": "List", "metadata": {"resourceVersion": ""}}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _refused(listing: Listing, refusal: Refusal, origin: str) -> EvidenceError:
    resource = f"{listing.resource} {listing.name}" if listing.name else listing.resource
    if refusal.status == FORBIDDEN:
        user = re.search(r'User "([^"]*)"', refusal.message)
        who = f"user {user[1]}" if user else f"these credentials ({refusal.message})"
        return MissingEvidence(
            f"cannot list {resource}: forbidden for {who}; grant list on {resource} at the cluster scope, as {ROLE} "
            "does"
        )
    if refusal.status == NOT_FOUND:
        return MissingEvidence(f"{origin} does not serve {resource}: nothing there has such objects")
    return EvidenceError(
        f"cannot list {resource}: the API server answered {refusal.status} ({refusal.message}); try again"
    )
