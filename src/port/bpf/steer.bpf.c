/* SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
 *
 * Steers the frames that finwheel has claimed into its AF_XDP sockets; everything else goes to the kernel.
 *
 *   frame ─▶ Ethernet, VLAN tags ─▶ IPv4 │ IPv6 + extension headers ─▶ TCP: destination claimed? ─┐
 *                                                                  └▶ ICMP error: quoted source?  ─┤
 *   kernel ◀── XDP_PASS ── no ◀───────────────────────────────────────────────────────────────────┤
 *   XSKMAP[rx queue] ◀── yes, and a socket is there ◀──────────────────────────────────────────────┤
 *   XDP_DROP ◀── yes, no socket, and the lease runs ◀──────────────────────────────────────────────┘
 *
 * Maps, all written by user space (src/port/bpf/mod.rs) but the counters:
 *   claims    (address, port)    -> 1        listeners; the unspecified address claims the port on all of a family
 *   ranges    address            -> lo..=hi  local ports of outbound connections
 *   xsks      rx queue           -> socket
 *   lease     [0]                -> deadline on CLOCK_MONOTONIC in ns, moved on by a heartbeat
 *   counters  per CPU, by enum counter
 *
 * The lease: when the process is gone, its sockets are gone from `xsks`, while this program stays attached. Up to
 * the deadline claimed frames are dropped, so that peers retransmit to a process that comes back; handed to the
 * kernel they would be answered with RST. Past the deadline the kernel has its traffic back.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

/* 802.1Q inside 802.1ad is the deepest stack that is in use; a third tag goes to the kernel. */
#define MAX_VLAN_TAGS 2
/* Extension headers walked before TCP. RFC 8200 section 4.1 names seven; more than that is no honest traffic. */
#define MAX_EXTENSION_HEADERS 7
/* Listener claims and outbound addresses; inserting more fails in user space with a named error. */
#define MAX_CLAIMS 4096
#define MAX_RANGES 1024
/* Replaced by the loader with the number of queues of the interface. */
#define MAX_QUEUES 64

#define PROTO_HOPOPTS 0
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_AH 51
#define PROTO_ICMPV6 58
#define PROTO_DSTOPTS 60

/* Kept in step with `Counter` in src/port/bpf/mod.rs. Each frame is counted under exactly one. */
enum counter {
	COUNT_PASSED = 0,            /* not claimed: to the kernel */
	COUNT_REDIRECTED = 1,        /* claimed TCP: to the socket */
	COUNT_ICMP_REDIRECTED = 2,   /* ICMP error about a claimed flow: to the socket */
	COUNT_DROPPED_NO_SOCKET = 3, /* claimed, no socket on this queue, lease runs: dropped */
	COUNT_LEASE_OVER = 4,        /* claimed, no socket on this queue, lease over: to the kernel */
	COUNT_MALFORMED = 5,         /* ends within a header or contradicts itself: to the kernel */
	COUNTERS = 6,
};

struct address {
	__u32 word[4]; /* network order; IPv4 as ::ffff:a.b.c.d */
};

struct claim_key {
	struct address addr;
	__be16 port;
	__u16 zero;
};

struct port_range {
	__u16 lo; /* host order, inclusive */
	__u16 hi;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct claim_key);
	__type(value, __u32);
	__uint(max_entries, MAX_CLAIMS);
} claims SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct address);
	__type(value, struct port_range);
	__uint(max_entries, MAX_RANGES);
} ranges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, MAX_QUEUES);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} lease SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, COUNTERS);
} counters SEC(".maps");

struct vlan_tag {
	__be16 tci;
	__be16 proto;
};

struct ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_len;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 src;
	__u32 dst;
};

struct ipv6 {
	__u8 version;
	__u8 rest[3];
	__be16 payload_len;
	__u8 next;
	__u8 hops;
	struct address src;
	struct address dst;
};

struct extension {
	__u8 next;
	__u8 len; /* units of 8 bytes beyond the first; AH: of 4 bytes, minus 2 */
	__be16 fragment;
	__u32 id;
};

struct ports {
	__be16 src;
	__be16 dst;
};

struct icmp {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u32 rest;
};

/* What the IP layer of a frame, or of the packet an ICMP error quotes, turned out to be. */
struct packet {
	struct address src;
	struct address dst;
	void *payload;
	__u8 protocol;
};

enum walk {
	WALK_OK,
	WALK_PASS,      /* nothing to steer: to the kernel */
	WALK_MALFORMED, /* as WALK_PASS, counted */
};

static __always_inline int count(__u32 which, int action)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &which);

	if (n)
		*n += 1;
	return action;
}

static __always_inline void map_v4(struct address *out, __u32 v4)
{
	out->word[0] = 0;
	out->word[1] = 0;
	out->word[2] = bpf_htonl(0xffff);
	out->word[3] = v4;
}

/* Whether (addr, port) is a listener's or lies in an outbound range. */
static __always_inline int claimed(const struct address *addr, __be16 port)
{
	struct claim_key key = { .addr = *addr, .port = port };
	struct port_range *range;
	__u16 host_port = bpf_ntohs(port);

	if (bpf_map_lookup_elem(&claims, &key))
		return 1;
	if (addr->word[0] == 0 && addr->word[1] == 0 && addr->word[2] == bpf_htonl(0xffff))
		map_v4(&key.addr, 0);
	else
		__builtin_memset(&key.addr, 0, sizeof(key.addr));
	if (bpf_map_lookup_elem(&claims, &key))
		return 1;
	range = bpf_map_lookup_elem(&ranges, addr);
	return range && range->lo <= host_port && host_port <= range->hi;
}

/* Options are skipped. Of a fragmented packet the first fragment, which holds the ports, is steered: finwheel
 * does not reassemble and counts it, and the kernel, which never sees it, cannot answer for the connection with
 * a RST. Later fragments hold no ports and go to the kernel, where they age out. */
static __always_inline enum walk walk_v4(struct packet *p, void *pos, void *end)
{
	struct ipv4 *ip = pos;
	__u32 header;

	if ((void *)(ip + 1) > end)
		return WALK_MALFORMED;
	header = (ip->version_ihl & 0x0f) * 4;
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip))
		return WALK_MALFORMED;
	if (ip->fragment & bpf_htons(0x1fff))
		return WALK_PASS;
	map_v4(&p->src, ip->src);
	map_v4(&p->dst, ip->dst);
	p->protocol = ip->protocol;
	p->payload = pos + header;
	return WALK_OK;
}

static __always_inline enum walk walk_v6(struct packet *p, void *pos, void *end)
{
	struct ipv6 *ip = pos;
	struct extension *ext;
	__u8 next;

	if ((void *)(ip + 1) > end || ip->version >> 4 != 6)
		return WALK_MALFORMED;
	p->src = ip->src;
	p->dst = ip->dst;
	next = ip->next;
	pos += sizeof(*ip);

#pragma unroll
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		if (next != PROTO_HOPOPTS && next != PROTO_ROUTING && next != PROTO_DSTOPTS &&
		    next != PROTO_FRAGMENT && next != PROTO_AH)
			break;
		ext = pos;
		if ((void *)(ext + 1) > end)
			return WALK_MALFORMED;
		if (next == PROTO_FRAGMENT) {
			if (ext->fragment & bpf_htons(0xfff8))
				return WALK_PASS;
			pos += sizeof(*ext);
		} else if (next == PROTO_AH) {
			pos += ((__u32)ext->len + 2) * 4;
		} else {
			pos += ((__u32)ext->len + 1) * 8;
		}
		next = ext->next;
	}
	p->protocol = next;
	p->payload = pos;
	return WALK_OK;
}

static __always_inline int to_socket(struct xdp_md *ctx, __u32 counter)
{
	__u32 zero = 0;
	__u64 *deadline;

	/* With no socket in the slot the helper returns the action in its flags: 0, XDP_ABORTED. */
	if (bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_ABORTED) == XDP_REDIRECT)
		return count(counter, XDP_REDIRECT);
	deadline = bpf_map_lookup_elem(&lease, &zero);
	if (deadline && bpf_ktime_get_ns() < *deadline)
		return count(COUNT_DROPPED_NO_SOCKET, XDP_DROP);
	return count(COUNT_LEASE_OVER, XDP_PASS);
}

/* An ICMP error is ours when the packet it quotes was sent from a claimed address and port (RFC 792, RFC 4443
 * section 2.4: at least 8 bytes past the quoted IP header, which is where TCP keeps its ports). */
static __always_inline int steer_icmp(struct xdp_md *ctx, struct packet *p, void *end)
{
	struct icmp *icmp = p->payload;
	struct packet quoted = {};
	struct ports *ports;
	enum walk walk;

	if ((void *)(icmp + 1) > end)
		return count(COUNT_MALFORMED, XDP_PASS);
	if (p->protocol == IPPROTO_ICMP) {
		/* Destination unreachable, time exceeded, parameter problem. */
		if (icmp->type != 3 && icmp->type != 11 && icmp->type != 12)
			return count(COUNT_PASSED, XDP_PASS);
		walk = walk_v4(&quoted, icmp + 1, end);
	} else {
		/* Destination unreachable, packet too big, time exceeded, parameter problem. */
		if (icmp->type < 1 || icmp->type > 4)
			return count(COUNT_PASSED, XDP_PASS);
		walk = walk_v6(&quoted, icmp + 1, end);
	}
	if (walk == WALK_MALFORMED)
		return count(COUNT_MALFORMED, XDP_PASS);
	if (walk == WALK_PASS || quoted.protocol != IPPROTO_TCP)
		return count(COUNT_PASSED, XDP_PASS);
	ports = quoted.payload;
	if ((void *)(ports + 1) > end)
		return count(COUNT_MALFORMED, XDP_PASS);
	if (!claimed(&quoted.src, ports->src))
		return count(COUNT_PASSED, XDP_PASS);
	return to_socket(ctx, COUNT_ICMP_REDIRECTED);
}

SEC("xdp")
int finwheel_steer(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	void *pos = (void *)(long)ctx->data;
	struct ethhdr *eth = pos;
	struct packet p = {};
	struct ports *ports;
	struct vlan_tag *tag;
	enum walk walk;
	__be16 proto;

	if ((void *)(eth + 1) > end)
		return count(COUNT_MALFORMED, XDP_PASS);
	proto = eth->h_proto;
	pos = eth + 1;
#pragma unroll
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		tag = pos;
		if ((void *)(tag + 1) > end)
			return count(COUNT_MALFORMED, XDP_PASS);
		proto = tag->proto;
		pos = tag + 1;
	}

	if (proto == bpf_htons(ETH_P_IP))
		walk = walk_v4(&p, pos, end);
	else if (proto == bpf_htons(ETH_P_IPV6))
		walk = walk_v6(&p, pos, end);
	else
		return count(COUNT_PASSED, XDP_PASS);
	if (walk == WALK_MALFORMED)
		return count(COUNT_MALFORMED, XDP_PASS);
	if (walk == WALK_PASS)
		return count(COUNT_PASSED, XDP_PASS);

	if ((p.protocol == IPPROTO_ICMP && proto == bpf_htons(ETH_P_IP)) ||
	    (p.protocol == PROTO_ICMPV6 && proto == bpf_htons(ETH_P_IPV6)))
		return steer_icmp(ctx, &p, end);
	if (p.protocol != IPPROTO_TCP)
		return count(COUNT_PASSED, XDP_PASS);
	ports = p.payload;
	if ((void *)(ports + 1) > end)
		return count(COUNT_MALFORMED, XDP_PASS);
	if (!claimed(&p.dst, ports->dst))
		return count(COUNT_PASSED, XDP_PASS);
	return to_socket(ctx, COUNT_REDIRECTED);
}

/* Some helpers are for GPL-compatible programs alone. */
char _license[] SEC("license") = "Dual MIT/GPL";
