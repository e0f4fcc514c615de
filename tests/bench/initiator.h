/* What our initiators have in common: big-endian words, a clock, numbers at random, an end; and
 * what they say: a buffer of PDUs that goes out as the socket takes it, login keys, commands.
 */
#ifndef INITIATOR_H
#define INITIATOR_H

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum { BHS = 48 };

/* A connection's way out. */
typedef struct {
	int fd, number;
	int waits;               /* for the socket to take more */
	size_t keep;             /* a larger buffer is freed when it is empty; 0: none is */
	unsigned char *out;
	size_t outs, sent, room;
} Line;

static uint64_t seed = 88172645463325252ull;

static void die(const char *what, int number)
{
	fprintf(stderr, "%s: connection %d: %s%s%s\n", program_invocation_short_name, number, what, errno ? ": " : "", errno ? strerror(errno) : "");
	exit(1);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t rnd(void)
{
	seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17;
	return seed;
}

static void be24(unsigned char *p, uint32_t v) { p[0] = v >> 16; p[1] = v >> 8; p[2] = v; }
static void be32(unsigned char *p, uint32_t v) { v = htobe32(v); memcpy(p, &v, 4); }
static uint32_t from24(const unsigned char *p) { return p[0] << 16 | p[1] << 8 | p[2]; }
static uint32_t from32(const unsigned char *p) { uint32_t v; memcpy(&v, p, 4); return be32toh(v); }

/* Room for so many bytes at the end of what is to be sent: the header's are zeros, and the last four. */
static unsigned char *room_for(Line *l, size_t need)
{
	if (l->outs + need > l->room) {
		l->room = (l->outs + need) * 2;
		if (!(l->out = realloc(l->out, l->room))) die("no memory", l->number);
	}
	unsigned char *p = l->out + l->outs;
	memset(p, 0, BHS);
	memset(p + need - 4, 0, 4);
	l->outs += need;
	return p;
}

/* Send what the socket takes; `owner` hears from epoll when it takes more. */
static void flush(Line *l, int epoll, void *owner)
{
	while (l->sent < l->outs) {
		ssize_t n = send(l->fd, l->out + l->sent, l->outs - l->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN) break;
		if (n < 0) die("cannot send", l->number);
		l->sent += n;
	}
	int waits = l->sent < l->outs;
	if (!waits) {
		l->sent = l->outs = 0;
		if (l->keep && l->room > l->keep) { free(l->out); l->out = 0; l->room = 0; }
	}
	if (waits != l->waits) {
		struct epoll_event e = {EPOLLIN | (waits ? EPOLLOUT : 0), {.ptr = owner}};
		epoll_ctl(epoll, EPOLL_CTL_MOD, l->fd, &e);
		l->waits = waits;
	}
}

/* A name with the client's number in it: one %d, or two %x for its high and its low byte. */
static size_t spell(char *to, size_t room, const char *format, int number)
{
	const char *first = strchr(format, '%');
	size_t n = first && strchr(first + 1, '%') ? snprintf(to, room, format, number >> 8, number & 255)
	                                           : snprintf(to, room, format, number);
	return n + 1;
}

/* A Login Request that asks for all stages at once (RFC 7143 section 11.12), CmdSN 1, with its
 * keys; `r2t`: whether a write waits to be asked for its data (InitialR2T). */
static void login_request(Line *l, const char *initiator, const char *target, const char *digest, const char *r2t)
{
	char text[1500];
	size_t n = 0;
#define SAY(...) n += snprintf(text + n, sizeof text - n, __VA_ARGS__) + 1
	n += sprintf(text + n, "InitiatorName=");
	n += spell(text + n, 300, initiator, l->number);
	n += sprintf(text + n, "TargetName=");
	n += spell(text + n, 300, target, l->number);
	SAY("SessionType=Normal"); SAY("HeaderDigest=%s", digest); SAY("DataDigest=%s", digest);
	SAY("InitialR2T=%s", r2t); SAY("ImmediateData=Yes");
	SAY("MaxRecvDataSegmentLength=262144"); SAY("MaxBurstLength=262144"); SAY("FirstBurstLength=262144");
	SAY("MaxConnections=1"); SAY("MaxOutstandingR2T=1"); SAY("ErrorRecoveryLevel=0");
#undef SAY
	unsigned char *p = room_for(l, BHS + ((n + 3) & ~3ul));
	p[0] = 0x43; p[1] = 0x87; p[8] = 0x80;             /* ISID of the random kind */
	be24(p + 5, n);
	be32(p + 9, (uint32_t)rnd()); p[13] = l->number;
	be32(p + 24, 1);
	memcpy(p + BHS, text, n);
}

/* The header of a SCSI Command (section 11.3) without its CDB. */
static void command(unsigned char *p, int flags, int lun, uint32_t tag, uint32_t bytes, uint32_t cmd_sn, uint32_t exp_stat_sn)
{
	p[0] = 0x01; p[1] = 0x80 | flags; p[9] = lun;
	be32(p + 16, tag); be32(p + 20, bytes); be32(p + 24, cmd_sn); be32(p + 28, exp_stat_sn);
}

/* The CDB of READ(10), WRITE(10) or whatever has its form: ten bytes while the address fits, as
 * iPXE, EDK2 and Linux do. */
static void cdb10(unsigned char *p, int opcode, uint32_t at, uint32_t blocks)
{
	p[32] = opcode;
	be32(p + 34, at);
	p[39] = blocks >> 8; p[40] = blocks;
}

#endif
