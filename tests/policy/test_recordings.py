"""Names and programmed rules held against what Felix wrote on the nodes of recorded clusters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calico_debug.decode.policies import POLICY_SOURCES, decode_policy
from calico_debug.model.cluster import PolicyObject
from calico_debug.policy.chains import ChainKind, CommentKind, chain_role, parse_comment
from calico_debug.policy.identity import (
    PolicyIdentity,
    identify,
    identity_from_chain,
    identity_from_comment,
    identity_of,
    policy_index,
)
from calico_debug.policy.programmed import programmed_rules
from tests.evidence.memory import RECORDINGS

_ACTIONS = {"1": "Allow", "2": "Pass", "4": "Deny"}
_BPF_ACTIONS = {"allow": "Allow", "next-tier": "Pass", "deny": "Deny"}


@pytest.fixture
def captures() -> Path:
    if not (RECORDINGS / "v3.32.1-nft").is_dir():
        pytest.skip(f"no recordings in {RECORDINGS}: set CALICO_DEBUG_RECORDINGS to their directory")
    return RECORDINGS


def _policies(capture: Path) -> list[PolicyObject]:
    found = []
    for source in POLICY_SOURCES:
        path = next((path for file in source.files if (path := capture / "cluster" / file).exists()), None)
        if path:
            found += [decode_policy(item, source) for item in json.loads(path.read_text())["items"]]
    return found


def _nft_chains(text: str) -> Iterator[tuple[str, list[str]]]:
    for block in re.finditer(r"^\tchain (\S*cali-\S+) \{[^\n]*\n(.*?)^\t\}", text, re.MULTILINE | re.DOTALL):
        yield block[1], block[2].splitlines()


def _iptables_chains(text: str) -> Iterator[tuple[str, list[str]]]:
    for table in text.split("\nCOMMIT"):
        chains: dict[str, list[str]] = {}
        for rule in re.finditer(r"^\S+ -A (cali-\S+) .*", table, re.MULTILINE):
            chains.setdefault(rule[1], []).append(rule[0])
        yield from chains.items()


def _comment(rule: str) -> str:
    return " ".join(re.findall(r'comment "([^"]*)"', rule))


def _actions(rules: list[str]) -> list[str]:
    """What the rules of a policy chain decide, in order: the mark that a matching packet gets, or the log entry."""
    decisive = re.compile(
        r"mark set meta mark \| 0x000([124])0000|--set-xmark 0x([124])0000/0x\d0000|log prefix|-j (LOG)"
    )
    found = (decisive.search(rule) for rule in rules)
    return [_ACTIONS.get(match[1] or match[2], "Log") for match in found if match]


@pytest.mark.parametrize("name", ["v3.32.1-nft", "v3.32.1-stale-nft", "v3.32.1-iptables"])
def test_chains_lead_to_objects_and_their_rules(captures: Path, name: str) -> None:
    policies = _policies(captures / name)
    index = policy_index(policies)
    seen = set()
    for node in sorted((captures / name / "nodes").iterdir()):
        nft = name.endswith("nft")
        text = (node / ("nft-ruleset.txt" if nft else "iptables-save.txt")).read_text()
        for chain, rules in (_nft_chains if nft else _iptables_chains)(text):
            role = chain_role(chain)
            assert role is not None
            if role.kind is not ChainKind.POLICY:
                continue
            comment = parse_comment(_comment(rules[0]))
            assert comment.direction == role.direction, chain
            told = identity_from_comment(comment)
            assert told is not None, rules[0]
            policy = index.find(told)
            assert policy is not None, told
            assert identity_from_chain(role) == (None if role.hashed else told)
            assert index.find_chain(chain) is policy
            assert identify(role, None, index, chain) == identity_of(policy)
            programmed = programmed_rules(policy, role.direction, 4)
            assert programmed is not None
            assert [rule.action for rule in programmed] == _actions(rules), chain
            seen.add((told, role.direction))
    assert len(seen) >= 10


def test_no_chain_and_comment_of_calico_is_unknown(captures: Path) -> None:
    others = set()
    for name, file, chains in (
        ("v3.32.1-nft", "nft-ruleset.txt", _nft_chains),
        ("v3.32.1-iptables", "iptables-save.txt", _iptables_chains),
    ):
        for node in sorted((captures / name / "nodes").iterdir()):
            for chain, rules in chains((node / file).read_text()):
                role = chain_role(chain)
                assert role is not None
                others |= {chain} if role.kind is ChainKind.OTHER else set()
                comments = (parse_comment(_comment(rule)) for rule in rules if "cali:" in rule)
                others |= {comment.text for comment in comments if comment.kind is CommentKind.OTHER}
    assert others == {"mangle-cali-egress-dscp", "set dscp for traffic leaving cluster."}


@pytest.mark.parametrize("name", ["v3.32.1-bpf", "v3.32.1-v6-bpf", "v3.32.1-vxlan-bpf"])
def test_programs_have_the_same_rules_in_both_families(captures: Path, name: str) -> None:
    index = policy_index(_policies(captures / name))
    seen = set()
    for path in sorted((captures / name / "nodes").glob("*/var-run-calico-bpf/policy/cali*.json")):
        direction, family = re.findall(r"_(ingress|egress)_v([46])\.json", path.name)[0]
        for kind, full_name, rules in _compiled_policies(json.loads(path.read_text())["policyInfo"]):
            namespace, _, policy_name = full_name.rpartition("/")
            policy = index.find(PolicyIdentity(kind, namespace, policy_name))
            assert policy is not None, full_name
            programmed = programmed_rules(policy, direction, int(family))
            assert programmed is not None
            assert [rule.action for rule in programmed if rule.action != "Log"] == rules, (path.name, full_name)
            seen.add((full_name, direction, family))
    assert len(seen) >= 10


def _compiled_policies(instructions: list[dict[str, Any]]) -> Iterator[tuple[str, str, list[str]]]:
    """Policies of a debug file of a program: kind, name, actions of the rules that have instructions.

    Comments stand at the instruction that follows them. So a rule of the other family has its start and its end at one
    instruction, and so has a log rule, which the program treats otherwise.
    """
    kind, name, rules = "", "", [""]
    for instruction in instructions:
        started = ""
        for comment in instruction.get("comments") or ():
            if policy := re.fullmatch(r"Start of (\w+Policy) (\S+) \d+", comment):
                kind, name, rules = policy[1], policy[2], []
            elif rule := re.match(r'Start of rule \S+ action:"([\w-]+)"', comment):
                started = _BPF_ACTIONS.get(rule[1], "")
            elif comment.startswith("End of rule "):
                started = ""
            elif comment.startswith(f"End of {kind} {name} ") and kind:
                yield kind, name, rules
                kind = ""
        rules += [started] if started else []
