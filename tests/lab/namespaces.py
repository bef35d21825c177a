"""Network namespaces: made under unique names, entered by the calling thread, always deleted.

Sockets belong to the namespace they were created in, whoever holds them later, so one process can drive a whole
cluster: it enters a namespace for the moment of creating a socket or running ``ip`` and ``nft``, and comes back.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PREFIX = "cdlab"
NETNS_DIRECTORY = Path("/run/netns")
CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
RTMGRP_IPV6_ROUTE = 0x400  # include/uapi/linux/rtnetlink.h
RTF_LOCAL = 0x80000000  # include/uapi/linux/ipv6_route.h
RUN_TIMEOUT = 60.0

_PROBE = """add table ip t
add chain ip t c { type filter hook forward priority 0; }
add rule ip t c ct state new counter
"""
_numbers = itertools.count(1)
_OURS = re.compile(rf"{PREFIX}(\d+)-\d+-")


class LabError(Exception):
    """A command of the lab failed; the message has the namespace, the command and what it printed."""


@functools.cache
def supported() -> str:
    """ "" when this machine can run the lab, else the precise reason why it cannot."""
    if not sys.platform.startswith("linux"):
        return f"network namespaces need Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [program for program in ("ip", "nft", "conntrack") if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        name = create(["probe"])["probe"]
    except LabError as error:
        return f"cannot create network namespaces: {error}"
    try:
        nft(name, _PROBE)
    except LabError as error:
        return f"cannot program nftables in a network namespace: {error}"
    finally:
        delete([name])
    return ""


def create(labels: Iterable[str]) -> dict[str, str]:
    """Make one namespace a label and return {label: namespace name}. Leftovers of dead processes are removed first."""
    delete_stale()
    number = next(_numbers)
    names = {label: f"{PREFIX}{os.getpid()}-{number}-{label}" for label in labels}
    _run(["ip", "-batch", "-"], "".join(f"netns add {name}\n" for name in names.values()), "creating namespaces")
    return names


def delete(names: Iterable[str]) -> None:
    """Delete namespaces; one that is gone already is no error."""
    commands = "".join(f"netns delete {name}\n" for name in names if (NETNS_DIRECTORY / name).exists())
    if commands:
        _run(["ip", "-force", "-batch", "-"], commands, "deleting namespaces")


def delete_stale() -> None:
    """Delete the namespaces that processes which no longer run have left behind."""
    if not NETNS_DIRECTORY.is_dir():
        return
    stale = [
        entry.name
        for entry in NETNS_DIRECTORY.iterdir()
        if (match := _OURS.match(entry.name)) and not Path(f"/proc/{match[1]}").exists()
    ]
    delete(stale)


@contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread is in namespace ``name`` inside the block, and so are programs that it starts there."""
    with Path("/proc/thread-self/ns/net").open("rb") as home, (NETNS_DIRECTORY / name).open("rb") as target:
        _setns(target.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def run(name: str, command: Sequence[str], text: str | None = None) -> str:
    """Run a program in a namespace and return what it printed. Raises `LabError` when it fails."""
    with entered(name):
        return _run(command, text, f"in {name}")


def ip(name: str, commands: Iterable[str], *options: str) -> None:
    """Run ``ip`` commands, one process for all of them; ``options`` such as "-6" go before them."""
    run(name, ["ip", *options, "-batch", "-"], "".join(f"{command}\n" for command in commands))


def await_addresses(name: str, *addresses: str) -> None:
    """Wait until packets to these IPv6 addresses are taken in. The kernel adds the route to an address a little after
    the address itself, in the background, with "nodad" too (net/ipv6/addrconf.c, addrconf_dad_work).
    """
    wanted = {ip_address(address).packed.hex() for address in addresses}
    with entered(name), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as changes:
        changes.bind((0, RTMGRP_IPV6_ROUTE))
        changes.settimeout(RUN_TIMEOUT)
        while not wanted <= _local_destinations():
            changes.recv(1 << 16)


def _local_destinations() -> set[str]:
    """Addresses, in hexadecimal, that this thread's network namespace has a local IPv6 route to."""
    lines = Path("/proc/thread-self/net/ipv6_route").read_text(encoding="ascii").splitlines()
    return {fields[0] for fields in map(str.split, lines) if int(fields[8], 16) & RTF_LOCAL}


def nft(name: str, text: str) -> None:
    """Load nft text as one transaction."""
    run(name, ["nft", "-f", "-"], text)


def sysctl(name: str, settings: Mapping[str, str]) -> None:
    """Write settings below /proc/sys; keys use slashes ("net/ipv4/ip_forward"), since interface names have dots."""
    with entered(name):
        for key, value in settings.items():
            (Path("/proc/sys") / key).write_text(value)


def _run(command: Sequence[str], text: str | None, where: str) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=RUN_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{where}: {' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise LabError(f"{where}: {' '.join(command)}: {(done.stderr or done.stdout).strip()[:2000]}")
    return done.stdout


def _setns(descriptor: int) -> None:
    if _libc().setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise LabError(f"setns: {os.strerror(number)}")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
