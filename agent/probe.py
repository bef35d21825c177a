"""Sends a flow's packets from where the flow comes from: this node, or a pod on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from calico_debug.agent.clock import now
from calico_debug.agent.namespace_files import namespace_files
from calico_debug.errors import EvidenceError
from calico_debug.model.observation import ProbeReport

if TYPE_CHECKING:
    from calico_debug.model.observation import FlowTuple

PROTOCOLS = frozenset({1, 6, 17, 58})
"""What probes can be made of: echo requests, TCP SYN, UDP."""

SECONDS = 1.0
"""How long an answer is waited for."""
PROBES = 2
"""Packets at the most: the second when nothing has answered the first."""
_STARTING = 15.0
"""Seconds more until the process counts as stuck: importing scapy takes one, and much more on a busy node."""
LONGEST = SECONDS + _STARTING
"""Seconds that probing takes at the most."""

NO_CACHE = {"XDG_CACHE_HOME": os.devnull, "XDG_CONFIG_HOME": os.devnull}
"""scapy writes what it has read of its tables into the user's cache; here nothing is left on the node."""


def probe(flow: FlowTuple, interface: str, words: str) -> ProbeReport:
    """Send probes of a flow, behind ``interface`` of this node, or from the node itself when that is "".

    ``words`` call the place. Never raises: what went wrong is in the report.
    """
    nothing = ProbeReport(0, words, flow)
    if flow.protocol not in PROTOCOLS:
        return replace(nothing, error="only TCP, UDP and echo requests can be made: leave out --probe")
    if flow.protocol in (6, 17) and not flow.destination_port:
        return replace(nothing, error="the destination has no port: name one")
    try:
        with ExitStack() as stack:
            descriptor = None
            if interface:
                descriptor = namespace_behind(interface)
                stack.callback(os.close, descriptor)
            answer = _ask(flow, descriptor)
    except EvidenceError as error:
        return replace(nothing, error=str(error))
    if "error" in answer:
        return replace(nothing, error=f"{answer['error']} ({words})")
    ends = replace(flow, source_port=answer["source_port"])
    return ProbeReport(answer["sent"], words, ends, tuple(answer["answers"]), answer["answered_by"], at=now())


def _ask(flow: FlowTuple, descriptor: int | None) -> dict[str, Any]:
    request = {
        "parent": os.getpid(),
        "namespace": descriptor,
        "version": flow.source.version,
        "protocol": flow.protocol,
        "source": str(flow.source),
        "destination": str(flow.destination),
        "source_port": flow.source_port,
        "destination_port": flow.destination_port,
        "seconds": SECONDS,
        "probes": PROBES,
    }
    try:
        # -P: what lies in the working directory is no module of ours. -B: nothing is written beside them.
        done = subprocess.run(
            [sys.executable, "-P", "-B", "-m", "calico_debug.agent.probe_packets"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=LONGEST,
            check=False,
            env={**os.environ, **NO_CACHE},
            pass_fds=() if descriptor is None else (descriptor,),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EvidenceError(f"the process that sends probes did not finish ({error}); try again") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise EvidenceError(f"the process that sends probes failed: {said[-1] if said else done.returncode}") from None
    if not isinstance(answer, dict):
        raise EvidenceError("the process that sends probes answered in a form not understood; report it")
    return answer


def namespace_behind(interface: str) -> int:
    """A descriptor of the network namespace that the other end of ``interface`` is in. Raises `EvidenceError`.

    The kernel gives each namespace that ours has links into a number: of the namespaces that processes are in or that
    have a name, the one of that number is it.
    """
    try:
        from pyroute2 import IPRoute  # type: ignore[import-untyped]
        from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]
    except ImportError as error:
        raise EvidenceError(f"{error.name or error} is not installed: install calico-debug[agent]") from None
    try:
        with IPRoute() as kernel:
            link = next(iter(kernel.link("get", ifname=interface)))
            wanted = link.get_attr("IFLA_LINK_NETNSID")
            if wanted is None:
                raise EvidenceError(f"{interface} does not lead into another network namespace: probe from the node")
            for path in namespace_files():
                try:
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    continue  # the process ended meanwhile
                found = False
                try:
                    found = kernel.get_netnsid(fd=descriptor)["nsid"] == wanted
                except NetlinkError:
                    continue  # a name whose namespace is gone
                finally:
                    if not found:
                        os.close(descriptor)
                if found:
                    return descriptor
    except (NetlinkError, OSError, StopIteration) as error:
        raise EvidenceError(f"where {interface} leads to cannot be found ({error}); run as root on the node") from None
    raise EvidenceError(
        f"the network namespace behind {interface} is not visible: run in the host's PID namespace (hostPID: true)"
    )
