"""The listings of the project's recordings, in every dataplane and every form."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from calico_debug.cli.dump import COMMANDS
from calico_debug.cli.render.listing import FORMATS
from tests.cli.worlds import run
from tests.docs.markdown import section, tables
from tests.recordings import DATA

GOLDENS = Path(__file__).parent / "listings"
MODES = ("nft", "iptables", "bpf")

ASKED = (
    "policy client/client-5f8b",
    "policy eth0 --node node2",
    "conntrack --node node1 --from client/client-5f8b --to svc/stars/frontend",
    "conntrack --node node1 --to management-ui/mgmt-ui-79f4 --port 9001 --state syn-sent",
    "nat --node node1 --to svc/yaobank/summary",
    "nat --node node1 --to svc/yaobank/ghost",
    "nat --node node1 --port 80 --to 172.30.0.200",
    "routes --node node1 --to client/client-5f8b",
    "routes --node node1 --to management-ui/mgmt-ui-79f4",
    "ipsets --node node1 --member stars/frontend-77cd",
    "ifstate client/client-5f8b",
    "ifstate --node node2 eth0",
    "counters client/client-5f8b",
    "counters --node node2 eth0",
    "attachments --node node1",
)


def _bundle(mode: str) -> str:
    return str(DATA / f"v3.32.1-{mode}.tar.xz")


def _answers(mode: str, form: str) -> Iterator[str]:
    for words in ASKED:
        ran = run(*shlex.split(words), "--bundle", _bundle(mode), "-o", form)
        yield f"$ calico-debug {words} -o {form}\n{ran.out}{ran.err}exit code {int(ran.code)}\n\n"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("mode", MODES)
def test_goldens(mode: str, form: str, update_goldens: bool) -> None:
    path = GOLDENS / f"{mode}.{form}"
    answers = "".join(_answers(mode, form))
    if update_goldens:
        path.parent.mkdir(exist_ok=True)
        path.write_text(answers)
    assert answers == path.read_text()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [str(command.name) for command in COMMANDS])
def test_forms_say_the_same(name: str, mode: str) -> None:
    words = (name, "--bundle", _bundle(mode), "--node", "node1")
    machine = run(*words, "-o", "json")
    if (name, machine.code) == ("attachments", 2):
        assert mode != "bpf"
        return
    rows = json.loads(machine.out)
    assert rows
    assert yaml.safe_load(run(*words, "-o", "yaml").out) == rows
    if name != "policy":
        lines = run(*words).out.splitlines()
        assert len(lines) == len(rows) + 1
        assert len(run(*words, "-o", "wide").out.splitlines()) == len(lines)


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for one in value:
            yield from _keys(one)


def test_every_field_is_on_the_page() -> None:
    """Fields are a public interface: listings.md has them all, and none that no listing writes."""
    seen: dict[str, set[str]] = {}
    for command in COMMANDS:
        for mode in MODES:
            for node in ("node1", "node2"):
                more = ("--all",) if command.name == "counters" else ()
                ran = run(str(command.name), "--bundle", _bundle(mode), "--node", node, "-o", "json", *more)
                if ran.code == 0:
                    seen.setdefault(str(command.name), set()).update(_keys(json.loads(ran.out)))
    sources = "".join(path.read_text() for path in (DATA.parents[1] / "core" / "explain" / "listing").glob("*.py"))
    for name, found in seen.items():
        rows = tables(section("listings.md", name))[0]
        documented = {word for row in rows for word in re.findall(r"`(\w+)`", row[0])}
        assert found - _DYNAMIC <= documented, name
        assert {word for word in documented if f'"{word}"' not in sources} == set(), name


_DYNAMIC = {"ipv4", "ipv6", "any", "client", "server", "ingress", "egress", "xdp"} | {
    f"ipv{family} {layer} {kind}"
    for family in (4, 6)
    for layer, kind in (
        ("filter", "host endpoint, forwarded traffic"),
        ("mangle", "host endpoint"),
        ("raw", "host endpoint"),
    )
}
"""Keys that are words of the answer itself, and explained with the field that holds them."""
