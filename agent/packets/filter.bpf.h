// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Whether a packet is of the flow: by what is looked for, or because it was seen before.

#pragma once

#include "headers.bpf.h"

APART int known(const struct tuple *tuple, u32 shapes, u32 *which)
{
	u32 *found = 0;
	if (!tuple || !which)
		return 0;
	struct tuple key = *tuple;
	if (shapes & FULL)
		found = lookup(&cdebug_tuples, &key);
	if (!found && shapes & ANY_SOURCE_PORT) {
		key.source_port = 0;
		found = lookup(&cdebug_tuples, &key);
		key.source_port = tuple->source_port;
	}
	if (!found && shapes & ANY_DESTINATION_PORT) {
		key.destination_port = 0;
		found = lookup(&cdebug_tuples, &key);
	}
	if (!found && shapes & ANY_PORTS) {
		key.source_port = key.destination_port = 0;
		found = lookup(&cdebug_tuples, &key);
	}
	if (!found && shapes & ANY_PEER) {
		key.source_port = key.destination_port = 0;
		key.protocol = 0;
		__builtin_memset(key.destination, 0, 16);
		found = lookup(&cdebug_tuples, &key);
	}
	if (!found && shapes & ANY_PEER) {
		__builtin_memset(key.source, 0, 16);
		__builtin_memcpy(key.destination, tuple->destination, 16);
		found = lookup(&cdebug_tuples, &key);
	}
	if (!found)
		return 0;
	*which = *found;
	return 1;
}

// Mixes the bits of an address (MurmurHash3's finalizer); core/decode/packet_events.py does the same.
INLINE u32 mixed(const u32 *words, int count)
{
	u32 hash = 0;
	for (int i = 0; i < count; i++) {
		hash ^= words[i];
		hash = (hash ^ hash >> 16) * 0x85ebca6b;
		hash = (hash ^ hash >> 13) * 0xc2b2ae35;
		hash ^= hash >> 16;
	}
	return hash;
}

INLINE u64 has(const struct settings *given, u32 hash)
{
	u32 bit = hash & (ADDRESS_BITS - 1);
	return given->addresses[bit / 64] >> bit % 64 & 1;
}

// What one look at a packet finds. Without a kind there is more to look at.
struct glance { struct look look; u32 print, place; };

// Whether it is worth while to look a packet up: nearly every packet of others fails here, where it costs least.
INLINE int worth_a_look(u64 at, u64 end, const struct settings *given, struct glance *found)
{
	// With the first eight bytes behind, which are ports and TCP's sequence number where nothing is in between.
	u32 header[12];
	const u8 *byte = (const u8 *)header;
	u32 from, to, kind, ports;
	found->look.kind = 0;
	if (bytes(header, 28, at, end))
		return 1;
	u32 version = byte[0] >> 4;
	if (byte[0] == 0x45) {
		kind = byte[9];
		from = mixed(header + 3, 1);
		to = mixed(header + 4, 1);
		ports = header[5];
	} else if (version == 6) {
		if (bytes(header, 48, at, end))
			return 1;
		kind = byte[6];
		from = mixed(header + 2, 4);
		to = mixed(header + 6, 4);
		ports = header[10];
	} else {
		return 1;
	}
	u32 one = ports & 0xffff, other = ports >> 16, both = from ^ to;
	// ICMP errors and tunnels have what is looked for inside; IPv6's extension headers may hide either.
	if (kind != 6 && (kind != 17 || from_network(one) == given->vxlan_port || from_network(other) == given->vxlan_port))
		return 1;
	if (!(has(given, both) | has(given, both ^ mixed(&one, 1)) | has(given, both ^ mixed(&other, 1)) |
	      has(given, from) | has(given, to)))
		return 0;
	if (version == 4) {
		// Of fragments only the first has ports.
		if ((byte[6] & 0x1f) | byte[7])
			return 1;
		__builtin_memset(found->look.addresses, 0, 32);
		found->look.addresses[0] = header[3];
		found->look.addresses[1] = header[4];
		found->print = print_of_ipv4(byte);
	} else {
		__builtin_memcpy(found->look.addresses, header + 2, 32);
		found->print = print_of_ipv6(byte);
	}
	u32 behind = version == 4 ? 20 : 40;
	if (kind == 6) {
		found->print ^= print_of_tcp(byte + behind);
	} else {
		u8 payload[8] = {};
		bytes(payload, 8, at + behind + 8, end);
		found->print ^= print_of_payload(payload);
	}
	found->look.ports = ports;
	found->look.flows = given->flows;
	found->look.version = version;
	found->look.kind = kind;
	// Both directions have places of their own.
	found->place = from ^ to >> RECENT_BITS;
	return 1;
}

// Whether the quotation in an ICMP error is of the flow: then the error is one about it, and goes the other way.
INLINE int quoted(u64 at, u64 end, u32 shapes, u32 *which, u32 *print)
{
	struct tuple inside = {};
	struct answers answers;
	u32 print_inside = 0;
	u64 next = internet(at + 8, end, 0, &inside, &print_inside);
	if (!next)
		return 0;
	transport(next, end, &inside, &answers, &print_inside);
	*print ^= print_inside;
	if (!known(&inside, shapes, which))
		return 0;
	*which ^= 1;
	return 1;
}

// Find out whether the packet is of the flow. Fills the headers; gives 1 when it is.
INLINE int ours(u64 at, u64 end, u16 protocol, const struct settings *given, struct followed *slot, struct event *event)
{
	u32 which = 0, print = 0, shapes = given->shapes;
	struct tuple tuple = {};
	struct answers answers = {};
	u64 next = internet(at, end, protocol, &tuple, &print);
	if (!next)
		return 0;
	transport(next, end, &tuple, &answers, &print);
	event->headers = tuple;
	event->answers = answers;
	event->fingerprint = print;
	if (given->mode & DROPS_ONLY)
		return 1;
	event->how = BY_TUPLE;
	if (known(&tuple, shapes, &which))
		goto found;
	if (is_error(&tuple, answers.icmp_type) && quoted(next, end, shapes, &which, &event->fingerprint)) {
		event->how |= ICMP_ERROR;
		goto found;
	}
	u64 packet = inside(next, end, &tuple, given->vxlan_port);
	if (packet) {
		struct tuple inner = {};
		u32 print_inside = 0;
		next = internet(packet, end, 0, &inner, &print_inside);
		if (next) {
			transport(next, end, &inner, &answers, &print_inside);
			event->fingerprint = print_inside;
			if (known(&inner, shapes, &which)) {
				event->headers = inner;
				event->answers = answers;
				event->how |= IN_TUNNEL;
				goto found;
			}
		}
	}
	u64 what;
	if (!slot || slot->packet != event->packet)
		return 0;
	// Memory is used again: what is sent where the last packet at this place has not been is another one.
	if (event->kind == SENT && slot->netns != event->netns)
		return 0;
	what = slot->what;
	if ((u32)what != event->fingerprint || ((MS_OF(now()) - (what >> 42)) & 0x3fffff) > FOLLOW_MS)
		return 0;
	which = what >> 32 & 0x3ff;
	event->how = BY_IDENTITY;
found:
	event->which = which;
	return 1;
}
