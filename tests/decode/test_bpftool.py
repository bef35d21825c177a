"""Listings of programs, maps, links and attachments."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.bpftool import (
    decode_cgroups,
    decode_links,
    decode_maps,
    decode_net,
    decode_pins,
    decode_programs,
    decode_tcx,
)
from calico_debug.errors import EvidenceError
from calico_debug.model.bpf_objects import Attachment, LinkInfo, MapInfo, ProgramInfo


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def test_programs() -> None:
    data = encoded(
        [
            {
                "id": 5,
                "type": "sched_cls",
                "name": "cali_tc_preambl",
                "tag": "aa",
                "loaded_at": 1795254716,
                "bytes_xlated": 24,
                "map_ids": [1, 2],
                "pinned": ["/sys/fs/bpf/x"],
            },
            {"id": 6, "type": "cgroup_sock_addr"},
        ]
    )
    assert decode_programs(data, "x") == {
        5: ProgramInfo(5, "cali_tc_preambl", "sched_cls", "aa", (1, 2), 1795254716, 24, ("/sys/fs/bpf/x",)),
        6: ProgramInfo(6, "", "cgroup_sock_addr"),
    }


def test_maps() -> None:
    entry = {"id": 3, "type": "percpu_hash", "name": "m", "flags": 1, "bytes_key": 4, "bytes_value": 12}
    found = decode_maps(encoded([{**entry, "max_entries": 9, "frozen": 1}, {**entry, "id": 4, "type": "hash"}]), "x")
    assert found[3] == MapInfo(3, "m", "percpu_hash", 4, 12, 9, 1, True)
    assert (found[3].value_stride, found[4].value_stride) == (16, 12)


def test_links() -> None:
    data = encoded([{"id": 197, "type": 11, "prog_id": 4887}, {"id": 3, "type": "tcx", "prog_id": 1, "ifindex": 4}])
    assert decode_links(data, "x") == {197: LinkInfo(197, "type 11", 4887), 3: LinkInfo(3, "tcx", 1, 4)}


def test_net_of_old_and_new_versions() -> None:
    data = encoded(
        [
            {
                "xdp": [{"devname": "eth0", "ifindex": 2, "mode": "driver", "id": 7}],
                "tc": [
                    {
                        "devname": "cali1",
                        "ifindex": 3,
                        "kind": "clsact/ingress",
                        "name": "cali_tc_preambl:[8]",
                        "id": 8,
                    },
                    {"devname": "cali1", "ifindex": 3, "kind": "clsact/ingress", "name": "other", "id": 9},
                    {"devname": "cali1", "ifindex": 3, "kind": "tcx/egress", "prog_id": 10, "link_id": 4},
                ],
                "flow_dissector": [],
            }
        ]
    )
    assert decode_net(data, "x") == [
        Attachment("xdp", "ingress", 7, "eth0", 2, mode="driver"),
        Attachment("clsact", "ingress", 8, "cali1", 3, None, "cali_tc_preambl:[8]"),
        Attachment("clsact", "ingress", 9, "cali1", 3, None, "other", 1),
        Attachment("tcx", "egress", 10, "cali1", 3, 4),
    ]


def test_netkit_s_ends_are_tc_s_hooks() -> None:
    entry = {"ifindex": 3, "ifname": "cali1", "prog_ids": [5]}
    for kind, hook in (("netkit/peer", "ingress"), ("netkit/primary", "egress")):
        assert decode_tcx(encoded([entry | {"hook": kind}]), "x") == [Attachment("netkit", hook, 5, "cali1", 3)]
        listed = {"devname": "cali1", "ifindex": 3, "kind": kind, "prog_id": 5}
        assert decode_net(encoded([{"xdp": [], "tc": [listed]}]), "x") == [Attachment("netkit", hook, 5, "cali1", 3)]


def test_tcx_and_cgroups() -> None:
    entry = {"ifindex": 3, "ifname": "cali1", "hook": "tcx/ingress", "prog_ids": [5, 6], "link_ids": [0, 9]}
    assert decode_tcx(encoded([entry]), "x") == [
        Attachment("tcx", "ingress", 5, "cali1", 3),
        Attachment("tcx", "ingress", 6, "cali1", 3, 9, position=1),
    ]
    programs = [
        {"id": 1, "attach_type": "cgroup_inet4_connect", "attach_flags": "", "name": "calico_connect_"},
        {"id": 2, "attach_type": "connect6", "name": "calico_connect_"},
        {"id": 3, "attach_type": "cgroup_udp6_recvmsg", "name": "calico_recvmsg_"},
    ]
    found = decode_cgroups(encoded([{"cgroup": "/run/calico/cgroup", "programs": programs}]), "x")
    assert [(one.hook, one.program_id, one.place) for one in found] == [
        ("connect4", 1, "/run/calico/cgroup"),
        ("connect6", 2, "/run/calico/cgroup"),
        ("recvmsg6", 3, "/run/calico/cgroup"),
    ]


def test_pins() -> None:
    assert decode_pins(b"/sys/fs/bpf\n/sys/fs/bpf/tc\nfind: permission denied\n") == ["/sys/fs/bpf", "/sys/fs/bpf/tc"]


DECODERS: list[Callable[[bytes, str], object]] = [
    decode_programs,
    decode_maps,
    decode_links,
    decode_net,
    decode_tcx,
    decode_cgroups,
]


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("data", [b"", b"[{", b"7", b"[7]", b"\xff"])
def test_damaged_files(decode: Callable[[bytes, str], object], data: bytes) -> None:
    with pytest.raises(EvidenceError, match="maps of n1"):
        decode(data, "maps of n1")


@pytest.mark.parametrize("decode", [decode_programs, decode_maps, decode_links, decode_tcx])
def test_missing_and_foreign_values(decode: Callable[[bytes, str], object]) -> None:
    for entry in ({"name": "x"}, {"id": "seven"}, {"id": None, "hook": 3}):
        with pytest.raises(EvidenceError, match=r"x: cannot decode .*record the file again with bpftool -j"):
            decode(encoded([entry]), "x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "type", "hook", "prog_ids", "programs", "tc", "xdp", "map_ids", "kind", "bytes_key"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(DECODERS), st.lists(json_values, max_size=3))
def test_anything_decodes_or_is_refused(decode: Callable[[bytes, str], object], document: list[object]) -> None:
    with suppress(EvidenceError):
        decode(encoded(document), "x")
