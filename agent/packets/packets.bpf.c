// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Where packets of a flow are seen on this node, and where they end: received by an interface, handed to one for
// sending, or freed with a reason. Three tracepoints, which touch no interface and no packet.
//
// Everything that is taken from the kernel is declared here with only the members that are read; the loader relocates
// them against the running kernel's BTF (preserve_access_index). Tracepoints: include/trace/events/net.h and skb.h;
// kfree_skb has its reason since Linux 5.17.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
// The verifier looks at these once, not at every call.
#define APART __attribute__((noinline))
#define KERNEL __attribute__((preserve_access_index))

// Map declarations as libbpf reads them from BTF; numbers of include/uapi/linux/bpf.h.
#define UINT(name, value) int (*name)[value]
#define TYPE(name, value) value *name
enum { HASH = 1, ARRAY = 2, PERCPU_ARRAY = 6, RINGBUF = 27 };
enum { NO_WAKEUP = 1, FORCE_WAKEUP = 2, AVAILABLE = 0 };

static void *(*const lookup)(void *map, const void *key) = (void *)1;
static u64 (*const now)(void) = (void *)5;
static u64 (*const ticks)(void) = (void *)118;
static long (*const read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*const emit)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static u64 (*const query)(void *ring, u64 flags) = (void *)134;

// Dual licensed; the kernel wants one of its own words for what may call the helpers above.
char LICENSE[] SEC("license") = "GPL";

struct ns_common { u32 inum; } KERNEL;
struct net { struct ns_common ns; } KERNEL;
typedef struct { struct net *net; } possible_net_t;
struct net_device { char name[16]; int ifindex; possible_net_t nd_net; } KERNEL;
struct sock_common { possible_net_t skc_net; } KERNEL;
struct sock { struct sock_common __sk_common; } KERNEL;
struct dst_entry { struct net_device *dev; } KERNEL;
struct sk_buff {
	struct net_device *dev;
	struct sock *sk;
	unsigned long _skb_refdst;
	unsigned int len, data_len;
	u32 mark;
	u16 protocol, network_header;
	unsigned char *head, *data;
} KERNEL;

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

// The device of a packet, or the one that it is routed to, as a number.
INLINE u64 device(struct sk_buff *skb)
{
	u64 dev = 0;
	read_kernel(&dev, sizeof(dev), &skb->dev);
	if (dev)
		return dev;
	struct dst_entry *way = (struct dst_entry *)(skb->_skb_refdst & ~1UL);
	if (way)
		read_kernel(&dev, sizeof(dev), &way->dev);
	return dev;
}

// The namespace of a device, or else of a socket, of which only the addresses are known.
APART u32 namespace_at(u64 device, u64 socket)
{
	struct net_device *dev = (struct net_device *)device;
	struct sock *sk = (struct sock *)socket;
	struct net *net = 0;
	u32 inode = 0;
	if (dev)
		read_kernel(&net, sizeof(net), &dev->nd_net.net);
	else if (sk)
		read_kernel(&net, sizeof(net), &sk->__sk_common.skc_net.net);
	if (net)
		read_kernel(&inode, sizeof(inode), &net->ns.inum);
	return inode;
}

INLINE u32 namespace_of(struct sk_buff *skb)
{
	// The usual way, without a call.
	if (skb->dev)
		return skb->dev->nd_net.net->ns.inum;
	u64 sk = 0;
	read_kernel(&sk, sizeof(sk), &skb->sk);
	return namespace_at(device(skb), sk);
}

INLINE int same(const struct look *one, const struct look *other)
{
	const u64 *a = (const u64 *)one, *b = (const u64 *)other;
	u64 difference = 0;
	for (u32 word = 0; word < sizeof(*one) / 8; word++)
		difference |= a[word] ^ b[word];
	return !difference;
}

// Whether no event can be told now: time gives credit, and each event costs of it. The clock is read once a tick, as it
// costs as much as a look-up.
INLINE int used_up(struct totals *total, const struct settings *given)
{
	u64 tick = ticks();
	if (total->tick != tick) {
		u64 time = now(), credit = total->credit + (time - total->time);
		total->credit = credit < given->burst ? credit : given->burst;
		total->time = time;
		total->tick = tick;
	}
	return total->credit < given->price;
}

INLINE void follow(struct followed *slot, u16 kind, u64 packet, u32 netns, u32 print, u32 which, u64 time)
{
	slot->packet = kind == DROPPED ? 0 : packet;
	slot->netns = netns;
	slot->what = print | (u64)(which & 0x3ff) << 32 | MS_OF(time) << 42;
}

// Through memory: the verifier lets nobody calculate with a pointer, and what it thinks of one to bytes differs from
// release to release.
INLINE u64 as_number(struct event *event, const void *pointer)
{
	*(volatile u64 *)&event->packet = (u64)pointer;
	return *(volatile u64 *)&event->packet;
}

INLINE int see(struct sk_buff *skb, u16 kind, u64 location, u32 reason)
{
	u32 zero = 0, own = kind;
	struct settings *given = lookup(&cdebug_settings, &zero);
	struct event *event = lookup(&cdebug_scratch, &own);
	if (!given || !event)
		return 0;
	if (reason && reason == given->purged && !skb->dev)
		return 0;
	u64 packet = as_number(event, skb);
	u32 place = packet >> 8 & (FOLLOWED - 1);
	struct followed *slot = lookup(&cdebug_follow, &place);
	if (!slot)
		return 0;
	u64 data = as_number(event, skb->data), end = data + (skb->len - skb->data_len);
	u16 protocol = from_network(skb->protocol);
	// A received packet's network header is not set yet, and its data begin with it.
	u64 at = kind == RECEIVED ? data : as_number(event, skb->head) + skb->network_header;
	if (kind == RECEIVED && (protocol == 0x8100 || protocol == 0x88a8)) {
		at += 4;
		protocol = 0;
	}
	int every = given->mode & DROPS_ONLY;
	struct glance glance;
	glance.look.kind = 0;
	if (!every && !worth_a_look(at, end, given, &glance) && slot->packet != packet)
		return 0;
	u32 inode = namespace_of(skb);
	struct totals *total = lookup(&cdebug_totals, &own);
	if (!total)
		return 0;
	int limited = used_up(total, given);
	struct recent *recent = 0;
	if (glance.look.kind) {
		glance.look.netns = inode;
		glance.look.protocol = protocol;
		u32 near = kind << RECENT_BITS | ((glance.place ^ inode) & (RECENT - 1));
		recent = lookup(&cdebug_recent, &near);
		// The next packet of many that are only counted.
		if (limited && recent && same(&recent->look, &glance.look)) {
			total->matched++;
			total->limited++;
			follow(slot, kind, packet, inode, glance.print, recent->which, total->time);
			return 0;
		}
	}
	if (!lookup(&cdebug_namespaces, &inode))
		return 0;
	event->packet = packet;
	event->kind = kind;
	event->netns = inode;
	event->how = 0;
	event->which = 0;
	if (!ours(at, end, protocol, given, slot, event)) {
		if (kind == DROPPED && every)
			total->unreadable++;
		return 0;
	}
	event->time = now();
	total->matched++;
	if (!every)
		follow(slot, kind, packet, inode, event->fingerprint, event->which, event->time);
	if (recent && event->how == BY_TUPLE) {
		recent->look = glance.look;
		recent->which = event->which;
	}
	if (limited) {
		total->limited++;
		return 0;
	}
	total->credit -= given->price;
	event->location = location;
	event->length = skb->len;
	event->mark = skb->mark;
	event->reason = reason;
	event->ifindex = 0;
	event->interface[0] = 0;
	struct net_device *dev = (struct net_device *)device(skb);
	if (dev) {
		read_kernel(&event->ifindex, sizeof(event->ifindex), &dev->ifindex);
		read_kernel(event->interface, sizeof(event->interface), &dev->name);
	}
	u64 wanted = given->snap;
	if (at + wanted > end)
		wanted = end > at ? end - at : 0;
	// The verifier has to see the limit in the very register that is used.
	__asm__ volatile("" : "+r"(wanted));
	if (wanted > SNAP || read_kernel(event->data, wanted, (const void *)at))
		wanted = 0;
	event->captured = wanted;
	// Once, when a quarter is reached: to wake somebody for each event costs more than all the rest.
	u64 wake = query(&cdebug_events, AVAILABLE) - WAKE_AT < 2 * sizeof(*event) ? FORCE_WAKEUP : NO_WAKEUP;
	if (emit(&cdebug_events, event, (u32)__builtin_offsetof(struct event, data) + wanted, wake))
		total->ring_full++;
	return 0;
}

SEC("tp_btf/netif_receive_skb") int cdebug_received(u64 *context)
{
	return see((struct sk_buff *)context[0], RECEIVED, 0, 0);
}

SEC("tp_btf/net_dev_queue") int cdebug_sent(u64 *context)
{
	return see((struct sk_buff *)context[0], SENT, 0, 0);
}

SEC("tp_btf/kfree_skb") int cdebug_dropped(u64 *context)
{
	return see((struct sk_buff *)context[0], DROPPED, context[1], (u32)context[2]);
}
