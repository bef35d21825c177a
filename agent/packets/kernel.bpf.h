// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// What is taken from the kernel: types, helpers (numbers of include/uapi/linux/bpf.h), and of its structures only the
// members that are read; the loader relocates them against the running kernel's BTF (preserve_access_index).

#pragma once

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
