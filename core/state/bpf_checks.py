"""What is wrong with the programs of a node's interfaces: not attached, not loaded, others than Felix tells of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.decode.bpf_layouts_node import COUNTERS_NEEDED
from calico_debug.model.bpf import InterfaceState
from calico_debug.model.bpf_objects import Attachment
from calico_debug.model.explanation import Finding
from calico_debug.state.bpf import BpfState
from calico_debug.state.bpf_lookups import BpfLookups
from calico_debug.state.bpf_programs import PolicyPrograms

HOOKS = {"ingress": 0, "egress": 1}
"""tc hooks and their numbers in the counters' keys."""

UNATTACHED = frozenset({"not-managed", "bond-slave"})
"""Flags of interfaces that Felix attaches nothing to; of a bond, the master has the programs."""

POD_DIRECTIONS = {"ingress": "egress", "egress": "ingress"}
"""The pod's direction of a tc hook of its interface."""


RUNNING_ORDER: Mapping[str, tuple[str, ...]] = {
    "ingress": ("netkit", "tcx", "clsact"),
    "egress": ("tcx", "clsact", "netkit"),
}
"""Mechanisms in the order in which the kernel runs their programs (Linux net/core/dev.c, sch_handle_ingress and
sch_handle_egress; drivers/net/netkit.c, netkit_xmit).
"""


def running_order(attachments: Iterable[Attachment], hook: str) -> Sequence[Attachment]:
    """The programs at a tc hook of one interface, first the one that runs first."""
    order = RUNNING_ORDER.get(hook, ())
    found = [one for one in attachments if one.hook == hook and one.mechanism in order]
    return sorted(found, key=lambda one: (order.index(one.mechanism), one.position))


def check_interfaces(state: BpfState, lookups: BpfLookups) -> Iterator[Finding]:
    """One finding for each thing that is wrong. Raises `calico_debug.errors.EvidenceError` when the maps cannot be
    read.
    """
    counters = state.map(Role.COUNTERS)
    needed = counters is not None and counters.layout.version >= COUNTERS_NEEDED
    for interface in sorted(lookups.interfaces.values(), key=lambda one: one.ifindex):
        if UNATTACHED.intersection(interface.flag_words):
            continue
        attached = state.calico_attachments(interface.name)
        for hook, number in HOOKS.items():
            where = f"{interface.name} on {state.name}, {_direction(interface, hook)}"
            running = running_order(attached, hook)
            if not running:
                yield _without_program(interface, where)
                continue
            attachment = running[0]
            if len(running) > 1:
                yield _several(running, where)
            if needed and lookups.counters(interface.ifindex, number) is None:
                yield Finding(
                    "bpf-no-counters",
                    "error",
                    f"{where}: there is no entry for its counters, so the program drops every packet; restart "
                    "calico-node on that node",
                )
            for family in state.reach.families(attachment):
                yield from _policy(state.reach.policy(attachment, family), interface, where)


def _direction(interface: InterfaceState, hook: str) -> str:
    return POD_DIRECTIONS[hook] if interface.workload else hook


def _without_program(interface: InterfaceState, where: str) -> Finding:
    return Finding(
        "bpf-no-program",
        "error" if interface.workload else "warning",
        f"{where}: Calico's program is not attached, so no policy is applied there; look at the log of "
        "calico-node, and for another program that replaced it",
    )


def _several(running: Sequence[Attachment], where: str) -> Finding:
    means = " and ".join(one.mechanism for one in running)
    return Finding(
        "bpf-attached-twice",
        "warning",
        f"{where}: programs of Calico's are attached by {means}, and run in that order, the first one deciding; "
        "Felix is changing BPFAttachType, or failed to remove what was there: look at the log of calico-node",
    )


def _policy(policy: PolicyPrograms, interface: InterfaceState, where: str) -> Iterator[Finding]:
    where = f"{where}, IPv{policy.family}"
    if interface.workload and policy.placeholder:
        yield Finding(
            "bpf-policy-not-loaded",
            "warning",
            f"{where}: the policy is not loaded yet, and until then everything is "
            f"{'denied' if policy.placeholder == 'deny' else 'allowed'}; look at the log of calico-node",
        )
    if interface.workload and not policy.programs and not policy.problem:
        yield Finding(
            "bpf-policy-missing",
            "error",
            f"{where}: the place of its policy program is empty, so everything is dropped; look at the log of "
            "calico-node",
        )
    told = interface.policy_index(policy.attachment.hook, policy.family, policy.joint)
    if policy.index is not None and told not in (-1, policy.index):
        yield Finding(
            "bpf-policy-differs",
            "warning",
            f"{where}: the attached program jumps to policy {policy.index}, Felix has noted {told}; Felix is "
            "reprogramming the interface, or failed to",
        )
