"""Words that Felix, Calico's programs and the BPF file system use themselves, and that stay where they stand."""

from __future__ import annotations

_LABEL_WORDS = """
    start policy exit deny allow allowed by host to or from end of tier next program rule part no match cidr xdp
    pass skip trampoline ipset port long jump
"""
LABEL_WORDS: frozenset[str] = frozenset(_LABEL_WORDS.split())
"""Of labels (felix/bpf/polprog/pol_prog_builder.go, felix/bpf/asm)."""

_PROTO_WORDS = """
    action ip_version protocol number name src_net src_ports src_named_port_ip_set_ids dst_net dst_ports
    dst_named_port_ip_set_ids icmp_type icmp_type_code type code src_ip_set_ids dst_ip_set_ids dst_ip_port_set_ids
    src_ip_port_set_ids dst_domains not_protocol not_src_net not_src_ports not_dst_net not_dst_ports not_icmp_type
    not_icmp_type_code not_src_ip_set_ids not_dst_ip_set_ids not_src_named_port_ip_set_ids
    not_dst_named_port_ip_set_ids original_src_selector original_dst_selector original_not_src_selector
    original_not_dst_selector original_src_namespace_selector original_dst_namespace_selector
    original_src_service_account_names original_dst_service_account_names original_src_service
    original_src_service_namespace original_dst_service original_dst_service_namespace
    original_src_service_account_selector original_dst_service_account_selector http_match methods paths exact
    prefix metadata annotations key value rule_id first last ANY IPV4 IPV6
"""
PROTO_WORDS: frozenset[str] = frozenset(_PROTO_WORDS.split())
"""Fields of rules, and IP versions (felix/proto/felixbackend.proto, message Rule)."""

_PROGRAM_WORDS = """
    cali calico tc tcx test xdp preamble main allow deny host ct conflict maglev skb accepted entrypoint drop icmp
    inner nat new flow send replies tcp rst norm pol tail conntrack cleanup connect sendmsg recvmsg v4 v6 v46 ip
    frag frags ipv4 ipv6 accept log filter policy
"""
PROGRAM_WORDS: frozenset[str] = frozenset(_PROGRAM_WORDS.split())
"""Of the names of Calico's fixed programs (felix/bpf-gpl/*.c, felix/bpf/hook/map.go)."""

_PLACES = """
    sys fs bpf tc tcx xdp globals old_jumps ctlb calico cgroup run progs.debug maps.debug
"""
PLACES: frozenset[str] = frozenset(_PLACES.split())
"""Directories of the BPF file system that Felix makes (felix/bpf/bpfdefs), and the kernel's own files there."""

_VERBATIM = """
    type attach_type attach_flags prog_type owner_prog_type mode kind hook prog_flags link_flags
"""
VERBATIM: frozenset[str] = frozenset(_VERBATIM.split())
"""Members of bpftool's listings whose values are the kernel's words."""
