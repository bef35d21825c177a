"""The interface that every source of evidence implements: bundles here, live nodes in `calico_debug.agent`.

File names are those of contract 1 (docs/bundle.md): a live source runs the command that the bundle's file was made
with and returns its output, so that everything behind this interface is one piece of code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from calico_debug.model.conntrack import Tuple


class NetlinkDump(Protocol):
    """Asks the kernel's nf_tables over netlink. Only bytes pass: building and decoding messages is the decoder's."""

    def __call__(self, message_type: int, flags: int, family: int, attributes: bytes) -> Iterable[bytes]:
        """Send one request and return the answers, each one netlink payload behind the ``nlmsghdr``.

        ``message_type`` is an NFT_MSG_… number without the subsystem, ``family`` an NFPROTO_… number, ``attributes``
        the encoded attributes behind the ``nfgenmsg``. Each answer starts with its ``nfgenmsg``. Raises
        `calico_debug.errors.EvidenceError` when the kernel refuses; an ENOENT of the kernel gives an empty answer.
        """


class NodeEvidence(Protocol):
    """What one node holds."""

    @property
    def name(self) -> str:
        """The node's name."""

    @property
    def origin(self) -> str:
        """Where this evidence is from, for messages: a path in a bundle, or "this node"."""

    @property
    def taken_at(self) -> str:
        """When it was taken, RFC 3339 UTC; "" when nobody wrote that down."""

    @property
    def nftables(self) -> NetlinkDump | None:
        """Direct access to the node's nf_tables; None for a bundle, which has ``nft-ruleset.json`` instead."""

    def files(self) -> Sequence[str]:
        """The names that `read` can be asked for with hope of success."""

    def read(self, file: str) -> bytes:
        """The verbatim content. Raises `calico_debug.errors.MissingEvidence` naming file, node and remedy."""


@runtime_checkable
class PointLookups(Protocol):
    """What a live `NodeEvidence` also offers, so that one flow costs one lookup and not a whole table."""

    def find_connection(self, wanted: Tuple) -> bytes:
        """Lines of ``conntrack.txt`` among which is the connection that has ``wanted`` as one of its directions; b""
        when conntrack has none. Raises `calico_debug.errors.EvidenceError`.
        """

    def read_sysctl(self, key: str) -> str | None:
        """The value of one sysctl, None when this kernel has none of that name."""


@runtime_checkable
class Recorded(Protocol):
    """What a `NodeEvidence` that was recorded also tells."""

    @property
    def rules_changed(self) -> bool:
        """Whether the node's rules changed while its files were recorded one after the other."""

    @property
    def addresses_replaced(self) -> bool:
        """Whether addresses in it stand for others, so that no digest of them is what the kernel computed."""


@runtime_checkable
class Reaching(Protocol):
    """What an `EvidenceSource` that asks other machines also tells."""

    def absence(self, node: str) -> str:
        """Why there is no evidence of a node, and what to do; "" when nobody tried to get any."""


class EvidenceSource(Protocol):
    """A bundle, or what can be reached live."""

    @property
    def origin(self) -> str:
        """What the user named: a path, or "this node"."""

    def nodes(self) -> Sequence[str]:
        """Names of the nodes that evidence exists for."""

    def node(self, name: str) -> NodeEvidence:
        """One node. Raises `calico_debug.errors.MissingEvidence` when there is no evidence for it."""

    def cluster_files(self) -> Sequence[str]:
        """Names of the cluster object lists, ``<plural>.<group>.json``."""

    def read_cluster(self, file: str) -> bytes:
        """The verbatim content. Raises `calico_debug.errors.MissingEvidence`."""
