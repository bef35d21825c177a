// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Where packets of a flow are seen on this node, and where they end: received by an interface, handed to one for
// sending, or freed with a reason. Three tracepoints, which touch no interface and no packet.
//
// Tracepoints: include/trace/events/net.h and skb.h; kfree_skb has its reason since Linux 5.17.

#include "filter.bpf.h"

// Dual licensed; the kernel wants one of its own words for what may call its helpers.
char LICENSE[] SEC("license") = "GPL";

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
