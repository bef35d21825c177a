from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from calico_debug.errors import MissingEvidence
from calico_debug.model.explanation import FlowExplanation
from calico_debug.state.bpf_programs import PolicyPrograms
from calico_debug.walk.bpf_loaded import LoadedPolicies, leftover_debug_files
from calico_debug.walk.context import Undecided
from tests.walk.recorded_bpf import CUSTOMER, CUSTOMER_DEVICE, POLICY, SUMMARY, Change, RecordedCluster, recorded

EGRESS = f"{POLICY}{CUSTOMER_DEVICE}_egress_v4.json"
INGRESS = f"{POLICY}{CUSTOMER_DEVICE}_ingress_v4.json"


def without_debug(files: dict[str, bytes]) -> None:
    for file in [file for file in files if file.startswith(POLICY)]:
        del files[file]


def without_dumps(files: dict[str, bytes]) -> None:
    for file in [file for file in files if file.startswith("bpf/xlated-")]:
        del files[file]


def without_tags(files: dict[str, bytes]) -> None:
    programs = json.loads(files["bpf/prog-show.json"])
    files["bpf/prog-show.json"] = json.dumps([{**one, "tag": ""} for one in programs]).encode()


def without_proof(files: dict[str, bytes]) -> None:
    without_dumps(files)
    without_tags(files)


def without_own_debug(files: dict[str, bytes]) -> None:
    files.pop(EGRESS, None)


def stale(files: dict[str, bytes]) -> None:
    """The egress file tells of the ingress program, as if policies had changed since it was written."""
    if EGRESS in files:
        files[EGRESS] = files[INGRESS]


def failed(files: dict[str, bytes]) -> None:
    if EGRESS in files:
        files[EGRESS] = json.dumps(json.loads(files[EGRESS]) | {"error": "argument list too long"}).encode()


def ask(cluster: RecordedCluster) -> FlowExplanation:
    return cluster.engine.explain(cluster.resolver.resolve(CUSTOMER, f"{SUMMARY}:80"))


def codes(answer: FlowExplanation) -> set[str]:
    return {finding.code for finding in answer.findings if finding.code.startswith("bpf-policy")}


def ids(answer: FlowExplanation) -> list[str]:
    """Of the rules that the packet met; what it missed is told by code with comments alone."""
    met = (step.evidence for step in answer.steps if step.action != "closest")
    return [evidence.rule_id for evidence in met if evidence is not None and evidence.rule_id]


def loaded(cluster: RecordedCluster) -> PolicyPrograms:
    state = cluster.engine.states["node1"].bpf
    [attachment] = [one for one in state.calico_attachments(CUSTOMER_DEVICE) if one.hook == "ingress"]
    return state.reach.policy(attachment, 4)


@pytest.fixture(scope="module")
def truth() -> FlowExplanation:
    return ask(RecordedCluster())


def test_a_file_that_agrees_is_used_without_a_word(truth: FlowExplanation) -> None:
    assert truth.verdict == "allowed"
    assert codes(truth) == set()
    assert len(ids(truth)) == 4


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (stale, "bpf-policy-debug-stale"),
        (failed, "bpf-policy-debug-stale"),
        (without_own_debug, "bpf-policy-debug-missing"),
    ],
)
def test_the_loaded_program_is_what_counts(change: object, code: str, truth: FlowExplanation) -> None:
    assert callable(change)
    answer = ask(RecordedCluster(change))
    assert (answer.verdict, ids(answer)) == (truth.verdict, ids(truth))
    assert codes(answer) == {code}
    [message] = [finding.message for finding in answer.findings if finding.code == code]
    assert EGRESS.removeprefix(POLICY) in message
    assert "was run instead" in message


def test_stale_and_no_dump_is_not_guessed() -> None:
    def change(files: dict[str, bytes]) -> None:
        failed(files)
        without_dumps(files)

    answer = ask(RecordedCluster(change))
    assert answer.verdict == "undetermined"
    assert answer.decision is not None
    assert answer.decision.reason == "missing-evidence"
    assert "Felix could not load this policy" in answer.decision.detail
    assert "prog dump xlated id" in answer.decision.detail


def test_nothing_to_compare_with_is_told(truth: FlowExplanation) -> None:
    answer = ask(RecordedCluster(without_proof))
    assert (answer.verdict, ids(answer)) == (truth.verdict, ids(truth))
    assert codes(answer) == {"bpf-policy-not-compared"}


@pytest.mark.parametrize("change", [without_dumps, without_tags])
def test_the_kernel_s_tag_or_its_dump_proves_the_file(change: Change, truth: FlowExplanation) -> None:
    assert ask(RecordedCluster(change)) == truth


def test_a_file_with_another_tag_and_no_dump_is_not_guessed() -> None:
    def change(files: dict[str, bytes]) -> None:
        stale(files)
        without_dumps(files)

    answer = ask(RecordedCluster(change))
    assert answer.verdict == "undetermined"
    assert answer.decision is not None
    assert "has another tag" in answer.decision.detail


def test_another_number_of_parts_is_stale() -> None:
    cluster = RecordedCluster(without_proof)
    programs = loaded(cluster)
    policies = LoadedPolicies(cluster.engine.states["node1"])
    policies.policy(CUSTOMER_DEVICE, "egress", programs)
    with pytest.raises(Undecided, match="it has 1 programs, and 2 are loaded"):
        policies.policy(CUSTOMER_DEVICE, "egress", replace(programs, programs=(*programs.programs, 1)))


@pytest.mark.parametrize("damage", [b"", b"[", b"[]", b"{}", b'[{"disasm": "(95) exit"}]', b"[1]"])
def test_damaged_dumps(damage: bytes) -> None:
    def change(files: dict[str, bytes]) -> None:
        for file in [file for file in files if file.startswith("bpf/xlated-")]:
            files[file] = damage
        files.pop(EGRESS, None)

    answer = ask(RecordedCluster(change))
    assert answer.verdict == "undetermined"
    assert answer.decision is not None
    assert "egress policy program" in answer.decision.detail


def test_no_evidence_at_all() -> None:
    def change(files: dict[str, bytes]) -> None:
        without_debug(files)
        without_dumps(files)

    cluster = RecordedCluster(change)
    policies = LoadedPolicies(cluster.engine.states["node1"])
    for _ in range(2):  # the second time from what was found out at first
        with pytest.raises(MissingEvidence, match="set BPFPolicyDebugEnabled"):
            policies.policy(CUSTOMER_DEVICE, "egress", loaded(cluster))


def test_every_flow_from_dumps_alone() -> None:
    """The loaded programs alone give every recorded flow the verdict and the ids that they give with Felix's files."""
    with_files, without = RecordedCluster(), RecordedCluster(without_debug)
    compared = 0
    for one in probes():
        answers = []
        for cluster in (with_files, without):
            answer = cluster.engine.explain(cluster.resolver.resolve(*one))
            decision = answer.decision
            assert decision is not None
            answers.append(
                (answer.verdict, decision.reason, decision.node, decision.tier, decision.policy, ids(answer))
            )
        assert answers[0] == answers[1], one
        compared += 1
    assert compared > 100


def probes() -> Iterator[tuple[str, str]]:
    """Ends of those that start at a pod, to an address and port."""
    for probe in recorded().json("probes.json"):
        if (
            probe["proto"] == "tcp"
            and not probe["src"].startswith("host/")
            and ip_address(probe["src_ip"]).version == 4
        ):
            yield probe["src_ip"], f"{probe['dst_ip']}:{probe['dport']}"


def test_files_of_interfaces_that_are_gone() -> None:
    def change(files: dict[str, bytes]) -> None:
        if EGRESS in files:
            files[f"{POLICY}calidead_ingress_v4.json"] = files[INGRESS]
            files[f"{POLICY}notes.json"] = b""

    cluster = RecordedCluster(change)
    [finding] = leftover_debug_files(cluster.engine.states["node1"])
    assert finding.code == "bpf-policy-debug-leftover"
    assert finding.message.endswith(": calidead")
    assert not list(leftover_debug_files(cluster.engine.states["node2"]))
    assert "bpf-policy-debug-leftover" in codes(ask(cluster))
