"""A container as the manifests describe it, made of namespaces and mounts: what a kubelet would start, without one."""

from __future__ import annotations

import http.client
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.daemonset.test_manifests import container_of, pod_of

BPFFS = "/sys/fs/bpf"
NODE = "node1"
SECONDS = 60.0
_PLACE = 'place() { chroot "$root" mkdir -p "$1"; echo "$root$(chroot "$root" realpath "$1")"; }'
"""Links lead to places inside: /var/run is one."""
FIELDS = {
    "metadata.name": "calico-debug-abcde",
    "metadata.namespace": "calico-debug",
    "metadata.uid": "00000000-0000-0000-0000-000000000001",
    "spec.nodeName": NODE,
    "status.hostIP": "127.0.0.1",
}
"""What a pod's environment may take from the pod."""
DEVICES = ("null", "zero", "random", "urandom")


class Container:
    """A context manager. ``overlay`` is one of daemonset/overlays, ``root`` an unpacked image."""

    def __init__(self, root: Path, overlay: str, namespace: str, log: Path, *, mounts: Mapping[str, Path]) -> None:
        """``mounts`` are directories by their place inside: for the host's paths, and more that are read-only."""
        self._root, self._namespace, self._log = root, namespace, log
        self._spec, self._pod, self._mounts = container_of(overlay), pod_of(overlay), mounts
        self._running: subprocess.Popen[bytes] | None = None
        self.pid = 0
        """Of the agent, as this process sees it."""

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            command = ["ip", "netns", "exec", self._namespace, "unshare", "--mount", "--fork", "--kill-child"]
            if not self._pod.get("hostPID"):
                command.append("--pid")
            self._running = subprocess.Popen([*command, "sh", "-euc", self._script()], stdout=log, stderr=log)
        self._wait_for_socket()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._running is not None
        self._running.kill()
        self._running.wait(SECONDS)

    def ask(self, path: str) -> tuple[int, bytes]:
        """Status and body of a request to the agent's socket."""
        connection = http.client.HTTPConnection("agent", timeout=SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(SECONDS)
        connection.sock.connect(str(self.socket))
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, body

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside, with the container's rights, as kubectl exec runs it."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--root", "--wd=/"]
        return subprocess.run([*enter, *self._limited(command)], capture_output=True, text=True, timeout=SECONDS)

    def terminate(self) -> tuple[int, float]:
        """Ask the agent to end; its exit status, and the seconds it took."""
        assert self._running is not None
        started = time.monotonic()
        subprocess.run(["kill", f"-{signal.SIGTERM.name[3:]}", str(self.pid)], check=True)
        return self._running.wait(SECONDS), time.monotonic() - started

    @property
    def socket(self) -> Path:
        """The agent's socket, seen from outside."""
        return Path(f"/proc/{self.pid}/root{self._environment()['CALICO_DEBUG_SOCKET']}")

    # ----------------------------------------------------------------------------------------------------- internals

    def _script(self) -> str:
        root = shlex.quote(str(self._root))
        lines = [f"root={root}", "mount --make-rprivate /", 'mount --bind "$root" "$root"', _PLACE]
        lines.append('mount -t proc proc "$root/proc"')
        lines.append('mount -t sysfs -o ro sysfs "$root/sys"')
        lines.append('mount -t tmpfs -o mode=755,size=64k tmpfs "$root/dev"')
        lines += [f'touch "$root/dev/{one}"; mount --bind /dev/{one} "$root/dev/{one}"' for one in DEVICES]
        lines.append('mount -o remount,ro "$root/dev"')
        volumes = {volume["name"]: volume for volume in self._pod["volumes"]}
        for mount in self._spec["volumeMounts"]:
            lines += self._volume(mount, volumes[mount["name"]])
        declared = {mount["mountPath"] for mount in self._spec["volumeMounts"]}
        for place, directory in self._mounts.items():
            if place not in declared:
                lines += _bound(place, directory, read_only=True)
        if self._spec["securityContext"]["readOnlyRootFilesystem"]:
            lines.append('mount -o remount,bind,ro "$root"')
        command = self._limited(self._spec["command"])
        lines.append(f'exec chroot "$root" {shlex.join(command)}')
        return "\n".join(lines)

    def _volume(self, mount: Mapping[str, Any], volume: Mapping[str, Any]) -> list[str]:
        place, read_only = mount["mountPath"], bool(mount.get("readOnly"))
        if "emptyDir" in volume:
            return [f'mount -t tmpfs tmpfs "$(place {place})"']
        if "projected" in volume:
            # Without an API server there is no token to put there.
            return [f'mount -t tmpfs -o {"ro" if read_only else "rw"} tmpfs "$(place {place})"']
        path = volume["hostPath"]["path"]
        if path == BPFFS:
            # One of its own, so that nothing of this machine is seen. Its owner's rights: Felix is root.
            option = "ro" if read_only else "rw"
            return [f'mount -t bpf -o {option} bpf "$(place {place})"']
        return _bound(place, self._mounts[path], read_only=read_only)

    def _environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in self._spec["env"]:
            source = entry.get("valueFrom")
            text = entry["value"] if source is None else FIELDS[source["fieldRef"]["fieldPath"]]
            found[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], text)
        # The listener for others takes an API server that callers are checked with; there is none here.
        return found | {"CALICO_DEBUG_LISTEN": "off"}

    def _limited(self, command: Sequence[str]) -> list[str]:
        """The command with the capabilities and the environment of the manifest."""
        context = self._spec["securityContext"]
        rights = ",".join(["-all", *(f"+{name.lower()}" for name in context["capabilities"]["add"])])
        limited = ["setpriv", f"--bounding-set={rights}", "--inh-caps=-all"]
        if not context["allowPrivilegeEscalation"]:
            limited.append("--no-new-privs")
        image = ["PATH=/opt/calico-debug/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE=1"]
        return [*limited, "env", "-i", *image, *(f"{k}={v}" for k, v in self._environment().items()), *command]

    def _answers(self) -> bool:
        try:
            return self.ask("/healthz")[0] == http.client.OK
        except OSError:
            return False

    def _wait_for_socket(self) -> None:
        assert self._running is not None
        children = Path(f"/proc/{self._running.pid}/task/{self._running.pid}/children")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if self._running.poll() is not None:
                break
            found = children.read_text(encoding="ascii").split()
            if found:
                self.pid = int(found[0])
                if self._answers():
                    return
            time.sleep(0.05)
        self._running.kill()
        raise AssertionError(f"the agent did not start: {self._log.read_text(errors='replace')}")


def _bound(place: str, directory: Path, *, read_only: bool) -> list[str]:
    source = shlex.quote(str(directory))
    lines = [f'mount --bind {source} "$(place {place})"']
    return [*lines, f'mount -o remount,bind,ro "$(place {place})"'] if read_only else lines
