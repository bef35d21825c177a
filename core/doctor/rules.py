"""Rules on a node that are neither Calico's nor kube-proxy's, and kube-proxy's where they should not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.doctor.model import Symptom
from calico_debug.explain.dataplane import IPTABLES_NAMES, WALKED_FAMILIES
from calico_debug.explain.kube_proxy import IPTABLES_PREFIX, NFTABLES_TABLE
from calico_debug.model.nft import Counter, Harmless, Log, Notrack, Reject, SetContent, Verdict, VerdictMap
from calico_debug.policy.chains import chain_role, parse_comment
from calico_debug.state.dataplane import CALICO_TABLES, EBPF
from calico_debug.state.iptables import LEGACY_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.doctor.model import NodeView, Observation
    from calico_debug.model.nft import Chain, Rule, Ruleset

KUBE_PROXY_CHAIN = "KUBE-SERVICES"
"""Of kube-proxy alone in iptables mode; kubelet makes chains that begin with KUBE- too."""

_ALWAYS = (Counter, Log, Harmless, Verdict, Reject)
"""Statements that let a rule go on whatever the packet."""


@dataclass(frozen=True, slots=True)
class Met:
    """A rule, and the base chain through which packets come to it."""

    base: Chain
    rule: Rule

    @property
    def where(self) -> str:
        """For messages."""
        return f"table {self.rule.family} {self.rule.table}, chain {self.rule.chain}"


def foreign_rules(ruleset: Ruleset) -> Iterator[Met]:
    """Every rule for IP packets outside of Calico and kube-proxy, once, along jumps. Raises `EvidenceError`."""
    seen: set[tuple[str, str, str]] = set()
    for base in ruleset.base_chains():
        if base.family not in WALKED_FAMILIES or base.hook is None:
            continue
        waiting = [base.name]
        while waiting:
            place = (base.family, base.table, waiting.pop())
            if place in seen or _is_known(*place):
                continue
            seen.add(place)
            for rule in ruleset.rules(*place) or ():
                if not parse_comment(rule.comment).hash:
                    yield Met(base, rule)
                    waiting.extend(verdict.chain for verdict in _verdicts(ruleset, rule) if verdict.chain)


def _is_known(family: str, table: str, chain: str) -> bool:
    """Whether a chain is Calico's or kube-proxy's (kubelet's count as kube-proxy's)."""
    if (family, table) in CALICO_TABLES or table == NFTABLES_TABLE:
        return True
    if table.removesuffix(LEGACY_SUFFIX) not in IPTABLES_NAMES:
        return False
    return chain.startswith(IPTABLES_PREFIX) or (chain.startswith("cali-") and chain_role(chain) is not None)


def _verdicts(ruleset: Ruleset, rule: Rule) -> Iterator[Verdict]:
    for statement in rule.statements:
        if isinstance(statement, Verdict):
            yield statement
        elif isinstance(statement, VerdictMap):
            content = statement.source
            found = content if isinstance(content, SetContent) else ruleset.elements(rule.family, rule.table, content)
            if found is not None:
                for element in (*found.exact.values(), *found.ranged, *((found.default,) if found.default else ())):
                    if isinstance(element.data, Verdict):
                        yield element.data


def _drops(ruleset: Ruleset, rule: Rule) -> bool:
    if any(isinstance(statement, Reject) for statement in rule.statements):
        return True
    return any(verdict.kind == "drop" for verdict in _verdicts(ruleset, rule))


def check_foreign_drops(node: NodeView) -> Iterator[Observation]:
    """Tables of others that drop what Calico accepted."""
    ruleset = node.ruleset
    for base in ruleset.base_chains():
        hook = base.hook
        if base.family not in WALKED_FAMILIES or hook is None or hook.policy != "drop":
            continue
        if _is_known(base.family, base.table, base.name):
            continue
        where = f"table {base.family} {base.table}, chain {base.name} (hook {hook.hook}, priority {hook.priority})"
        returns = node.state.felix.get("FELIX_IPTABLESFILTERALLOWACTION", "").upper() == "RETURN"
        shared = not returns and any(parse_comment(rule.comment).hash for rule in _rules_of(ruleset, base))
        yield Symptom(
            "foreign-drop-policy",
            "info" if shared else "warning",
            f"{where} drops what none of its rules accepts"
            + ("; Calico's rules in it accept what policy allowed before that" if shared else ""),
        )
    chains: dict[str, list[Met]] = {}
    for met in foreign_rules(ruleset):
        if _drops(ruleset, met.rule):
            chains.setdefault(met.where, []).append(met)
    for where, rules in chains.items():
        yield _foreign_drop(where, rules)


def _rules_of(ruleset: Ruleset, chain: Chain) -> tuple[Rule, ...]:
    return tuple(ruleset.rules(chain.family, chain.table, chain.name) or ())


def _foreign_drop(where: str, rules: list[Met]) -> Symptom:
    base = rules[0].base
    hook = base.hook.hook if base.hook is not None else ""
    always = [met for met in rules if all(isinstance(statement, _ALWAYS) for statement in met.rule.statements)]
    packets = sum(counter.packets or 0 for met in rules if (counter := met.rule.counter) is not None)
    counted = any(met.rule.counter is not None for met in rules)
    number = "1 rule drops or rejects" if len(rules) == 1 else f"{len(rules)} rules drop or reject"
    said = (
        f"{where} (from hook {hook}): {number}",
        f"counters at {packets} packets" if counted else "without a counter",
        "unconditional" if always else "some packets",
    )
    return Symptom("foreign-drop-rule", "warning" if packets or always else "info", ", ".join(said))


def check_notrack(node: NodeView) -> Iterator[Observation]:
    """Rules of others that keep connections from being tracked."""
    found: dict[str, list[Met]] = {}
    for met in foreign_rules(node.ruleset):
        if any(isinstance(statement, Notrack) for statement in met.rule.statements):
            found.setdefault(met.where, []).append(met)
    for where, rules in found.items():
        number = "1 rule" if len(rules) == 1 else f"{len(rules)} rules"
        hook = rules[0].base.hook
        yield Symptom("notrack", "warning", f"{where} (from hook {hook.hook if hook else ''}): {number} with notrack")


def check_kube_proxy(node: NodeView) -> Iterator[Observation]:
    """kube-proxy beside the eBPF dataplane, which does its work."""
    if node.dataplane != EBPF:
        return
    signs = [f"table {family} {table}" for family, table in node.ruleset.tables() if table == NFTABLES_TABLE]
    signs += [
        f"chain {KUBE_PROXY_CHAIN} in table {family} {table}"
        for family, table in node.ruleset.tables()
        if node.ruleset.rules(family, table, KUBE_PROXY_CHAIN)
    ]
    signs += [
        f"pod {pod.namespace}/{pod.name}"
        for pod in node.cluster.state.pods
        if pod.node == node.name and pod.phase == "Running" and pod.name.startswith("kube-proxy")
    ]
    if not signs:
        return
    cleaning = node.setting("BPFKubeProxyIptablesCleanupEnabled", default=True)
    yield Symptom(
        "kube-proxy-beside-bpf",
        "warning" if cleaning else "info",
        f"{', '.join(signs)}; Felix's clean-up of kube-proxy's rules is {'on' if cleaning else 'off'}",
    )
