/* What our initiators have in common: big-endian words, a clock, numbers at random, an end. */
#ifndef INITIATOR_H
#define INITIATOR_H

#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

#endif
