"""What counted on eBPF nodes, read from Felix's policy debug files with nothing but json: which rules deny."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.truth.happened import EBPF, Happened, PolicyKey, RuleKey, moved, verdict_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.recordings import Recording

FOLDER = "var-run-calico-bpf/policy/"

_POLICY = re.compile(r"Start of ([A-Z]\w+Policy) (?:(\S+)/)?(\S+) \d+")
_DENIES = re.compile(r'Start of rule .*\baction:"deny"')
_MATCH = re.compile(r"Rule MatchID: (\d+)")
_END = re.compile(r"End of tier (\S+): deny")
_LOAD_R2 = [0x18, 0x02]
"""The first two bytes of ``r2 = 64 bits``, by which a program takes the id that it notes down."""


class Denying(NamedTuple):
    """Who denies: a policy, or the end of a tier."""

    policy: PolicyKey | None
    tier: str


def what_happened_on_bpf(recording: Recording) -> list[Happened]:
    """Every probe of a recording of eBPF nodes."""
    denying = denying_ids(recording)
    found = []
    for probe in recording.json("probes.json"):
        dropped = frozenset(key for key in moved(probe) if key in denying)
        policies = frozenset(policy for key in dropped if (policy := denying[key].policy) is not None)
        tier = next((denying[key].tier for key in dropped if denying[key].tier), "")
        found.append(Happened(probe, verdict_of(probe, bool(dropped)), dropped, policies, tier))
    return found


def denying_ids(recording: Recording) -> dict[RuleKey, Denying]:
    """Every id that stands for a denial, of every interface."""
    found: dict[RuleKey, Denying] = {}
    for node in recording.source.nodes():
        for file in recording.source.node(node).files():
            if file.startswith(FOLDER):
                content = json.loads(recording.source.node(node).read(file))
                found |= {RuleKey(node, EBPF, "", number): who for number, who in _denying(content["policyInfo"])}
    return found


def _denying(slots: list[Mapping[str, Any]]) -> Iterator[tuple[int, Denying]]:
    denies, ended = False, ""
    policy: PolicyKey | None = None
    for position, slot in enumerate(slots):
        for comment in slot.get("comments") or ():
            if comment.startswith("Start of "):
                ended = ""  # nothing gets to the end of that tier, so it has no code
            if start := _POLICY.fullmatch(comment):
                policy = PolicyKey(start[1], start[2] or "", start[3])
            elif comment.startswith("Start of rule "):
                denies = _DENIES.match(comment) is not None
            elif (match := _MATCH.fullmatch(comment)) and denies:
                yield int(match[1]), Denying(policy, "")
            elif end := _END.fullmatch(comment):
                ended = end[1]
        if ended and slot["inst"][:2] == _LOAD_R2:
            octets = slot["inst"][4:] + slots[position + 1]["inst"][4:]
            yield int.from_bytes(octets, "little"), Denying(None, ended)
            ended = ""
