"""Listings of programs, maps and attachments: Calico's own names stay, everybody else's go."""

from __future__ import annotations

import json

import pytest

from calico_debug.decode.bpf_layouts import LAYOUTS
from calico_debug.redact.bpf_listings import FILES, ListingRedactor
from calico_debug.redact.numbers import NumberMap
from calico_debug.redact.text import TextRedactor

KEY = bytes(range(32))
TEXT = TextRedactor(KEY, addresses=True, names=True, chains={True: {}, False: {}})
NUMBERS = NumberMap(KEY, names=True)
INTERFACES = {name: TEXT.text(name, is_name=True) for name in ("secretnic12345", "eth0", "vxlan.calico", "bpfout.cali")}
LISTINGS = ListingRedactor(TEXT, NUMBERS, {"aaaa": "bbbb"}, INTERFACES)


@pytest.mark.parametrize(
    "name",
    [
        "cali_tc_preambl",
        "cali_xdp_preamble",
        "calico_tc_skb_accepted_entrypoint",
        "calico_tc_skb_ac",
        "conntrack_clean",
        "conntrack_cleanup",
        "calico_connect_v46",
        "calico_xdp_norm_pol_tail",
        "p4E_eth0",
        "p6I_bpfout.cali",
        "",
    ],
)
def test_programs_of_calico_keep_their_names(name: str) -> None:
    short = name[:15]
    assert LISTINGS.program(short) == short
    assert LISTINGS.program(name) == name or len(short) < len(name)


def test_policy_programs_are_called_after_their_interfaces() -> None:
    new = INTERFACES["secretnic12345"]
    assert LISTINGS.program("p4I_secretnic12345") == f"p4I_{new}"
    assert LISTINGS.program("p4I_secretnic12") == f"p4I_{new[:11]}"
    whole = TEXT.text("cali1e6a8145a25")
    assert LISTINGS.program("p6E_cali1e6a8145a25") == f"p6E_{whole}"
    assert LISTINGS.program("p6E_cali1e6a814") == f"p6E_{whole[:11]}"
    assert LISTINGS.program("p6E_cali1e6a8_1") == f"p6E_{whole[:9]}_1"
    assert "canary" not in LISTINGS.program("p4x_canary1x")


@pytest.mark.parametrize("name", ["canary1x", "cil_canary1x", "cali_canary1x", "calico_tc_canary", "conntrack_canary"])
def test_other_programs_do_not(name: str) -> None:
    assert "canary" not in LISTINGS.program(name)
    assert "canary" not in LISTINGS.map(name)


def test_maps_of_calico_keep_their_names() -> None:
    settings = ("tc_pream.rodata", "xdp_prea.rodata", "conntrac.rodata", ".rodata.str1.1", "connect_.rodata")
    for name in (*(layout.name for layout in LAYOUTS), "cali_v4_ct9", "cali_v4_ct3_old", *settings):
        assert LISTINGS.map(name) == name
    assert LISTINGS.map("canary1x.rodata").endswith(".rodata")
    assert "canary" not in LISTINGS.map("canary1x.rodata") + LISTINGS.map(".rodata.canary1x")


def test_pins() -> None:
    kept = (
        "/sys/fs/bpf/tc/globals/cali_v4_ct4\n/sys/fs/bpf/tc/globals/old_jumps\n/sys/fs/bpf/tcx/eth0_ingress\n"
        "/sys/fs/bpf/tcx/vxlancalico_egress\n/sys/fs/bpf/ctlb/calico_connect_v46\n"
    )
    assert LISTINGS.pins(kept) == kept
    pods = LISTINGS.pins("/sys/fs/bpf/tcx/secretnic12345_ingress\n")
    assert pods == f"/sys/fs/bpf/tcx/{INTERFACES['secretnic12345']}_ingress\n"
    assert "canary" not in LISTINGS.pins("/sys/fs/bpf/canary1x/canary2x_ingress\n/canary3x_old\n")


def test_tags() -> None:
    programs = [
        {"id": 1, "name": "p4E_eth0", "tag": "aaaa"},
        {"id": 2, "name": "p4I_eth0", "tag": "cccc"},
        {"id": 3, "name": "calico_tc_main", "tag": "dddd"},
        {"id": 4, "name": "mine", "tag": "eeee"},
    ]
    tags = [entry["tag"] for entry in LISTINGS.listing("bpf/prog-show.json", programs)]
    assert tags == ["bbbb", NUMBERS.tag("cccc"), "dddd", NUMBERS.tag("eeee")]
    assert not {"cccc", "eeee"} & set(tags)


DOCUMENTS = {
    "bpf/prog-show.json": [{"id": 1, "name": "x", "pids": [{"comm": "canary1x"}], "pinned": ["/sys/fs/bpf/canary2x"]}],
    "bpf/map-show.json": [{"id": 1, "name": "canary1x", "bytes_key": 4, "pids": [{"comm": "canary2x"}]}],
    "bpf/link-show.json": [{"id": 1, "type": 11, "prog_id": 7, "target_name": "canary1x", "pinned": ["/canary2x"]}],
    "bpf/net-show.json": [{"xdp": [{"devname": "canary1x", "id": 7}], "tc": [{"name": "canary2x"}], "canary3x": []}],
    "bpf/tcx-query.json": [{"ifindex": 1, "ifname": "canary1x", "hook": "tcx/ingress", "prog_ids": [7]}],
    "bpf/cgroup-tree.json": [{"cgroup": "/canary1x/cri-canary2x", "programs": [{"id": 7, "name": "canary3x"}]}],
}


@pytest.mark.parametrize("file", list(FILES))
def test_listings(file: str) -> None:
    found = LISTINGS.listing(file, DOCUMENTS[file])
    assert "canary" not in json.dumps(found)
    assert "7" in json.dumps(found) or file in ("bpf/prog-show.json", "bpf/map-show.json")


def test_names_that_are_not_to_be_replaced_stay() -> None:
    text = TextRedactor(KEY, addresses=True, names=False, chains={True: {}, False: {}})
    listings = ListingRedactor(text, NumberMap(KEY, names=False), {}, {})
    assert (listings.program("mine"), listings.map("mine"), listings.path("/a/b")) == ("mine", "mine", "/a/b")
