"""What an agent with fewer rights says: the text names the capability that is missing, wherever somebody asks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calico_debug.cli.agent_client import AgentClient
from calico_debug.errors import CalicoDebugError
from tests.daemonset.test_manifests import container_of
from tests.docs.markdown import code, section, tables
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.kernel

PROGRAM = Path(sys.executable).with_name("calico-debug")
RULES = """add table ip t
add chain ip t cali-x { type filter hook forward priority 0; }
add rule ip t cali-x counter
"""
READ, TRACE = (tuple(container_of(name)["securityContext"]["capabilities"]["add"]) for name in ("read", "trace"))
FILES = {
    "nft-ruleset.json": "CAP_NET_ADMIN",
    "iptables-save.txt": "CAP_NET_ADMIN",
    "ip6tables-save.txt": "CAP_NET_ADMIN",
    "ipset-save.txt": "CAP_NET_ADMIN",
    "conntrack.txt": "CAP_NET_ADMIN",
    "conntrack6.txt": "CAP_NET_ADMIN",
    "bpf/prog-show.json": "CAP_SYS_ADMIN",
    "bpf/map-show.json": "CAP_SYS_ADMIN",
    "bpf/link-show.json": "CAP_SYS_ADMIN",
}
"""What cannot be read without a capability; docs/security.md has the same."""
FELIX = "/v1/nodes/n1/files/felix-env.txt"


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    """A namespace with a rule in it."""
    if reason := namespaces.supported():
        pytest.skip(reason)
    if missing := [program for program in ("setpriv", "unshare", "bpftool", "ipset") if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    made = namespaces.create(["rights"])["rights"]
    try:
        namespaces.nft(made, RULES)
        yield made
    finally:
        namespaces.delete([made])


def limited(node: str, held: Sequence[str], *arguments: str) -> list[str]:
    """A command on the node with these rights of root's, beside a Felix with all of them, in a PID namespace."""
    rights = ",".join(["-all", *(f"+{name.lower()}" for name in held)])
    limit = ["setpriv", "--bounding-set", rights, "--inh-caps", rights, "--no-new-privs"]
    script = 'env FELIX_LOGSEVERITY=Info bash -c "exec -a calico-felix sleep 600" & exec "$@"'
    enter = ["ip", "netns", "exec", node, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*enter, "bash", "-c", script, "bash", *limit, str(PROGRAM), *arguments]


@contextmanager
def agent(node: str, held: Sequence[str], folder: Path) -> Iterator[AgentClient]:
    path = str(folder / "agent.sock")
    command = limited(node, held, "agent", "--socket", path, "--metrics", "off", "--node", "n1")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            assert "listening on" in said, said
            client = AgentClient(path)
            yield client
            client.close()
        finally:
            process.kill()  # unshare(1) passes no other signal on
            process.communicate(timeout=30)


def refusal(client: AgentClient, path: str) -> str:
    """What the agent says instead of an answer, "" when it answers."""
    try:
        client.ask(path)
    except CalicoDebugError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("left_out", ["", *(f"CAP_{name}" for name in TRACE)])
def test_every_file_names_what_it_lacks(node: str, tmp_path: Path, left_out: str) -> None:
    held = [name for name in TRACE if f"CAP_{name}" != left_out]
    assert len(held) == len(TRACE) - bool(left_out)
    with agent(node, held, tmp_path) as client:
        for file, needed in FILES.items():
            said = refusal(client, f"/v1/nodes/n1/files/{file}")
            if needed == left_out:
                assert f"it needs the capability {needed}: run as root on the node, or give it to the agent's" in said
            else:
                assert said == "", file
        ready = refusal(client, "/readyz")
        summary = client.json("/v1/nodes/n1")["problem"]
        if left_out == "CAP_NET_ADMIN":
            assert "503" in ready
            assert "reading nf_tables needs the capability CAP_NET_ADMIN: run as root" in summary
        else:
            assert (ready, summary) == ("", "")


def test_felix_settings_are_in_another_process(node: str, tmp_path: Path) -> None:
    """That has more rights than the agent. Newer kernels take CAP_PERFMON and CAP_SYS_ADMIN for it, too."""
    with agent(node, READ, tmp_path) as client:
        said = refusal(client, FELIX)
        assert "it needs the capability CAP_SYS_PTRACE: run as root on the node, or give it to the agent's" in said
    for more in (("SYS_PTRACE",), TRACE):
        with agent(node, (*READ, *more), tmp_path) as client:
            assert client.ask(FELIX) == b"FELIX_LOGSEVERITY=Info\n"


def test_a_probe_reads_what_is_missing(node: str, tmp_path: Path) -> None:
    """As kubectl describe shows it of a probe that failed: the body of the answer."""
    with agent(node, ("BPF",), tmp_path) as client:
        command = ["curl", "-sS", "--unix-socket", client.place, "http://agent/readyz"]
        if shutil.which("curl") is None:
            pytest.skip("not installed: curl")
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert said.startswith("reading nf_tables needs the capability CAP_NET_ADMIN: run as root on the node, or give it")


@pytest.mark.parametrize(("held", "named"), [(READ, {"CAP_SYS_ADMIN"}), ((), {"CAP_NET_ADMIN"}), (TRACE, set())])
def test_the_doctor_names_what_it_lacks(node: str, held: Sequence[str], named: set[str]) -> None:
    done = subprocess.run(
        limited(node, held, "doctor", "--node", "n1", "-o", "json"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    found = {name for name in ("CAP_NET_ADMIN", "CAP_SYS_ADMIN") if f"needs the capability {name}" in done.stdout}
    assert found == named


def test_the_page_says_what_each_costs() -> None:
    rows = {code(row[0]): row for row in tables(section("security.md", "Capabilities"))[0]}
    assert list(rows) == [f"CAP_{name}" for name in TRACE]
    for name, (_, profiles, _, cost) in rows.items():
        assert profiles == ("both" if name.removeprefix("CAP_") in READ else "trace")
        for file in (file for file, needed in FILES.items() if needed == name):
            assert f"`{file}`" in cost
