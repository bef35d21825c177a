"""Runs the system's own tools and returns what they print. Each is bounded in time; none goes through a shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calico_debug.agent.capabilities import REMEDY, lacking
from calico_debug.errors import EvidenceError, MissingEvidence

SECONDS = 10.0
"""Longest run of one command: ``nft -j list ruleset`` needs 3.5 s for 10,000 rules."""

PACKAGES: Mapping[str, str] = {
    "ip": "iproute2",
    "conntrack": "conntrack",
    "nft": "nftables",
    "iptables-save": "iptables",
    "ip6tables-save": "iptables",
    "iptables-legacy-save": "iptables",
    "ip6tables-legacy-save": "iptables",
}
"""Debian packages of the programs that are run."""


ADMINISTRATION = "/usr/sbin:/sbin"
"""Where the programs are, and where PATH does not lead for everybody."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command printed. ``status`` is its exit status."""

    status: int
    stdout: bytes
    stderr: str


def run(arguments: Sequence[str], seconds: float = SECONDS) -> Output:
    """Run a command whatever its exit status; its first argument is looked for in PATH.

    Raises `MissingEvidence` when the program is not installed, `EvidenceError` when it cannot run or takes too long.
    """
    shown = " ".join(arguments)
    path = _path()
    program = shutil.which(arguments[0], path=path)
    if program is None:
        package = PACKAGES.get(arguments[0], arguments[0])
        raise MissingEvidence(
            f"cannot run `{shown}`: {arguments[0]} is not installed; install it with `apt-get install {package}`"
        )
    try:
        done = subprocess.run(
            [program, *arguments[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "LC_ALL": "C", "PATH": path},
        )
    except subprocess.TimeoutExpired as error:
        raise EvidenceError(
            f"`{shown}` did not finish within {seconds:g} s: try again when the node is idle"
        ) from error
    except OSError as error:
        raise EvidenceError(f"cannot run `{shown}`: {error.strerror}; check the installation") from error
    return Output(done.returncode, done.stdout, " ".join(done.stderr.decode("utf-8", "replace").split()))


def is_installed(program: str) -> bool:
    """Whether a program is there to be run."""
    return program_path(program) is not None


def program_path(program: str) -> str | None:
    """Where a program is; None when it is not installed."""
    return shutil.which(program, path=_path())


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{ADMINISTRATION}"


def output_of(arguments: Sequence[str], seconds: float = SECONDS) -> bytes:
    """What a command prints on stdout. Raises `EvidenceError` as `run`, and, quoting stderr, when it fails."""
    done = run(arguments, seconds)
    if done.status:
        raise failed(arguments, done)
    return done.stdout


def failed(arguments: Sequence[str], done: Output) -> EvidenceError:
    """The error of a command that failed, with what it said and what to do."""
    said = done.stderr[:300] or _said_in_json(done.stdout) or f"exit status {done.status}"
    if capability := lacking(arguments[0]):
        return EvidenceError(f"`{' '.join(arguments)}` failed: {said}; it needs the capability {capability}: {REMEDY}")
    denied = os.geteuid() != 0 and any(word in said for word in ("ermitted", "ermission", "root"))
    remedy = "run as root on the node" if denied else "run it by hand on the node to see more"
    return EvidenceError(f"`{' '.join(arguments)}` failed: {said}; {remedy}")


def _said_in_json(printed: bytes) -> str:
    """The error of ``bpftool -j``, which says it on stdout."""
    try:
        error = json.loads(printed)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return " ".join(str(error).split())[:300]
