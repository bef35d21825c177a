"""Generated nftables rulesets, as text: any table, hook and statement that a node may hold, in any order.

A rule counts at most once, at a random place among its matches. Every base chain begins with rules that let answers
of the router pass uncounted (RST and ICMP errors), so that what counted was the probe; chains at a device let the
barriers of `tests.kernel.router` pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import strategies as st

from tests.kernel.matches import (
    MARKS,
    MATCHES,
    NETS,
    RANGES,
    V4,
    V6,
    WORDS,
    Draw,
    Surface,
    address_of,
    by_chance,
    pick,
    set_of,
)
from tests.kernel.router import BARRIER

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
PRIORITIES = (-400, -300, -201, -199, -150, -101, -100, -99, -1, 0, 0, 0, 1, 50, 99, 100, 101, 225, 300)
REFUSALS = {
    4: ("port-unreachable", "admin-prohibited", "host-unreachable", "net-prohibited"),
    6: ("port-unreachable", "admin-prohibited", "no-route", "addr-unreachable"),
    0: ("port-unreachable", "admin-prohibited", "no-route", "host-unreachable"),
}
NAT_HOOKS = ("prerouting", "input", "output", "postrouting")
CHAINS = ("r0", "r1", "r2")


# ---------------------------------------------------------------------------------------------------- statements


def _port_of(surface: Surface) -> str:
    return f"{surface.protocol} dport" if surface.protocol in ("tcp", "udp") else "meta mark"


def _side_effect(draw: Draw, surface: Surface) -> str:
    mark = pick(draw, MARKS)
    options = [
        f"meta mark set {mark}",
        f"meta mark set mark or {mark}",
        f"meta mark set mark and {mark}",
        f"meta mark set mark xor {mark}",
        "meta mark set mark and 0xf0 or 0x1",
        "meta mark set mark << 4",
        "meta mark set ct mark",
        f"ct mark set {mark}",
        "ct mark set meta mark",
        "ct mark set ct mark or 0x10",
        f"ct mark set meta mark and {mark}",
        f"meta mark set {_port_of(surface)} map {{ 80 : 0x1, 53-60 : 0x2 }}",
        'log prefix "x: " group 7',
        "log group 7",
        "meta priority set 1:5",
        "counter name spare",
    ]
    for version in surface.versions:
        word, _ = WORDS[version]
        options += [
            f"meta mark set {word} saddr map @m{version}",
            f"update @y{version} {{ {word} saddr }}",
            f"add @y{version} {{ {word} daddr }}",
        ]
    if surface.hook in ("prerouting", "output"):
        options += ["notrack"] * 3
    return pick(draw, options)


def _verdict(draw: Draw, surface: Surface, position: int) -> str:
    below = CHAINS[position:]
    options = ["", "", "", "accept", "accept", "return", "continue", "drop"]
    options += [f"{way} {name}" for way in ("jump", "jump", "goto") for name in below]
    options += [_verdict_map(draw, surface, below), _verdict_map(draw, surface, below)]
    if surface.hook in ("prerouting", "input", "forward", "output") and surface.kind != "nat":
        options += [_reject(draw, surface)] * 2
    return pick(draw, options)


def _verdict_map(draw: Draw, surface: Surface, below: tuple[str, ...]) -> str:
    version = draw(st.sampled_from(surface.versions))
    word, _ = WORDS[version]
    verdicts = ["accept", "drop", "return", "continue", *[f"jump {name}" for name in below]]
    verdicts += [f"goto {name}" for name in below]
    first, second = pick(draw, verdicts), pick(draw, verdicts)
    address = address_of(draw, version)
    return pick(
        draw,
        (
            f"{word} saddr vmap {{ {address} : {first}, * : {second} }}",
            f"{word} daddr vmap {{ {NETS[version][0]} : {first}, {NETS[version][1]} : {second} }}"
            if version == 4
            else f"{word} daddr vmap {{ {NETS[6][0]} : {first}, {NETS[6][1]} : {second} }}",
            f"meta l4proto vmap {{ tcp : {first}, udp : {second} }}",
            f"{_port_of(surface)} vmap {{ 80 : {first}, 81-8080 : {second} }}",
            f'iifname vmap {{ "eth-c" : {first}, "eth-s" : {second}, "al*" : drop }}',
            f'oifname vmap {{ "eth-s" : {first}, "al*" : {second} }}',
            f"{word} daddr . meta l4proto . th dport vmap @v{version}",
            f"meta mark vmap {{ 0x1 : {first}, 0x2-0x20 : {second} }}",
            f"ct state vmap {{ new : {first}, established : {second}, invalid : drop }}",
        ),
    )


def _reject(draw: Draw, surface: Surface) -> str:
    options = ["reject", *(["reject with tcp reset"] if surface.protocol == "tcp" else [])]
    options += [f"reject with icmpx {pick(draw, REFUSALS[0])}"] if surface.family == "inet" else []
    options += [f"reject with icmp {pick(draw, REFUSALS[4])}"] if 4 in surface.versions else []
    options += [f"reject with icmpv6 {pick(draw, REFUSALS[6])}"] if 6 in surface.versions else []
    return pick(draw, options)


def _translation(draw: Draw, surface: Surface) -> str:
    version = draw(st.sampled_from(surface.versions))
    word, _ = WORDS[version]
    inet = f"{word} " if surface.family == "inet" else ""
    first, second = ("10.2.0.3", "10.2.0.2") if version == 4 else ("fd02::3", "fd02::2")
    own = "10.2.0.1" if version == 4 else "fd02::1"
    if surface.protocol.startswith("icmp"):
        targets = (first, second, own, "10.3.0.20" if version == 4 else "fd03::14")
        return f"{'dnat' if surface.hook in ('prerouting', 'output') else 'snat'} {inet}to {pick(draw, targets)}"
    protocol = surface.protocol
    literal = "{}:{}" if version == 4 else "[{}]:{}"
    if surface.hook in ("prerouting", "output"):
        vip = "10.96.0.1" if version == 4 else "fd96::1"
        target = pick(draw, (first, second, own))
        return pick(
            draw,
            (
                f"dnat {inet}to {target}",
                f"meta l4proto {protocol} dnat {inet}to {literal.format(target, 8080)}",
                f"dnat {inet}to {word} daddr map {{ {vip} : {target}, {second} : {first} }}",
                f"dnat {inet}to numgen random mod 2 map {{ 0 : {first}, 1 : {second} }}",
                (
                    f"meta l4proto {protocol} dnat {word} to {word} daddr . {protocol} dport "
                    f"map {{ {vip} . 80 : {target} . 8080, {second} . 443 : {first} . 443 }}"
                ),
                "redirect",
                f"{protocol} dport 80 redirect to :8080",
                f"meta l4proto {protocol} redirect to :{protocol} dport map {{ 53 : 80, 80 : 53 }}",
                f"{protocol} dport {{ 80, 443 }} dnat {inet}to {literal.format(target, 80)}",
            ),
        )
    if surface.hook == "postrouting":
        source = "10.2.0.20" if version == 4 else "fd02::14"
        return pick(
            draw,
            (
                "masquerade",
                "masquerade",
                "meta mark & 0x1 == 0x1 masquerade",
                f"meta l4proto {protocol} masquerade to :30000-30010",
                f"snat {inet}to {source}",
                f"meta l4proto {protocol} snat {inet}to {literal.format(source, 777)}",
                f"snat {inet}to {word} saddr map {{ {(V4 if version == 4 else V6)[0]} : {source} }}",
            ),
        )
    return f"snat {inet}to {'10.3.0.20' if version == 4 else 'fd03::14'}"


# -------------------------------------------------------------------------------------------- rules, chains, tables


def _rule(draw: Draw, where: Surface, position: int, chance: bool) -> str:
    version = draw(st.sampled_from(where.versions))
    protocol = pick(draw, ("tcp", "tcp", "tcp", "udp", "udp", "icmp" if version == 4 else "icmpv6"))
    surface = replace(where, version=version, protocol=protocol)
    count = draw(st.integers(0, 3))
    parts = [draw(st.sampled_from(MATCHES))(draw, surface) for _ in range(count)]
    if chance and draw(st.integers(0, 5)) == 5:
        parts.append(by_chance(draw, surface))
    if not draw(st.integers(0, 9)):
        return "meta l4proto { tcp, udp } counter " + _verdict(draw, where, position)
    parts.insert(draw(st.integers(0, len(parts))), "counter")
    if draw(st.integers(0, 3)) == 3:
        effect = _side_effect(draw, surface)
        if effect == "counter name spare":
            parts.remove("counter")
        parts.append(effect)
    if surface.kind == "nat" and draw(st.integers(0, 2)):
        parts.append(_translation(draw, surface))
    else:
        parts.append(_verdict(draw, surface, position))
    return " ".join(part for part in parts if part)


def _let_answers_pass(surface: Surface) -> list[str]:
    rules = ["tcp flags & rst != 0 accept"]
    rules += [f"meta protocol {BARRIER:#x} accept"] if surface.family == "netdev" else []
    rules += ["icmp type destination-unreachable accept"] if 4 in surface.versions else []
    rules += ["icmpv6 type destination-unreachable accept"] if 6 in surface.versions else []
    return rules


def _base_chain(draw: Draw, family: str, number: int, nat: bool, chance: bool) -> str:
    kinds = ["filter"] * 3 + ["nat"] * (4 if nat else 0)
    kind = pick(draw, kinds)
    hook = pick(draw, NAT_HOOKS if kind == "nat" else HOOKS)
    if kind == "filter" and hook == "output" and draw(st.booleans()):
        kind = "route"
    priority = draw(st.sampled_from([p for p in PRIORITIES if kind != "nat" or p > -200]))
    policy = pick(draw, ("accept",) * 7 + (("drop",) if kind != "nat" else ("accept",)))
    surface = Surface(family, hook, kind)
    rules = _let_answers_pass(surface)
    rules += [_rule(draw, surface, 0, chance) for _ in range(draw(st.integers(0, 4)))]
    head = f"type {kind} hook {hook} priority {priority}; policy {policy};"
    return _block(f"chain b{number}", [head, *rules])


def _block(head: str, lines: list[str]) -> str:
    return "\n".join([f"{head} {{", *(f"  {line}" for line in lines), "}"])


def _sets(draw: Draw, surface: Surface) -> list[str]:
    lines = []
    for version in surface.versions:
        _, kind = WORDS[version]
        every = V4 if version == 4 else V6
        first, second = address_of(draw, version), address_of(draw, version)
        mark, verdict = (
            pick(draw, MARKS),
            pick(draw, ("accept", "drop", "jump leaf", "goto leaf", "return", "continue")),
        )
        nets = set_of(draw, (*NETS[version][:2], every[5], RANGES[version][0][:0] or every[-2]))
        lines += [
            f"set a{version} {{ type {kind}; elements = {set_of(draw, every)}; }}",
            f"set n{version} {{ type {kind}; flags interval; auto-merge; elements = {nets}; }}",
            f"set y{version} {{ type {kind}; flags dynamic; size 64; }}",
            f"set d{version} {{ type {kind} . {kind}; elements = {{ {every[0]} . {first}, {second} . {every[2]} }}; }}",
            (
                f"set c{version} {{ type {kind} . inet_proto . inet_service; flags interval; elements = "
                f"{{ {NETS[version][0]} . tcp . 1-100, {first} . udp . 53, {every[3]} . tcp . 443 }}; }}"
            ),
            f"map m{version} {{ type {kind} : mark; elements = {{ {every[0]} : {mark}, {every[1]} : 0x7 }}; }}",
            (
                f"map v{version} {{ type {kind} . inet_proto . inet_service : verdict; elements = "
                f"{{ {first} . tcp . 80 : {verdict}, {every[2]} . udp . 53 : {verdict} }}; }}"
            ),
        ]
    return ["counter spare { }", *lines]


def _table(draw: Draw, family: str, name: str, nat: bool, chance: bool) -> str:
    if family == "netdev":
        hook = pick(draw, ("ingress", "egress"))
        device = pick(draw, ("eth-c", "eth-s", "lo"))
        surface = Surface(family, hook)
        head = f"type filter hook {hook} device {device} priority 0; policy accept;"
        rules = [_netdev_rule(draw) for _ in range(draw(st.integers(1, 3)))]
        return _block(f"table netdev {name}", [_block("chain b0", [head, *_let_answers_pass(surface), *rules])])
    surface = Surface(family)
    blocks = [
        _block(f"chain {chain}", [_rule(draw, surface, number + 1, chance) for _ in range(draw(st.integers(0, 3)))])
        for number, chain in enumerate(CHAINS)
    ]
    blocks.append(_block("chain leaf", ["counter", "meta mark 0 counter return", "counter"]))
    blocks += [_base_chain(draw, family, n, nat, chance) for n in range(draw(st.integers(1, 4)))]
    return _block(f"table {family} {name}", [*_sets(draw, surface), *blocks])


def _netdev_rule(draw: Draw) -> str:
    match = pick(
        draw,
        (
            "ip saddr 10.1.0.2",
            "ip6 daddr fd02::/64",
            "tcp dport 80",
            "udp dport { 53, 443 }",
            "meta protocol ip",
            'iifname "eth-c"',
            'oifname "eth-s"',
            "meta mark 0x1",
            "meta l4proto udp",
        ),
    )
    return f"{match} counter {pick(draw, ('', '', 'accept', 'drop', 'meta mark set 0x1'))}"


@dataclass(frozen=True, slots=True)
class Generated:
    """A ruleset as text, and its tables."""

    text: str
    tables: tuple[tuple[str, str], ...]


@st.composite
def rulesets(draw: Draw, nat: bool = True, chance: bool = True) -> Generated:
    """Rulesets of one to three tables."""
    families = draw(st.lists(st.sampled_from(("ip", "inet", "ip6", "inet", "netdev")), min_size=1, max_size=3))
    if "ip" not in families and "inet" not in families:
        families = [*families, "inet"]
    tables = tuple((family, f"t{number}") for number, family in enumerate(families))
    return Generated("\n".join(_table(draw, f, n, nat, chance) for f, n in tables) + "\n", tables)
