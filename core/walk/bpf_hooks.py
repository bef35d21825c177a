"""Which programs of Calico's run at the interfaces of one node, and how they are set."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.model.bpf import TcGlobals
from calico_debug.model.bpf_words import GLOBAL_FLAGS, names_of_bits
from calico_debug.state.bpf_checks import running_order
from calico_debug.walk.bpf_outcomes import XDP
from calico_debug.walk.packet import TCP, UDP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calico_debug.model.bpf import InterfaceState
    from calico_debug.model.bpf_objects import Attachment
    from calico_debug.state.bpf_lookups import BpfLookups
    from calico_debug.state.node import NodeState


class InterfaceHooks:
    """Interfaces as their programs see them."""

    def __init__(self, state: NodeState, lookups: BpfLookups) -> None:
        """Nothing is read before a packet needs it."""
        self._state = state
        self._lookups = lookups
        self._attached: dict[tuple[str, str], Attachment | None] = {}
        self._connected: dict[tuple[int, int], bool] = {}

    def attachment(self, interface: str, hook: str) -> Attachment | None:
        """Calico's program at a tc hook of the interface, the first if there are several; None without one."""
        key = (interface, hook)
        if key not in self._attached:
            self._attached[key] = next(iter(running_order(self._state.bpf.calico_attachments(interface), hook)), None)
        return self._attached[key]

    def attached(self, interface: str, hook: str) -> bool:
        """Whether a program of Calico's runs at a tc hook of the interface."""
        return self.attachment(interface, hook) is not None

    def xdp(self, interface: str) -> Attachment | None:
        """Calico's XDP program at the interface, as untracked policy of a host endpoint needs; None without one."""
        key = (interface, XDP)
        if key not in self._attached:
            attached = self._state.bpf.calico_attachments(interface)
            self._attached[key] = next((one for one in attached if one.mechanism == "xdp"), None)
        return self._attached[key]

    def translates_at_connect(self, family: int, protocol: int) -> bool:
        """Whether processes, pods' too, are connected to a service's backend by programs at the cgroups' root.

        Source: felix/bpf/nat/connecttime.go, installCTLB: connect is always attached, and sendmsg where UDP is not left
        out. IPv6 is translated when what is attached leads to a program that has the IPv6 services.
        """
        key = (family, protocol)
        if key not in self._connected:
            call = {TCP: "connect", UDP: "sendmsg"}.get(protocol)
            services = self._state.bpf.map(Role.NAT_FRONTENDS, family) if call else None
            reach = self._state.bpf.reach
            self._connected[key] = services is not None and any(
                one.mechanism == "cgroup"
                and one.hook == f"{call}{family}"
                and services.info.id in reach.by_attachment[one]
                for one in reach.attachments
            )
        return self._connected[key]

    def index(self, name: str) -> int | None:
        """The interface's number."""
        link = self._state.interfaces.get(name)
        return link.index if link is not None else None

    def interface(self, name: str) -> InterfaceState | None:
        """What the programs know of an interface."""
        index = self.index(name)
        return self._lookups.interfaces.get(index) if index is not None else None

    def is_workload(self, name: str) -> bool:
        """Whether a pod is behind the interface."""
        known = self.interface(name)
        return known is not None and known.workload

    def is_service_device(self, name: str) -> bool:
        """Whether it is the device that the host's own packets to services are routed to (bpfin.cali)."""
        return self.index(name) in self._service_devices

    def behind_service_device(self, name: str) -> str:
        """The device at its other end (bpfout.cali), whose program translates what the host sends; "" without one."""
        number = self._service_devices.get(self.index(name) or 0)
        return next((link.name for link in self._state.interfaces.values() if link.index == number), "")

    @cached_property
    def _service_devices(self) -> Mapping[int, int]:
        """The number of each service device, with that of its other end."""
        reach = self._state.bpf.reach
        return {
            settings.nat_in_ifindex: settings.nat_out_ifindex
            for attachment in reach.attachments
            for settings in reach.globals(attachment.program_id).values()
            if isinstance(settings, TcGlobals) and settings.nat_in_ifindex
        }

    def settings(self, interface: str, hook: str, family: int) -> TcGlobals | None:
        """The settings of the program at a hook."""
        attachment = self.attachment(interface, hook)
        found = self._state.bpf.reach.globals(attachment.program_id).get(family) if attachment else None
        return found if isinstance(found, TcGlobals) else None

    def words(self, interface: str, hook: str, family: int) -> tuple[str, ...]:
        """Words for the flags of the program at a hook."""
        found = self.settings(interface, hook, family)
        return names_of_bits(found.flags, GLOBAL_FLAGS) if found is not None else ()
