/* A machine with lwIP on a veth, for tests/veth/lwip.rs: an Ethernet address and an IP address of its own, on a packet
 * socket beside the kernel's stack, which takes neither for its own.
 *
 *   lwip_peer INTERFACE ADDRESS client PEER PORT half|full|peer
 *       sends its standard input and writes what it receives to standard output;
 *       half: shuts down after sending; full: closes once as much came back; peer: waits for the peer's FIN, then closes
 *   lwip_peer INTERFACE ADDRESS server PORT CONNECTIONS
 *       says "ready" on standard output, then echoes that many connections, one after the other
 *
 * Build: cc lwip_peer.c -I/usr/include/lwip -llwip -lpthread
 */
#include <arpa/inet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lwip/api.h"
#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/tcpip.h"

#define CHECK(what, ok) do { if (!(ok)) { perror(what); exit(1); } } while (0)
#define LWIP(what, call) do { err_t e_ = (call); if (e_ != ERR_OK) { \
	fprintf(stderr, "%s: lwIP error %d\n", what, e_); exit(1); } } while (0)

static int fd;
static struct netif interface;

static err_t transmit(struct netif *netif, struct pbuf *p)
{
	char frame[2048];
	u16_t n = pbuf_copy_partial(p, frame, sizeof(frame), 0);

	(void)netif;
	return send(fd, frame, n, 0) == n ? ERR_OK : ERR_IF;
}

static err_t begin(struct netif *netif)
{
	static const u8_t mac[6] = { 2, 0, 0, 'l', 'w', 'i' };

	netif->name[0] = 'l';
	netif->name[1] = 'w';
	netif->output = etharp_output;
	netif->output_ip6 = ethip6_output;
	netif->linkoutput = transmit;
	netif->mtu = 1500;
	netif->hwaddr_len = sizeof(mac);
	memcpy(netif->hwaddr, mac, sizeof(mac));
	netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP |
		       NETIF_FLAG_MLD6;
	return ERR_OK;
}

static void *receive(void *unused)
{
	char frame[2048];

	(void)unused;
	for (;;) {
		ssize_t n = recv(fd, frame, sizeof(frame), 0);
		struct pbuf *p;

		CHECK("recv", n >= 0);
		/* Not from the pool: in Debian's library (2.1.3) its buffers are shorter than it believes. */
		p = pbuf_alloc(PBUF_RAW, (u16_t)n, PBUF_RAM);
		if (!p)
			continue;
		pbuf_take(p, frame, (u16_t)n);
		if (interface.input(p, &interface) != ERR_OK)
			pbuf_free(p);
	}
	return NULL;
}

/* What only lwIP's own thread may do. */
static void set_up(void *argument)
{
	const ip_addr_t *own = argument;
	ip4_addr_t address = { 0 }, mask, none = { 0 };
	s8_t index;

	IP4_ADDR(&mask, 255, 255, 255, 0);
	if (IP_IS_V4(own))
		address = *ip_2_ip4(own);
	CHECK("netif_add", netif_add(&interface, &address, &mask, &none, NULL, begin, tcpip_input));
	netif_set_default(&interface);
	netif_set_up(&interface);
	netif_create_ip6_linklocal_address(&interface, 1);
	netif_ip6_addr_set_state(&interface, 0, IP6_ADDR_PREFERRED);
	if (IP_IS_V6(own)) {
		LWIP("address", netif_add_ip6_address(&interface, ip_2_ip6(own), &index));
		netif_ip6_addr_set_state(&interface, index, IP6_ADDR_PREFERRED);
	}
}

static void open_interface(const char *name)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(0x0003 /* all */) };
	int on = 1;

	fd = socket(AF_PACKET, SOCK_RAW, 0);
	CHECK("socket", fd >= 0);
	CHECK("ignore outgoing", !setsockopt(fd, SOL_PACKET, 23 /* PACKET_IGNORE_OUTGOING */, &on, sizeof(on)));
	at.sll_ifindex = (int)if_nametoindex(name);
	CHECK("interface", at.sll_ifindex);
	CHECK("bind", !bind(fd, (struct sockaddr *)&at, sizeof(at)));
}

/* Takes up to `most` bytes to standard output, or to the peer again. Returns how many came. */
static size_t take(struct netconn *conn, size_t most, int echo, err_t *how)
{
	size_t got = 0;
	struct pbuf *p;

	*how = ERR_OK;
	while (got < most && (*how = netconn_recv_tcp_pbuf(conn, &p)) == ERR_OK) {
		for (struct pbuf *q = p; q && *how == ERR_OK; q = q->next) {
			if (echo)
				*how = netconn_write(conn, q->payload, q->len, NETCONN_COPY);
			else
				fwrite(q->payload, 1, q->len, stdout);
		}
		got += p->tot_len;
		pbuf_free(p);
	}
	return got;
}

static void client(u8_t type, const ip_addr_t *own, const ip_addr_t *to, u16_t port, const char *shape)
{
	struct netconn *conn = netconn_new(type);
	char part[8192];
	size_t n, sent = 0;
	err_t how;

	CHECK("netconn", conn);
	LWIP("bind", netconn_bind(conn, own, 0));
	LWIP("connect", netconn_connect(conn, to, port));
	while ((n = fread(part, 1, sizeof(part), stdin)) > 0) {
		LWIP("write", netconn_write(conn, part, n, NETCONN_COPY));
		sent += n;
	}
	if (!strcmp(shape, "half"))
		LWIP("shutdown", netconn_shutdown(conn, 0, 1));
	if (!strcmp(shape, "full")) {
		n = take(conn, sent, 0, &how);
		LWIP("receive", how);
	} else {
		n = take(conn, SIZE_MAX, 0, &how);
		if (how != ERR_CLSD)
			LWIP("receive", how);
	}
	fprintf(stderr, "sent %zu, received %zu\n", sent, n);
	netconn_close(conn);
	netconn_delete(conn);
	/* lwIP goes on sending and answering in its own thread; a FIN that is lost would need longer, but none is. */
	fflush(stdout);
	usleep(300000);
}

static void server(u8_t type, const ip_addr_t *own, u16_t port, int connections)
{
	struct netconn *listener = netconn_new(type), *conn;
	err_t how;

	CHECK("netconn", listener);
	LWIP("bind", netconn_bind(listener, own, port));
	LWIP("listen", netconn_listen(listener));
	puts("ready");
	fflush(stdout);
	for (int i = 0; i < connections; i++) {
		LWIP("accept", netconn_accept(listener, &conn));
		size_t n = take(conn, SIZE_MAX, 1, &how);
		fprintf(stderr, "echoed %zu, then %s\n", n, how == ERR_CLSD ? "FIN" : "RST");
		netconn_close(conn);
		netconn_delete(conn);
	}
	usleep(300000);
}

int main(int argc, char **argv)
{
	ip_addr_t own, peer;
	pthread_t thread;
	u8_t type;

	if (argc != 6 + (argc > 3 && !strcmp(argv[3], "client"))) {
		fputs("see the head of lwip_peer.c\n", stderr);
		return 2;
	}
	CHECK("address", ipaddr_aton(argv[2], &own));
	type = IP_IS_V6(&own) ? NETCONN_TCP_IPV6 : NETCONN_TCP;
	open_interface(argv[1]);
	tcpip_init(NULL, NULL);
	LWIP("interface", tcpip_callback_wait(set_up, &own));
	CHECK("thread", !pthread_create(&thread, NULL, receive, NULL));
	if (!strcmp(argv[3], "client")) {
		CHECK("peer", ipaddr_aton(argv[4], &peer));
		client(type, &own, &peer, (u16_t)atoi(argv[5]), argv[6]);
	} else {
		server(type, &own, (u16_t)atoi(argv[4]), atoi(argv[5]));
	}
	return 0;
}
