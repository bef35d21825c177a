"""The command line of hits."""

from __future__ import annotations

import json

from calico_debug.cli.exit_codes import ExitCode
from tests.cli.worlds import run
from tests.recordings import recordings

STALE = str(recordings("-stale-nft")[0].path)
BPF = str(recordings("2.1-bpf")[0].path)


def test_counts_and_what_is_shadowed() -> None:
    ran = run("hits", "--bundle", STALE)
    assert ran.code == ExitCode.ANSWERED
    line = next(one for one in ran.out.splitlines() if "platform.stars-backend" in one)
    assert line.split() == [
        *("platform", "NetworkPolicy", "stars/platform.stars-backend", "ingress", "0", "Allow", "3", "packets"),
        "unreachable",
    ]
    assert "shadowed by GlobalNetworkPolicy platform.freeze, rule 0 (Deny)" in ran.out
    assert "counts since Felix last wrote each rule" in ran.out


def test_unused_as_json() -> None:
    document = json.loads(run("hits", "--unused", "--bundle", STALE, "-o", "json").out)
    assert document["kind"] == "RuleHits"
    assert {one["standing"] for one in document["rules"]} == {"not met", "unreachable"}
    assert all("policy" in one and one["policy"]["kind"] != "Profile" for one in document["rules"])
    shadowed = next(one for one in document["rules"] if one["standing"] == "unreachable")
    assert shadowed["proof"] == {"holds": "always", "by": ["GlobalNetworkPolicy platform.freeze, rule 0 (Deny)"]}
    assert shadowed["nodes"] == [{"node": "node2", "count": 3}]


def test_ebpf_nodes_count_evaluations() -> None:
    document = json.loads(run("hits", "--bundle", BPF, "--node", "node1", "-o", "json").out)
    assert {one["unit"] for one in document["rules"]} == {"evaluations"}
    logged = next(one for one in document["rules"] if one["action"] == "Log")
    assert (logged["count"], logged["standing"]) == (None, "not counted")


def test_a_bundle_that_is_not_there() -> None:
    ran = run("hits", "--bundle", "/nowhere")
    assert (ran.code, ran.out) == (ExitCode.FAILED, "")


def test_what_makes_no_sense() -> None:
    for options, message in (
        (("--since", "7d"), "name one with --prometheus"),
        (("--since", "7y", "--prometheus", "http://127.0.0.1:9"), "is no window"),
        (("--prometheus", "ftp://user:secret@host"), "is no address of a Prometheus"),
        (("--prometheus", "http://host/?query=1"), "is no address of a Prometheus"),
    ):
        ran = run("hits", "--bundle", STALE, *options)
        assert ran.code == ExitCode.USAGE
        assert message in ran.err
        assert "secret" not in ran.err


def test_a_server_that_is_away_is_one_line() -> None:
    ran = run("hits", "--bundle", STALE, "--prometheus", "http://user:secret@127.0.0.1:9")
    assert ran.code == ExitCode.FAILED
    assert "cannot be asked" in ran.err
    assert "secret" not in ran.err
    assert ran.err.count("\n") == 1
