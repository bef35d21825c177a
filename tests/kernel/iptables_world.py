"""A router whose rules are iptables', of either backend, and probes that are compared with the walk over them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from calico_debug.state.node import NodeState
from calico_debug.walk.node import NodeWalker
from tests.evidence.memory import MemoryNode
from tests.kernel.probes import MOST, Probe, Reality, answer, answer_step, judge, matching, predict
from tests.kernel.router import LINKS, ROUTER, Router, moved
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.walk.choices import Alternative
    from calico_debug.walk.passage import Pass
    from tests.kernel.probes import RuleKey, Step

GUARD = "guard"
"""The comment of rules that let the router's own answers pass, and what IPv6 says by itself (neighbours, listeners);
they are left out of every comparison.
"""

GUARDS = {
    "ip": (
        f"-p tcp -m tcp --tcp-flags RST RST -m comment --comment {GUARD} -j ACCEPT",
        f"-p icmp -m icmp --icmp-type 3 -m comment --comment {GUARD} -j ACCEPT",
    ),
    "ip6": (
        f"-p tcp -m tcp --tcp-flags RST RST -m comment --comment {GUARD} -j ACCEPT",
        *(
            f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -m comment --comment {GUARD} -j ACCEPT"
            for kind in (1, 131, 132, 133, 135, 136, 137, 143)
        ),
    ),
}
BUILTIN = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}


class Backend(NamedTuple):
    """Programs and the bundle's files of one backend, by nft's name of the family."""

    restore: Mapping[str, str]
    save: Mapping[str, str]
    files: Mapping[str, str]


BACKENDS = {
    name: Backend(
        {"ip": f"iptables-{name}-restore", "ip6": f"ip6tables-{name}-restore"},
        {"ip": f"iptables-{name}-save", "ip6": f"ip6tables-{name}-save"},
        {
            "ip": f"iptables{'-legacy' if name == 'legacy' else ''}-save.txt",
            "ip6": f"ip6tables{'-legacy' if name == 'legacy' else ''}-save.txt",
        },
    )
    for name in ("nft", "legacy")
}

Rules = "Mapping[str, Mapping[str, Sequence[str]]]"
"""Rules without ``-A CHAIN`` by table and chain. A chain that the kernel does not call is declared as used."""


def restore_text(family: str, tables: Mapping[str, Mapping[str, Sequence[str]]], drop: Sequence[str] = ()) -> str:
    """What iptables-restore reads. ``drop`` names "table CHAIN" whose policy is to drop."""
    lines: list[str] = []
    for table, chains in tables.items():
        lines.append(f"*{table}")
        lines += [f":{chain} {'DROP' if f'{table} {chain}' in drop else 'ACCEPT'} [0:0]" for chain in BUILTIN[table]]
        lines += [f":{chain} - [0:0]" for chain in chains if chain not in BUILTIN[table]]
        if table != "nat":
            lines += [f"-A {chain} {rule}" for chain in BUILTIN[table] for rule in GUARDS[family]]
        lines += [f"-A {chain} {rule}" for chain, rules in chains.items() for rule in rules]
        lines.append("COMMIT")
    return "\n".join([*lines, ""])


def _answerable(probe: Probe, place: str) -> bool:
    """Whether a packet was forwarded from a link that its source is behind: the answer then goes all the way back."""
    if not probe.link or place == ROUTER:
        return False
    number = LINKS[probe.link]
    return str(probe.datagram.source).startswith((f"10.{number}.", f"fd0{number}:"))


class World:
    """The router with rules of one backend, and sets that stay."""

    def __init__(self, router: Router, backend: str, sets: str) -> None:
        self.router = router
        self.backend = BACKENDS[backend]
        self._files = router.evidence()
        self._run(["ipset", "restore"], sets)

    def load(self, rules: Mapping[str, str]) -> None:
        """Replace every rule: text of iptables-restore by family."""
        self.clear()
        for family, text in rules.items():
            self._run([self.backend.restore[family]], text)

    def clear(self) -> None:
        """Take away every rule."""
        lines: list[str] = []
        for table, chains in BUILTIN.items():
            lines += [f"*{table}", *(f":{chain} ACCEPT [0:0]" for chain in chains), "COMMIT"]
        for family in ("ip", "ip6"):
            self._run([self.backend.restore[family]], "\n".join([*lines, ""]))

    def saved(self) -> dict[str, str]:
        """What this backend holds, as a bundle's files."""
        return {self.backend.files[family]: self._save(family) for family in ("ip", "ip6")}

    def walker(self, others: Mapping[str, str] | None = None) -> NodeWalker:
        """A walker over the rules as they are now; ``others`` are files of the other backend."""
        files = {
            **self._files,
            **(others or {}),
            **self.saved(),
            "nft-ruleset.json": self.router.listing(),
            "ipset-save.txt": self._run(["ipset", "save"]),
        }
        return NodeWalker(NodeState(MemoryNode(files, ROUTER)))

    def walked(self, walker: NodeWalker, steps: Sequence[Step]) -> list[Alternative[Pass]]:
        """Everything the walk thinks possible for the last step, without guards."""
        alternatives = predict(walker, steps)
        for alternative in alternatives:
            counted = alternative.result.trace.counted
            counted[:] = [rule for rule in counted if rule.comment != GUARD]
        return alternatives

    def check(self, probes: Sequence[Probe], walker: NodeWalker | None = None) -> list[str]:
        """Send each probe, and the answer to what was forwarded, and compare with the walk; how they differ."""
        walker = walker or self.walker()
        wrong: list[str] = []
        before = self._counts()
        for probe in probes:
            real, before = self._watch(before, probe)
            alternatives = self.walked(walker, [probe.step()])
            assert len(alternatives) <= MOST, [choice.why for choice in alternatives[0].choices]
            if difference := judge(alternatives, real, probe):
                wrong.append(difference)
                continue
            found = matching(alternatives, real, probe)
            if len(found) != 1 or len(real.arrivals) != 1 or not _answerable(probe, real.arrivals[0].place):
                continue
            reply = Probe(real.arrivals[0].place, answer(real.arrivals[0].datagram))
            steps = [
                replace(probe.step(), script=tuple(choice.taken for choice in found[0].choices)),
                answer_step(reply.link, ()),
            ]
            real, before = self._watch(before, reply)
            if difference := judge(self.walked(walker, steps), real, reply):
                wrong.append(f"the answer: {difference}")
        return wrong

    def _watch(self, before: dict[RuleKey, int], probe: Probe) -> tuple[Reality, dict[RuleKey, int]]:
        seen = probe.send(self.router)
        after = self._counts()
        token = probe.datagram.payload
        own = tuple(s for s in seen if s.datagram.payload == token and not s.datagram.is_error)
        others = tuple(s for s in seen if s not in own)
        return Reality(Counter(moved(before, after)), Counter(), own, others), after

    def _counts(self) -> dict[RuleKey, int]:
        """Packets by rule; its number stands for the handle."""
        found: dict[RuleKey, int] = {}
        for family in ("ip", "ip6"):
            table, numbers = "", Counter[str]()
            for line in self._save(family).splitlines():
                if line.startswith("*"):
                    table, numbers = line[1:], Counter()
                elif line.startswith("["):
                    chain = line.split("-A ", 1)[1].split(" ", 1)[0]
                    numbers[chain] += 1
                    if f"--comment {GUARD}" not in line:
                        found[family, table, chain, numbers[chain]] = int(line[1 : line.index(":")])
        return found

    def _save(self, family: str) -> str:
        return self._run([self.backend.save[family], "-c"])

    def _run(self, command: list[str], text: str | None = None) -> str:
        return namespaces.run(self.router.namespace, command, text)
