"""The commands that list what a node holds: options, forms, refusals, and their page."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
import yaml

from calico_debug.cli.dump import COMMANDS, HELP
from calico_debug.cli.render import listing
from calico_debug.state.connection_filter import STATES
from tests.cli.worlds import run
from tests.docs.markdown import code, section, tables
from tests.docs.test_cli_page import written
from tests.evidence.bpf_node import BpfNode
from tests.state.test_bpf_lookups import ENTRIES

NAMES = [str(command.name) for command in COMMANDS]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    node = BpfNode(ENTRIES).evidence()
    for name in node.files():
        path = tmp_path / "nodes" / "n1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(node.read(name))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_every_command_in_both_forms(name: str, bundle: Path) -> None:
    text = run(name, "--bundle", str(bundle))
    assert text.code == 0
    # What is odd about this node's programs is told where policy is.
    assert bool(text.err) == (name == "policy")
    machine = run(name, "--bundle", str(bundle), "-o", "json")
    assert machine.code == 0
    rows = json.loads(machine.out)
    if name != "policy":
        assert len(rows) == max(len(text.out.splitlines()) - 1, 0)
    assert yaml.safe_load(run(name, "--bundle", str(bundle), "-o", "yaml").out) == rows
    wide = run(name, "dump", "--bundle", str(bundle), "-o", "wide")
    assert wide.code == 0
    assert len(wide.out) >= len(text.out)


def test_connections(bundle: Path) -> None:
    words = ("conntrack", "--bundle", str(bundle), "--node", "n1")
    line = run(*words, "--from", "10.0.0.1").out.splitlines()[1]
    assert line.split()[:4] == ["tcp", "10.0.0.1:4000", "10.96.0.1:80", "10.0.0.9:8080"]
    assert len(json.loads(run(*words, "--to", "10.96.0.1", "--port", "80", "-p", "tcp", "-o", "json").out)) == 1
    assert run(*words, "--from", "10.9.9.9").out == "nothing\n"
    assert run(*words, "--from", "10.9.9.9", "-o", "json").out == "[]\n"


def test_counters_with_and_without_zeros(bundle: Path) -> None:
    some = run("counters", "--bundle", str(bundle)).out
    assert "Total packets" not in some
    assert "cali1" in some
    # Of a pod, what tc calls egress goes to it.
    assert "ingress" in some
    assert "egress" not in some
    assert "Total packets" in run("counters", "--all", "--bundle", str(bundle)).out


def test_a_long_table_is_written_as_it_comes(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("conntrack", "--bundle", str(bundle)).out
    monkeypatch.setattr(listing, "MEASURED", 1)
    assert [line.split() for line in run("conntrack", "--bundle", str(bundle)).out.splitlines()] == [
        line.split() for line in whole.splitlines()
    ]


def test_findings_go_to_the_standard_error(bundle: Path) -> None:
    routes = bundle / "nodes" / "n1" / "bpf" / "map-cali_v4_routes.json"
    entries = json.loads(routes.read_bytes())
    entries[0]["key"][0] = "0x99"
    routes.write_text(json.dumps(entries))
    ran = run("routes", "--bundle", str(bundle))
    assert ran.code == 0
    assert "warning: 1 entries of map cali_v4_routes on n1 cannot be decoded" in ran.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--from", "nobody"), 1, "'nobody' cannot be looked up"),
        (("--from", "external"), 2, "--from external is not one address: give the address"),
        (("--to", "10.96.0.1:80", "--port", "81"), 2, "name two ports"),
        (("--state", "open"), 2, "'open' is no state of a connection: give one of syn-sent"),
        (("dumb",), 2, "is not 'dump'"),
        (("--port", "0"), 2, "0 is not in the range"),
        (("--node", "n2"), 1, "n2"),
    ],
)
def test_what_cannot_be_asked(words: tuple[str, ...], code: int, message: str, bundle: Path) -> None:
    ran = run("conntrack", "--bundle", str(bundle), *words)
    assert ran.code == code
    assert message in ran.err


def test_nodes_of_other_dataplanes_and_several_nodes(bundle: Path) -> None:
    (bundle / "nodes" / "n2").mkdir()
    (bundle / "nodes" / "n2" / "ip-link.json").write_text("[]")
    assert "--node: n1, n2" in run("nat", "--bundle", str(bundle)).err
    ran = run("nat", "--bundle", str(bundle), "--node", "n2")
    assert ran.code == 1
    assert "n2" in ran.err
    assert "which dataplane n2 runs is not known" in ran.err
    (bundle / "nodes" / "n2" / "nft-ruleset.json").write_text('{"nftables": []}')
    ran = run("nat", "--bundle", str(bundle), "--node", "n2")
    assert ran.code == 1
    assert "has no rules and no eBPF programs of Calico" in ran.err


def test_a_truncated_dump_is_one_line(bundle: Path) -> None:
    file = bundle / "nodes" / "n1" / "bpf" / "map-cali_v4_ct4.json"
    file.write_bytes(file.read_bytes()[:100])
    ran = run("conntrack", "--bundle", str(bundle))
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert "map-cali_v4_ct4.json" in ran.err


def test_lists_that_cannot_be_read_are_said(bundle: Path) -> None:
    (bundle / "cluster").mkdir()
    (bundle / "cluster" / "pods.json").write_text("{")
    ran = run("conntrack", "--bundle", str(bundle))
    assert ran.code == 0
    assert ran.err.startswith("warning: cluster/pods.json of ")
    assert "is not complete JSON" in ran.err


@pytest.mark.parametrize("option", ["--kubeconfig", "--context"])
def test_a_bundle_has_its_own_cluster(bundle: Path, option: str) -> None:
    ran = run("nat", "--bundle", str(bundle), option, "x")
    assert ran.code == 2
    assert f"--bundle and {option} contradict each other: a bundle has the objects of its cluster" in ran.err


def test_the_page() -> None:
    listed, common, special, states, _ = tables(section("cli.md", "What a node holds"))
    assert [(code(row[0]), row[1]) for row in listed] == [
        (command.name, HELP[str(command.name)]) for command in COMMANDS
    ]
    assert [(code(word), meaning) for word, meaning in states] == list(STATES.items())
    shared = set(common)
    found: dict[tuple[str, str | None], list[str]] = {}
    for command in COMMANDS:
        context = click.Context(command, help_option_names=["-h", "--help"])
        options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
        rows = [(written(option), option.help) for option in options]
        assert shared <= set(rows)
        for row in rows:
            if row not in shared:
                found.setdefault(row, []).append(str(command.name))
    assert [(option, ", ".join(names), text) for (option, text), names in found.items()] == list(special)
