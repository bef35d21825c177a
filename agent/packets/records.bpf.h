// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// What the programs remember, and what they share with core/decode/packet_events.py: events, settings, counts, maps.

#pragma once

#include "kernel.bpf.h"

enum { RECEIVED = 1, SENT = 2, DROPPED = 3 };
enum { BY_TUPLE = 1, BY_IDENTITY = 2, IN_TUNNEL = 4, ICMP_ERROR = 8 };
enum { FULL = 1, ANY_SOURCE_PORT = 2, ANY_DESTINATION_PORT = 4, ANY_PORTS = 8, ANY_PEER = 16 };
enum { DROPS_ONLY = 1 };
enum { SNAP = 2048 };
// Addresses that are looked for, as a table of bits: what is not in it need not be looked up.
enum { ADDRESS_WORDS = 128, ADDRESS_BITS = 64 * ADDRESS_WORDS };
enum { FOLLOWED = 4096 };
// Places for packets that were looked up lately, for each CPU and program.
enum { RECENT_BITS = 6, RECENT = 1 << RECENT_BITS };
// Bytes of events that wait for their reader, who looks ten times a second, or is woken when a quarter is used.
enum { RING = 4 << 20, WAKE_AT = RING / 4 };

// How long a packet that was seen by its addresses is known by its place in memory and its contents: about a second.
#define FOLLOW_MS 1000
#define MS_OF(time) ((time) >> 20 & 0x3fffff)

struct tuple {
	u8 source[16], destination[16];
	u16 source_port, destination_port;
	u8 protocol, version;
	u16 zero;
};

// What tells answers: flags of TCP, or ICMP's type and code.
struct answers { u8 flags, icmp_type, icmp_code; };

// One event; core/decode/packet_events.py reads the same.
struct event {
	u64 time, packet, location;
	u32 netns, ifindex, length, mark, reason, fingerprint;
	u16 kind, which;
	char interface[16];
	struct tuple headers;
	u8 how;
	struct answers answers;
	u16 captured, zero;
	u8 data[SNAP];
};

// Purged: the reason of what a closed socket had not read, where that is no drop; its packets have no device any more.
// Price and burst are of the rate limit: what an event costs, and the most that may be saved for events, in nanoseconds.
struct settings { u32 shapes, mode, vxlan_port, snap, flows, purged; u64 price, burst, addresses[ADDRESS_WORDS]; };
// The last three are of the rate limit: the time, as of which tick, and how much of it is left for events.
struct totals { u64 matched, ring_full, limited, unreadable, time, tick, credit; };
// What: fingerprint 32 bits, which 10, milliseconds 22. In one word each, since two CPUs may write at once.
struct followed { u64 packet, what, netns; };
// All that a packet of TCP or UDP is looked up by, as it stands in the packet, and for how many flows that was.
struct look { u32 addresses[8], ports, netns, flows; u16 protocol; u8 version, kind; };
struct recent { struct look look; u64 which; };

struct { UINT(type, ARRAY); UINT(max_entries, 1); TYPE(key, u32); TYPE(value, struct settings); } cdebug_settings SEC(".maps");
struct { UINT(type, HASH); UINT(max_entries, 1024); TYPE(key, struct tuple); TYPE(value, u32); } cdebug_tuples SEC(".maps");
struct { UINT(type, HASH); UINT(max_entries, 4096); TYPE(key, u32); TYPE(value, u32); } cdebug_namespaces SEC(".maps");
// By place in memory; a later packet takes the place of an earlier one.
struct { UINT(type, ARRAY); UINT(max_entries, FOLLOWED); TYPE(key, u32); TYPE(value, struct followed); } cdebug_follow SEC(".maps");
// One entry for each of the three programs: one may interrupt another on its CPU, but never itself.
struct { UINT(type, PERCPU_ARRAY); UINT(max_entries, 4); TYPE(key, u32); TYPE(value, struct totals); } cdebug_totals SEC(".maps");
struct { UINT(type, PERCPU_ARRAY); UINT(max_entries, 4); TYPE(key, u32); TYPE(value, struct event); } cdebug_scratch SEC(".maps");
struct { UINT(type, PERCPU_ARRAY); UINT(max_entries, 4 * RECENT); TYPE(key, u32); TYPE(value, struct recent); } cdebug_recent SEC(".maps");
struct { UINT(type, RINGBUF); UINT(max_entries, RING); } cdebug_events SEC(".maps");
