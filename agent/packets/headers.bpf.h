// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Reads the headers of a packet: addresses, ports, what tells it apart, what is inside of it.

#pragma once

#include "records.bpf.h"

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
INLINE u16 from_network(u16 value) { return __builtin_bswap16(value); }
#else
INLINE u16 from_network(u16 value) { return value; }
#endif

// What tells packets apart, and stays the same through translation of addresses and ports: length and identification or
// flow label, TCP's sequence number, the begin of UDP's payload.
INLINE u32 print_of(u8 a, u8 b, u8 c, u8 d) { return a | b << 8 | c << 16 | (u32)d << 24; }
INLINE u32 print_of_ipv4(const u8 *header) { return print_of(header[2], header[3], header[4], header[5]); }
INLINE u32 print_of_ipv6(const u8 *header) { return print_of(header[2], header[3], header[4], header[5]); }
INLINE u32 print_of_tcp(const u8 *header) { return print_of(header[4], header[5], header[6], header[7]); }
INLINE u32 print_of_payload(const u8 *data)
{
	return print_of(data[0], data[1], data[2], data[3]) ^ print_of(data[7], data[4], data[5], data[6]);
}

// Bytes of the linear part of the packet, from "at". 0 when they are there.
INLINE int bytes(void *to, u32 size, u64 at, u64 end)
{
	return at + size <= end ? (int)read_kernel(to, size, (const void *)at) : -1;
}

// Read addresses, and give where the next header begins, 0 for what is no IP packet.
APART u64 internet(u64 at, u64 end, u16 protocol, struct tuple *tuple, u32 *print)
{
	u8 header[40] = {};
	if (!tuple || !print || bytes(header, 20, at, end))
		return 0;
	u32 version = header[0] >> 4;
	if (version == 4 && (protocol == 0 || protocol == 0x0800)) {
		tuple->version = 4;
		tuple->protocol = header[9];
		__builtin_memset(tuple->source, 0, 16);
		__builtin_memset(tuple->destination, 0, 16);
		__builtin_memcpy(tuple->source, header + 12, 4);
		__builtin_memcpy(tuple->destination, header + 16, 4);
		*print = print_of_ipv4(header);
		// Of fragments only the first has ports.
		if ((header[6] & 0x1f) | header[7])
			return end;
		return at + (header[0] & 15) * 4;
	}
	if (version == 6 && (protocol == 0 || protocol == 0x86dd)) {
		if (bytes(header, 40, at, end))
			return 0;
		tuple->version = 6;
		__builtin_memcpy(tuple->source, header + 8, 16);
		__builtin_memcpy(tuple->destination, header + 24, 16);
		*print = print_of_ipv6(header);
		u8 next = header[6];
		at += 40;
		for (int i = 0; i < 4; i++) {
			u8 extension[4];
			if (next != 0 && next != 43 && next != 44 && next != 60)
				break;
			if (bytes(extension, 4, at, end))
				break;
			if (next == 44 && (extension[2] || extension[3] & 0xf8)) {
				at = end;
				next = extension[0];
				break;
			}
			at += next == 44 ? 8 : (extension[1] + 1) * 8;
			next = extension[0];
		}
		tuple->protocol = next;
		return at;
	}
	return 0;
}

APART int transport(u64 at, u64 end, struct tuple *tuple, struct answers *answers, u32 *print)
{
	u8 header[16] = {};
	if (!tuple || !answers || !print)
		return 0;
	tuple->source_port = tuple->destination_port = 0;
	if (bytes(header, 16, at, end) && bytes(header, 8, at, end))
		return 0;
	switch (tuple->protocol) {
	case 6:
		answers->flags = header[13];
		*print ^= print_of_tcp(header);
		break;
	case 17:
		*print ^= print_of_payload(header + 8);
		break;
	case 132:
		break;
	case 1:
	case 58:
		answers->icmp_type = header[0];
		answers->icmp_code = header[1];
		*print ^= header[6] | header[7] << 8;
		return 0;
	default:
		return 0;
	}
	tuple->source_port = header[0] << 8 | header[1];
	tuple->destination_port = header[2] << 8 | header[3];
	return 0;
}

INLINE int is_error(const struct tuple *tuple, u8 type)
{
	if (tuple->protocol == 1)
		return type == 3 || type == 11 || type == 12;
	return tuple->protocol == 58 && type >= 1 && type <= 4;
}

// Look into a tunnel: IP in IP, or VXLAN. Gives where the packet inside begins, or 0.
INLINE u64 inside(u64 at, u64 end, const struct tuple *outer, u32 vxlan_port)
{
	if (outer->protocol == 4 || outer->protocol == 41)
		return at;
	if (outer->protocol == 17 && vxlan_port && outer->destination_port == vxlan_port) {
		u8 kind[2];
		// UDP 8, VXLAN 8, Ethernet 14 with the type as its last two bytes.
		if (bytes(kind, 2, at + 28, end))
			return 0;
		if ((kind[0] == 0x08 && kind[1] == 0x00) || (kind[0] == 0x86 && kind[1] == 0xdd))
			return at + 30;
	}
	return 0;
}
