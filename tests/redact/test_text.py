"""The same name is the same word everywhere, whatever stands around it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.policy.chains import chain_role
from calico_debug.redact.text import TextRedactor
from calico_debug.redact.vocabulary import KEPT

KEY = bytes(32)


def redactor(*, addresses: bool = True, names: bool = True) -> TextRedactor:
    return TextRedactor(KEY, addresses=addresses, names=names, chains={True: {}, False: {}})


def test_parts_of_names() -> None:
    text = redactor()
    tier, policy, space = (text.word(word) for word in ("platform", "web-egress", "shop"))
    assert text.text("NetworkPolicy shop/platform.web-egress egress") == f"NetworkPolicy {space}/{tier}.{policy} egress"
    assert text.text("projectcalico.org/namespace == 'shop'") == f"projectcalico.org/namespace == '{space}'"
    assert text.text("filter-cali-pro-ksa.shop.web-egress") == f"filter-cali-pro-ksa.{space}.{policy}"
    assert text.text("End of tier platform. Drop if no policies passed packet").startswith(f"End of tier {tier}. Drop")


def test_words_are_valid_names_of_everything() -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]{7}", redactor().word("shop"))


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-./:", max_size=40))
def test_only_vocabulary_and_numbers_stay(text: str) -> None:
    found = redactor().text(text, is_name=True)
    kept = set(re.findall(r"[a-z0-9](?:[a-z0-9-])*", text)) & set(re.findall(r"[a-z0-9](?:[a-z0-9-])*", found))
    for word in kept:
        assert word in KEPT or re.fullmatch(
            r"[0-9a-f:]+|\d+(us|ms|[smhd])?|0x\d*|lo|eth\d+|en.*|bond\d+|sit0|gre0", word
        )


def test_other_scripts_and_interfaces_that_are_none() -> None:
    text = redactor()
    assert not set(text.text("Müller-Zürich 東京")) & set("üü東京")
    assert not {"ensign", "enpass", "enterprise"} & set(text.text("ensign enpass enterprise").split())
    assert text.text("eth0 eno1 ens192 enp3s0f1 bond0") == "eth0 eno1 ens192 enp3s0f1 bond0"


def test_numbers() -> None:
    text = redactor()
    assert text.text("mark=16777216 0x10000/0x20000 30s 8080") == "mark=16777216 0x10000/0x20000 30s 8080"
    assert text.text("account 123456789", is_name=True).split()[1] != "123456789"


def test_addresses_within_text() -> None:
    text = redactor(names=False)
    one = text.text("10.1.2.3")
    assert one != "10.1.2.3"
    assert text.text("src=10.1.2.3 dst=[10.1.2.3]:80 x__10.1.2.3/80") == f"src={one} dst=[{one}]:80 x__{one}/80"
    six = text.text("fd00::12")
    assert (
        text.text("[fd00::12]:80 ns/svc:port cali:abcdefghijklmnop") == f"[{six}]:80 ns/svc:port cali:abcdefghijklmnop"
    )
    assert text.text("a 1.2.3.4.5 b 12:34:56") == "a 1.2.3.4.5 b 12:34:56"


def test_names_alone() -> None:
    text = redactor(addresses=False)
    assert text.text("10.1.2.3 02:42:ac:11:00:02 fd00::1") == "10.1.2.3 02:42:ac:11:00:02 fd00::1"


def test_interfaces_keep_common_beginnings() -> None:
    text = redactor()
    one, other, third = (text.text(f"cali{digits}") for digits in ("9ae5652c2c6", "9d4c2e77d91", "2cf23962475"))
    assert re.fullmatch(r"cali[0-9a-f]{11}", one)
    assert one[:5] == other[:5] != third[:5]
    assert one[5] != other[5]
    assert text.text("cali9+") == f"{one[:5]}+"
    assert text.text("cali-from-wl-dispatch-9") == f"cali-from-wl-dispatch-{one[4]}"
    assert text.text("filter-cali-fw-cali9ae5652c2c6") == f"filter-cali-fw-{one}"
    assert text.text("cali+ eth0 vxlan.calico lo") == "cali+ eth0 vxlan.calico lo"
    digits = "0123456789abcdef"
    assert {text.text(f"cali{digit}+")[4] for digit in digits} == set(digits)


@pytest.mark.parametrize(
    "name",
    [
        "cali-FORWARD",
        "filter-cali-from-wl-dispatch",
        "cali-failsafe-in",
        "filter-FORWARD",
        "cali-arp-dispatch",
        "cali-wl-to-host",
        "cali-thfw-eth0",
        "cali-fh-eth0",
        "cali40this-host",
        "cali40masq-ipam-pools",
    ],
)
def test_kept(name: str) -> None:
    assert redactor().text(name) == name


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("cali-pi-_7fkwOJ7EaUbdkl16eNp", r"cali-pi-_[A-Za-z0-9_-]{19}"),
        ("cali-pri-_3zlaepNp05kfBXBCdj", r"cali-pri-_[A-Za-z0-9_-]{18}"),
        ("cali:cxN7yDysHHPQSuUC;", r"cali:[A-Za-z0-9_-]{16};"),
        ("cali40s:otzllZjtJ3qNka8pBKVjw1W", r"cali40s:[A-Za-z0-9_-]{23}"),
        ("cali60s-otzllZjtJ3qNka8pBKVjw1W", r"cali60s-[A-Za-z0-9_-]{23}"),
        ("KUBE-SVC-OIQIZJVJK6E34BR4", r"KUBE-SVC-[A-Z2-7]{16}"),
        ("service-ULMVA6XW-shop/web/tcp/p80", r"service-[A-Z2-7]{8}-\w{8}/\w{8}/tcp/\w{8}"),
    ],
)
def test_hashes_keep_their_form(name: str, form: str) -> None:
    found = redactor().text(name)
    assert re.fullmatch(form, found)
    assert found != name
    if name.startswith("cali-"):
        assert chain_role(found).kind is chain_role(name).kind  # type: ignore[union-attr]


def test_an_interface_that_looks_like_a_set() -> None:
    assert re.fullmatch(r"cali[0-9a-f]{11}", redactor().text("cali40a1b2c3d4e"))


def test_order() -> None:
    text = redactor()
    text.keep_order(["node-b", "node-a", "default", "zone.node-c"])
    new = [text.text(name) for name in ("node-a", "node-b", "node-c")]
    assert new == sorted(new)
    assert len(set(new)) == 3
    assert text.text("default") == "default"


def test_messages() -> None:
    text = redactor()
    shop = text.word("shop")
    assert text.known("cannot read shop/web: run as root") == f"cannot read {shop}/web: run as root"
    assert "10.1.2.3" not in text.known("no route to 10.1.2.3")


def test_names_that_have_little_room() -> None:
    text = TextRedactor(bytes(32), addresses=True, names=True, chains={True: {}, False: {}})
    known = text.word("known")
    names = ["mine.yours", "one.two.three", "known.other", "short", "a.b.c.d.e.f.g.h"]
    text.fit(names, 15)
    found = [text.text(name, is_name=True) for name in names]
    assert [len(name) <= 15 for name in found] == [True, True, True, True, False]
    assert found[2].startswith(f"{known}."), "what has a word already keeps it"
    assert len(set(found)) == len(found)


def test_the_beginning_of_an_interface() -> None:
    text = TextRedactor(bytes(32), addresses=True, names=True, chains={True: {}, False: {}})
    whole = text.text("cali1e6a8145a25")
    assert all(text.interface_start("cali1e6a8145a25"[:end]) == whole[:end] for end in range(4, 15))


def test_sets_with_known_ids() -> None:
    text = TextRedactor(bytes(32), addresses=True, names=True, chains={True: {}, False: {}})
    old, new = (f"s:{letter * 38}" for letter in "ab")
    text.add_sets({old: new})
    assert text.set_name(old) == new
    assert text.text(f"cali40{old}"[:31]) == f"cali40{new}"[:31]
    assert text.text(f"@cali60{old}"[:32].replace(":", "-")) == f"@cali60{new}"[:32].replace(":", "-")
    assert text.set_name(f"s:{'c' * 38}") != f"s:{'c' * 38}"
    assert len(text.digest("abcdefgh")) == 8
