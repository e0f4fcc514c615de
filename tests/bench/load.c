/* Load for an iSCSI target: many connections, each with so many commands under way.
 *
 * One thread and one epoll, so that it costs little beside the server that is measured. Logs in
 * like any initiator (RFC 7143 section 6.3), clears the unit attention, then keeps `depth` reads
 * or writes under way on every connection for `seconds`, and prints one line of JSON. Commands
 * that became due in one wake-up go out in one send; `split` sends each by itself. The first
 * eight bytes of a block that was read must be the block's number: an answer of zeros does not
 * count. `echo` speaks to echo.c, which knows no login: what is left is the wire's own cost.
 *
 * load HOST PORT TARGET [key=value ...]      TARGET may hold one %d: the connection's number
 */
#define _GNU_SOURCE
#include <netdb.h>
#include <netinet/tcp.h>
#include <nmmintrin.h>
#include <unistd.h>

#include "initiator.h"

enum { ROOM = 1 << 20, MAX_DEPTH = 256, MAX_CONNS = 4096, BUCKETS = 200000 };

typedef struct {
	Line line;
	int under_way;
	uint32_t cmd_sn, exp_stat_sn;
	uint64_t at;                 /* sequential: the next byte */
	uint64_t asked[MAX_DEPTH];   /* what a slot reads, in bytes from the start */
	double since[MAX_DEPTH];
	int due[MAX_DEPTH], dues;    /* slots to be sent */
	unsigned char head[BHS + 4], first[8];
	unsigned have, firsts;
	uint64_t skip, body;         /* bytes of the data segment still to come, and in all */
	int slot, done;
} Conn;

static int depth = 8, conns = 4, block = 4096, writes, sequential, split, digest, echo, lun = 1, stamp = 1;
static double seconds = 2, warm = 0.3;
static uint64_t span = 1ull << 30;
static const char *initiator = "iqn.2026-11.lab.netboot:load";
static unsigned char scratch[ROOM], payload[1 << 20];
static unsigned buckets[BUCKETS + 1];
static uint64_t ios, all_ios, wakes;
static double begin_at, end_at;

__attribute__((target("sse4.2"))) static uint32_t crc(const unsigned char *p, size_t n)
{
	uint64_t c = 0xffffffff;
	for (; n >= 8; n -= 8, p += 8) { uint64_t w; memcpy(&w, p, 8); c = _mm_crc32_u64(c, w); }
	for (; n; n--) c = _mm_crc32_u8((uint32_t)c, *p++);
	return (uint32_t)~c;
}

static void all(int fd, unsigned char *p, size_t n, int sending, int number)
{
	while (n) {
		ssize_t got = sending ? send(fd, p, n, MSG_NOSIGNAL) : recv(fd, p, n, 0);
		if (got <= 0) die(sending ? "cannot send" : "closed during the login", number);
		p += got; n -= got;
	}
}

static void login(Conn *c, const char *target)
{
	unsigned char pdu[BHS + 4];
	login_request(&c->line, initiator, target, digest ? "CRC32C" : "None", "No");
	all(c->line.fd, c->line.out, c->line.outs, 1, c->line.number);
	c->line.outs = 0;
	c->cmd_sn = 1;
	all(c->line.fd, pdu, BHS, 0, c->line.number);
	size_t n = from24(pdu + 5);
	all(c->line.fd, scratch, (n + 3) & ~3, 0, c->line.number);
	if ((pdu[0] & 0x3f) != 0x23 || pdu[36] || (pdu[1] & 0x83) != 0x83) die("the login was refused", c->line.number);
	c->exp_stat_sn = from32(pdu + 24) + 1;
	for (int tries = 0; tries < 5; tries++) {        /* TEST UNIT READY until it is */
		unsigned char tur[BHS + 4] = {0};
		command(tur, 0, lun, 0x7fff0000 + tries, 0, c->cmd_sn++, c->exp_stat_sn);
		if (digest) { uint32_t d = htole32(crc(tur, BHS)); memcpy(tur + BHS, &d, 4); }
		all(c->line.fd, tur, BHS + 4 * digest, 1, c->line.number);
		all(c->line.fd, pdu, BHS + 4 * digest, 0, c->line.number);
		n = from24(pdu + 5);
		if (n) all(c->line.fd, scratch, ((n + 3) & ~3) + 4 * digest, 0, c->line.number);
		c->exp_stat_sn = from32(pdu + 24) + 1;
		if ((pdu[0] & 0x3f) == 0x21 && pdu[3] == 0) return;
	}
	die("the unit is not ready", c->line.number);
}

static void pack(Conn *c, int slot)
{
	uint64_t region = span / conns / block * block, at;
	if (sequential) {
		at = (uint64_t)c->line.number * region + c->at;
		if ((c->at += block) + block > region) c->at = 0;
	} else
		at = rnd() % (span / block) * block;
	size_t body = writes ? block : 0, need = BHS + 4 * digest + body + (body ? 4 * digest : 0);
	unsigned char *p = room_for(&c->line, need);
	be24(p + 5, body);
	command(p, (writes ? 0x20 : 0x40) | 0x01, lun, slot, block, c->cmd_sn++, c->exp_stat_sn);
	cdb10(p, writes ? 0x2a : 0x28, at / 512, block / 512);
	unsigned char *q = p + BHS;
	if (digest) { uint32_t d = htole32(crc(p, BHS)); memcpy(q, &d, 4); q += 4; }
	if (body) {
		uint64_t mark = htobe64(at / 4096);
		memcpy(q, payload, body);
		for (size_t k = 0; stamp && k < body; k += 4096, mark = htobe64(be64toh(mark) + 1)) memcpy(q + k, &mark, 8);
		if (digest) { uint32_t d = htole32(crc(q, body)); memcpy(q + body, &d, 4); }
	}
	c->asked[slot] = at;
}

static void refill(Conn *c, int epoll, double t)
{
	for (int i = 0; i < c->dues; i++) {
		pack(c, c->due[i]);
		c->since[c->due[i]] = t;
		c->under_way++;
		if (split) flush(&c->line, epoll, c);
	}
	c->dues = 0;
	flush(&c->line, epoll, c);
}

static void finished(Conn *c, double t)
{
	int slot = c->slot;
	uint64_t want = htobe64(c->asked[slot] / 4096);
	if (!writes && !echo && stamp && (c->firsts < 8 || memcmp(c->first, &want, 8))) {
		errno = 0;
		die("a block came with another block's contents", c->line.number);
	}
	all_ios++;
	if (t >= begin_at && t < end_at) {
		double us = (t - c->since[slot]) * 1e6;
		buckets[us < BUCKETS ? (int)us : BUCKETS]++;
		ios++;
	}
	c->under_way--;
	if (t < end_at) c->due[c->dues++] = slot;
}

static void consume(Conn *c, unsigned char *p, size_t n, double t)
{
	size_t header = BHS + 4 * digest;
	while (n || (c->have == header && !c->skip)) {
		if (c->have < header) {
			size_t k = header - c->have < n ? header - c->have : n;
			memcpy(c->head + c->have, p, k);
			c->have += k; p += k; n -= k;
			if (c->have < header) return;
			uint32_t d = htole32(crc(c->head, BHS));
			errno = 0;
			if (digest && memcmp(&d, c->head + BHS, 4)) die("a header digest is wrong", c->line.number);
			int op = c->head[0] & 0x3f;
			uint32_t length = from24(c->head + 5);
			c->skip = ((length + 3) & ~3) + (length ? 4 * digest : 0);
			c->done = 0;
			if (op == 0x25) {
				if (from32(c->head + 40) == 0) c->firsts = 0;
				c->done = c->head[1] & 1;
				if (c->done && c->head[3]) die("a read failed", c->line.number);
			} else if (op == 0x21) {
				if (c->head[3]) die("a command failed", c->line.number);
				c->done = 1;
			} else
				die("an answer that was not expected", c->line.number);
			c->slot = from32(c->head + 16);
			if (c->slot < 0 || c->slot >= depth) die("an answer to nothing", c->line.number);
			c->exp_stat_sn = from32(c->head + 24) + c->done;
			continue;
		}
		size_t k = c->skip < n ? c->skip : n;
		for (size_t i = 0; i < k && c->firsts < 8; i++) c->first[c->firsts++] = p[i];
		p += k; n -= k; c->skip -= k;
		if (c->skip) return;
		c->have = 0;
		if (c->done) finished(c, t);
	}
}

static int percentile(double share)
{
	uint64_t seen = 0;
	for (int i = 0; i <= BUCKETS; i++)
		if ((seen += buckets[i]) >= share * ios) return i;
	return BUCKETS;
}

int main(int argc, char **argv)
{
	if (argc < 4) { fprintf(stderr, "load HOST PORT TARGET [key=value ...]\n"); return 2; }
	struct { const char *key; int *to; } numbers[] = {
		{"depth", &depth}, {"conns", &conns}, {"block", &block}, {"write", &writes}, {"seq", &sequential},
		{"split", &split}, {"digest", &digest}, {"echo", &echo}, {"lun", &lun}, {"stamp", &stamp}};
	for (int i = 4; i < argc; i++) {
		char *value = strchr(argv[i], '=');
		int known = 0;
		if (!value) { fprintf(stderr, "load: %s has no value\n", argv[i]); return 2; }
		*value++ = 0;
		for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
			if (!strcmp(argv[i], numbers[k].key)) { *numbers[k].to = atoi(value); known = 1; }
		if (!strcmp(argv[i], "seconds")) { seconds = atof(value); known = 1; }
		if (!strcmp(argv[i], "warm")) { warm = atof(value); known = 1; }
		if (!strcmp(argv[i], "span")) { span = strtoull(value, 0, 0); known = 1; }
		if (!strcmp(argv[i], "initiator")) { initiator = value; known = 1; }
		if (!known) { fprintf(stderr, "load: there is no %s\n", argv[i]); return 2; }
	}
	if (depth < 1 || depth > MAX_DEPTH || conns < 1 || conns > MAX_CONNS || block < 512 || block > (int)sizeof payload || block % 512) {
		fprintf(stderr, "load: a number is out of range\n");
		return 2;
	}
	for (size_t i = 0; i < sizeof payload; i++) payload[i] = rnd();
	Conn *all_conns = calloc(conns, sizeof *all_conns);
	int epoll = epoll_create1(0);
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *where;
	if (getaddrinfo(argv[1], argv[2], &hints, &where)) { fprintf(stderr, "load: no such address\n"); return 2; }
	for (int i = 0; i < conns; i++) {
		Conn *c = all_conns + i;
		c->line.number = i;
		c->line.fd = socket(where->ai_family, SOCK_STREAM, 0);
		struct timeval patience = {20, 0};
		setsockopt(c->line.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
		if (connect(c->line.fd, where->ai_addr, where->ai_addrlen)) die("cannot connect", i);
		setsockopt(c->line.fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
		if (!echo) login(c, argv[3]);
		struct epoll_event e = {EPOLLIN, {.ptr = c}};
		epoll_ctl(epoll, EPOLL_CTL_ADD, c->line.fd, &e);
		for (int k = 0; k < depth; k++) c->due[c->dues++] = k;
	}
	double t = now();
	begin_at = t + warm;
	end_at = begin_at + seconds;
	printf("{\"ready\": true}\n");
	fflush(stdout);
	int under_way = conns * depth;
	for (int i = 0; i < conns; i++) refill(all_conns + i, epoll, t);
	while (under_way) {
		struct epoll_event events[256];
		int n = epoll_wait(epoll, events, 256, 10000);
		t = now();
		if (n <= 0 || t > end_at + 10) { errno = 0; die("nothing was answered for 10 s", -1); }
		for (int i = 0; i < n; i++) {
			Conn *c = events[i].data.ptr;
			if (events[i].events & EPOLLOUT) flush(&c->line, epoll, c);
			if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
			ssize_t got = recv(c->line.fd, scratch, sizeof scratch, MSG_DONTWAIT);
			if (got < 0 && errno == EAGAIN) continue;
			if (got <= 0) die("the server closed the connection", c->line.number);
			if (t >= begin_at) wakes++;
			consume(c, scratch, got, t);
			refill(c, epoll, t);
		}
		under_way = 0;
		for (int i = 0; i < conns; i++) under_way += all_conns[i].under_way;
	}
	printf("{\"ios\": %lu, \"all\": %lu, \"seconds\": %.6f, \"p50_us\": %d, \"p99_us\": %d, \"wakes\": %lu}\n",
	       ios, all_ios, seconds, percentile(0.5), percentile(0.99), wakes);
	return 0;
}
