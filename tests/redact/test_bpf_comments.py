"""What Felix writes beside instructions: the forms that it has, and what has none of them."""

from __future__ import annotations

import pytest

from calico_debug.redact.bpf_comments import CommentRedactor
from calico_debug.redact.numbers import NumberMap
from calico_debug.redact.text import TextRedactor

KEY = bytes(range(32))
TEXT = TextRedactor(KEY, addresses=True, names=True, chains={True: {}, False: {}})
NUMBERS = NumberMap(KEY, names=True)
COMMENTS = CommentRedactor(TEXT, NUMBERS)
SET = "s:FwyNdoLqowdwNjzKkVxNHNWe-PNZNjpJg123456"


def name(text: str) -> str:
    return TEXT.text(text, is_name=True)


STAYING = (
    "Load packet metadata saved by previous program",
    "Save state pointer in register R9",
    "Deny jump to 4",
    "If protocol != tcp, skip to next rule",
    "If protocol == 132, skip to next rule",
    "If protocol != , skip to next rule",
    "If ICMP type != 8 or code != 0, skip to next rule",
    "If dest port is not within any of {80,443-500}, skip to next rule",
    "If dest port is not within any of the named ports {}, skip to next rule",
    "If source doesn't match any of the IP sets, skip to next rule",
    "Splitting program after 11000 jumps",
    "##### Start of program 1 #####",
    "Tail call to policy program at index 1 * 10000 + 3 = 10003",
    "Rule MatchID: 0",
    "Start of   3",
    "End of tier default: deny",
    "IPSets ",
)


@pytest.mark.parametrize("comment", STAYING)
def test_comments_without_names_stay(comment: str) -> None:
    assert COMMENTS.comment(comment) == comment


ID = "Wri-NpqqFNfhlmhf"
NETWORK, NEW_NETWORK = "10.7.0.0/16", TEXT.text("10.7.0.0/16")
OWNER = name("ns1/secret")
SELECTOR, NEW_SELECTOR = "role == 'attacker'", f"{name('role')} == '{name('attacker')}'"
SETS = "IPSets src_ip_set_ids:<0x{:x},0x{:x}> not_dst_ip_set_ids:<0x{:x}> ".format(
    *map(NUMBERS.ip_set, (119, 120, 121))
)
RULE, NEW_RULE = (
    f'src_net:"{net}"  src_ip_set_ids:"{ips}"  original_src_selector:"{selector}"  rule_id:"{number}"'
    for net, ips, selector, number in (
        (NETWORK, SET, SELECTOR, ID),
        (NEW_NETWORK, TEXT.set_name(SET), NEW_SELECTOR, TEXT.digest(ID)),
    )
)
METADATA, NEW_METADATA = (
    f'metadata:{{annotations:{{key:"{key}" value:"{article} \\"{who}\\""}}}}'
    for key, article, who in (("by", "an", "attacker"), map(name, ("by", "an", "attacker")))
)
CHANGED = (
    ("Start of tier secret", f"Start of tier {name('secret')}"),
    ("End of tier secret: pass", f"End of tier {name('secret')}: pass"),
    ("End of tier secret", f"End of tier {name('secret')}"),
    ("Start of policy secret.policy", f"Start of policy {name('secret')}.{name('policy')}"),
    ("End of policy secret", f"End of policy {name('secret')}"),
    ("Start of NetworkPolicy ns1/secret 3", f"Start of NetworkPolicy {name('ns1')}/{name('secret')} 3"),
    ("End of rule ns1/secret Wri-NpqqFNfhlmhf", f"End of rule {name('ns1/secret')} {TEXT.digest('Wri-NpqqFNfhlmhf')}"),
    ("End of rule Wri-NpqqFNfhlmhf", f"End of rule {TEXT.digest('Wri-NpqqFNfhlmhf')}"),
    ("Rule MatchID: 77777777777", f"Rule MatchID: {NUMBERS.rule(77777777777)}"),
    (
        "If source not in {10.7.0.0/16,fd00:7::/32}, skip to next rule",
        f"If source not in {{{TEXT.text('10.7.0.0/16')},{TEXT.text('fd00:7::/32')}}}, skip to next rule",
    ),
    (
        f"If dest doesn't match ipset {SET} (0x77), jump to next ipset",
        f"If dest doesn't match ipset {TEXT.set_name(SET)} (0x{NUMBERS.ip_set(0x77):x}), jump to next ipset",
    ),
    (
        f"If destPreNAT port is within any of the named ports {{{SET}}}, skip to next rule",
        f"If destPreNAT port is within any of the named ports {{{TEXT.set_name(SET)}}}, skip to next rule",
    ),
    ("IPSets src_ip_set_ids:<0x77,0x78> not_dst_ip_set_ids:<0x79> ", SETS),
    (
        f'Start of rule ns1/secret action:"next-tier"  protocol:{{name:"tcp"}}  dst_ports:{{first:80}}  {RULE}',
        f'Start of rule {OWNER} action:"next-tier"  protocol:{{name:"tcp"}}  dst_ports:{{first:80}}  {NEW_RULE}',
    ),
    (f'Start of rule action:"allow" {METADATA}', f'Start of rule action:"allow" {NEW_METADATA}'),
)


@pytest.mark.parametrize(("comment", "changed"), CHANGED)
def test_names_and_addresses_are_replaced(comment: str, changed: str) -> None:
    assert COMMENTS.comment(comment) == changed
    assert COMMENTS.comment(changed) != changed


@pytest.mark.parametrize(
    "comment",
    [
        "Something canary1x else",
        "If protocol != canary1x, skip to next rule",
        "If canary1x not in {10.0.0.0/8}, skip to next rule",
        "Load packet metadata saved by previous program canary1x",
        "Start of canary1x secret 3",
        "Rule MatchID: canary1x",
        "Start of rule ns1/secret canary1x:77",
        'Start of rule ns1/secret action:"canary1x"',
        'Start of rule ns1/secret canary1x:"y"',
        "End of rule a b canary1x",
        f"If source matches ipset canary1x (0x77), skip to next rule {SET}",
        "Match: src=canary1x",
        "IPSets canary1x_ip_set_ids:<0x77>",
    ],
)
def test_what_felix_would_not_write_is_replaced_word_by_word(comment: str) -> None:
    assert "canary" not in COMMENTS.comment(comment)


def test_labels_and_annotations() -> None:
    for label in ("rule_0_no_match", "end_of_tier_12", "rule_3_cidr_1_end", "skip-trampoline-7", "xdp_pass"):
        assert COMMENTS.label(label) == label
        assert COMMENTS.annotation(f"goto {label}") == f"goto {label}"
    for label in ("canary1x", "rule_canary1x", "rule_0_canary"):
        assert "canary" not in COMMENTS.label(label) + COMMENTS.annotation(f"goto {label}")
    kept = (
        "R1 = *(u32 *)(R9 + 8) /* state->ip_src */",
        "*(u8 *) (R9 + 108) /* state->rules_hit */ = R2",
        "*(u64 *) (R1 + 0) /*  */ = R2",
        "R3 = *(u32 *)(R6 + 48) /* skb->cb[0] */",
        "call bpf_map_lookup_elem",
    )
    for annotation in kept:
        assert COMMENTS.annotation(annotation) == annotation
    for annotation in ("call canary1x", "R1 = *(u32 *)(R9 + 8) /* state->canary1x */", "canary1x"):
        assert "canary" not in COMMENTS.annotation(annotation)


def test_addresses_alone() -> None:
    text = TextRedactor(KEY, addresses=True, names=False, chains={True: {}, False: {}})
    comments = CommentRedactor(text, NumberMap(KEY, names=False))
    matched = f'src_net:"10.7.0.0/16" src_ip_set_ids:"{SET}"'
    rule = f'Start of rule ns1/secret action:"allow" {matched} rule_id:"Wri-NpqqFNfhlmhf"'
    assert comments.comment(rule) == rule.replace("10.7.0.0/16", text.text("10.7.0.0/16"))
    for comment in ("Rule MatchID: 77777777777", f"If dest matches ipset {SET} (0x77), skip to next rule"):
        assert comments.comment(comment) == comment
