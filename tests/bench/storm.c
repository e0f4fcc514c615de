/* A boot storm: many clients at once, each replaying the recorded boot of a real machine.
 *
 * One thread and one epoll. Every client connects and logs in (`together` at a time), says TEST
 * UNIT READY until the unit is, and waits. On a line at standard input all begin the trace at the
 * same moment (or `spread` microseconds apart); on the next one, or at its end, all go. A line of
 * JSON tells how the logins went, another how the boots did. A step begins when as many steps
 * before it are done as were then, and the guest's thinking time has passed since: whoever is
 * served late asks later. What is read must be what the golden image holds there (`golden=FILE`),
 * wherever the trace never writes.
 *
 * storm HOST PORT TARGET TRACE [key=value ...]    TARGET and initiator= may hold the client's number
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "initiator.h"

enum { ROOM = 1 << 20, DEPTH = 256, MAX_CLIENTS = 4096, BUCKETS = 400000, TEXT = 1500 };
enum { CLOSED, LOGIN, TUR, READY, BOOTING, BOOTED };

typedef struct { char kind; uint32_t block, blocks, think, after; } Step;

typedef struct {
	Line line;
	int state, tries;
	uint32_t cmd_sn, max_cmd_sn, exp_stat_sn, most_data, first_burst;
	double begun, ready, due;        /* due: when the next step may begin; 0: not yet */
	double booted;
	int next, done;                  /* steps begun, steps done */
	int step[DEPTH];                 /* of a slot; -1: free */
	double since[DEPTH];
	unsigned char head[BHS];
	unsigned have, texts;
	uint64_t skip;
	unsigned char first[8];
	unsigned firsts;
	uint64_t reads_at;               /* byte of the disk that a Data-In begins at */
	int ends, slot;
	char *text;
} Client;

static int clients = 1, lun = 0, together = 64, spread = 0, number_from = 0;
static const char *initiator = "iqn.2026-11.lab.netboot:storm.%d";
static const char *target;
static struct addrinfo *where;
static Step *steps;
static int step_count;
static unsigned char *golden, *written;  /* written: a bit for each block of the disk */
static uint64_t golden_size;
static unsigned char scratch[ROOM], payload[1 << 20];
static unsigned read_us[BUCKETS + 1], other_us[BUCKETS + 1];
static uint64_t reads, others, read_bytes, write_bytes, checked;
static Client *all;
static int epoll, ready, booted, connected;
static Client **heap;
static int heaped;

/* Clients whose next step is due at a time: a heap, the earliest first. */

static void push(Client *c, double due)
{
	int i = heaped++;
	c->due = due;
	for (; i && heap[(i - 1) / 2]->due > due; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
	heap[i] = c;
}

static Client *pop(void)
{
	Client *top = heap[0], *last = heap[--heaped];
	int i = 0;
	for (int k; (k = 2 * i + 1) < heaped; i = k) {
		if (k + 1 < heaped && heap[k + 1]->due < heap[k]->due) k++;
		if (heap[k]->due >= last->due) break;
		heap[i] = heap[k];
	}
	heap[i] = last;
	top->due = 0;
	return top;
}

/* Sending. */

static unsigned char *pdu(Client *c, size_t body)
{
	unsigned char *p = room_for(&c->line, BHS + ((body + 3) & ~3ul));
	be24(p + 5, body);
	return p;
}

static void start_login(Client *c)
{
	c->begun = now();
	c->line.fd = socket(where->ai_family, SOCK_STREAM, 0);
	if (c->line.fd < 0) die("no socket", c->line.number);
	if (connect(c->line.fd, where->ai_addr, where->ai_addrlen)) die("cannot connect", c->line.number);
	setsockopt(c->line.fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	struct epoll_event e = {EPOLLIN, {.ptr = c}};
	epoll_ctl(epoll, EPOLL_CTL_ADD, c->line.fd, &e);
	login_request(&c->line, initiator, target, "None", "Yes");
	c->cmd_sn = 1;
	c->most_data = 8192; c->first_burst = 65536;
	c->text = calloc(1, TEXT);
	c->state = LOGIN;
	flush(&c->line, epoll, c);
}

static void test_ready(Client *c)
{
	unsigned char *p = pdu(c, 0);
	command(p, 0, lun, 0x7fff0000, 0, c->cmd_sn++, c->exp_stat_sn);
	c->state = TUR;
	flush(&c->line, epoll, c);
}

static void logged_in(Client *c)
{
	static const char *keys[] = {"MaxRecvDataSegmentLength=", "FirstBurstLength="};
	uint32_t *to[] = {&c->most_data, &c->first_burst};
	for (char *p = c->text; *p; p += strlen(p) + 1)
		for (int k = 0; k < 2; k++)
			if (!strncmp(p, keys[k], strlen(keys[k]))) *to[k] = atoi(p + strlen(keys[k]));
	if (c->most_data > 262144) c->most_data = 262144;
	free(c->text);
	c->text = 0;
	c->ready = now() - c->begun;
	test_ready(c);
}

static void begin(Client *c, int slot, double t)
{
	Step *s = steps + c->next;
	size_t bytes = (size_t)s->blocks * 512, body = 0;
	if (s->kind == 'W') body = bytes < c->most_data ? bytes : c->most_data;
	if (body > c->first_burst) body = c->first_burst;
	unsigned char *p = pdu(c, body);
	int flags = s->kind == 'R' ? 0x41 : s->kind == 'W' ? 0x21 : 0x01;
	command(p, flags, lun, slot, bytes, c->cmd_sn++, c->exp_stat_sn);
	if (s->kind == 'F') cdb10(p, 0x35, 0, 0);   /* all of it */
	else cdb10(p, s->kind == 'R' ? 0x28 : 0x2a, s->block, s->blocks);
	if (body) memcpy(p + BHS, payload + (s->block % 64) * 512, body);
	if (s->kind == 'R') read_bytes += bytes; else write_bytes += bytes;
	c->step[slot] = c->next++;
	c->since[slot] = t;
}

/* Begin what may begin: every step that waits for nothing but time that has passed. */
static void go_on(Client *c, double t, int due)
{
	if (c->state != BOOTING || (c->due && !due)) return;
	int slot = 0;
	while (c->next < step_count && c->done >= (int)steps[c->next].after) {
		if (steps[c->next].think && !due) { push(c, t + steps[c->next].think / 1e6); break; }
		while (slot < DEPTH && c->step[slot] >= 0) slot++;
		if (slot == DEPTH || (int32_t)(c->max_cmd_sn - c->cmd_sn) < 0) break; /* at the next answer */
		begin(c, slot, t);
		due = 0;
	}
	flush(&c->line, epoll, c);
}

static void send_data(Client *c, int slot)
{
	uint32_t at = from32(c->head + 40), left = from32(c->head + 44), number = 0;
	while (left) {
		uint32_t n = left < c->most_data ? left : c->most_data;
		unsigned char *p = pdu(c, n);
		p[0] = 0x05; p[1] = n == left ? 0x80 : 0; p[9] = lun;
		be32(p + 16, slot); memcpy(p + 20, c->head + 20, 4); be32(p + 28, c->exp_stat_sn);
		be32(p + 36, number++); be32(p + 40, at);
		memcpy(p + BHS, payload, n);
		at += n; left -= n;
	}
	flush(&c->line, epoll, c);
}

static void finished(Client *c, double t)
{
	int slot = c->slot;
	double us = (t - c->since[slot]) * 1e6;
	int bucket = us < BUCKETS ? (int)us : BUCKETS;
	if (steps[c->step[slot]].kind == 'R') { read_us[bucket]++; reads++; }
	else { other_us[bucket]++; others++; }
	c->step[slot] = -1;
	if (++c->done == step_count) { c->state = BOOTED; c->booted = t - c->begun; booted++; }
}

/* Whether the bytes that a Data-In begins with are the golden image's. */
static void check(Client *c)
{
	uint64_t block = c->reads_at / 512;
	if (!golden || c->reads_at + 8 > golden_size || written[block / 8] >> block % 8 & 1) return;
	errno = 0;
	if (memcmp(c->first, golden + c->reads_at, 8)) die("read what the golden image does not hold", c->line.number);
	checked++;
}

static void header(Client *c)
{
	int op = c->head[0] & 0x3f;
	uint32_t length = from24(c->head + 5), sn = from32(c->head + 32);
	c->skip = (length + 3) & ~3;
	c->ends = 0;
	c->firsts = 8;
	c->slot = from32(c->head + 16);
	errno = 0;
	if (op == 0x23) {
		if (c->head[36] || (c->head[1] & 0x83) != 0x83) die("the login was refused", c->line.number);
		c->exp_stat_sn = from32(c->head + 24) + 1;
	} else if (op == 0x21 || op == 0x25) {
		int last = op == 0x21 || c->head[1] & 1;
		if (c->state == TUR) {
			c->exp_stat_sn = from32(c->head + 24) + 1;
		} else {
			if (c->slot < 0 || c->slot >= DEPTH || c->step[c->slot] < 0) die("an answer to nothing", c->line.number);
			if (last && c->head[3]) die("a command failed", c->line.number);
			if (op == 0x25) {
				c->reads_at = steps[c->step[c->slot]].block * 512ull + from32(c->head + 40);
				c->firsts = 0;
			}
			if (last) c->exp_stat_sn = from32(c->head + 24) + 1;
			c->ends = last;
		}
	} else if (op != 0x31 && op != 0x20)
		die("an answer that was not expected", c->line.number);
	c->max_cmd_sn = sn;
}

static void whole(Client *c, double t)
{
	int op = c->head[0] & 0x3f;
	c->have = 0;
	if (op == 0x23) logged_in(c);
	else if (op == 0x31) send_data(c, c->slot);
	else if (c->state == TUR) {
		if (!c->head[3]) { c->state = READY; ready++; connected--; }
		else if (c->tries++ < 5) test_ready(c);
		else { errno = 0; die("the unit is not ready", c->line.number); }
	} else {
		if (op == 0x25) check(c);
		if (c->ends) { finished(c, t); go_on(c, t, 0); }
	}
}

static void consume(Client *c, unsigned char *p, size_t n, double t)
{
	while (n) {
		if (c->have < BHS) {
			size_t k = BHS - c->have < n ? BHS - c->have : n;
			memcpy(c->head + c->have, p, k);
			c->have += k; p += k; n -= k;
			if (c->have < BHS) return;
			c->texts = 0;
			header(c);
			if (!c->skip) whole(c, t);
			continue;
		}
		size_t k = c->skip < n ? c->skip : n;
		for (size_t i = 0; i < k && c->firsts < 8; i++) c->first[c->firsts++] = p[i];
		if (c->state == LOGIN)
			for (size_t i = 0; i < k && c->texts < TEXT - 2; i++) c->text[c->texts++] = p[i];
		p += k; n -= k; c->skip -= k;
		if (!c->skip) whole(c, t);
	}
}

/* One turn of the loop: what has come, and what is due. */
static void turn(void)
{
	struct epoll_event events[256];
	struct timespec wait = {20, 0};
	double t = now();
	if (heaped) {
		double left = heap[0]->due - t;
		if (left < 0) left = 0;
		wait.tv_sec = left; wait.tv_nsec = (left - wait.tv_sec) * 1e9;
	}
	int n = epoll_pwait2(epoll, events, 256, &wait, 0);
	if (n < 0 && errno == EINTR) return;
	if (n < 0 || (!n && !heaped)) { errno = 0; die("nothing was answered for 20 s", -1); }
	t = now();
	for (int i = 0; i < n; i++) {
		Client *c = events[i].data.ptr;
		if (!c) continue;
		if (events[i].events & EPOLLOUT) flush(&c->line, epoll, c);
		if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
		ssize_t got = recv(c->line.fd, scratch, sizeof scratch, MSG_DONTWAIT);
		if (got < 0 && errno == EAGAIN) continue;
		if (got <= 0) die("the server closed the connection", c->line.number);
		consume(c, scratch, got, t);
	}
	for (int most = 4 * clients; heaped && heap[0]->due <= t && most; most--) go_on(pop(), t, 1);
}

static int percentile(const unsigned *us, uint64_t count, double share)
{
	uint64_t seen = 0;
	if (!count) return 0;
	for (int i = 0; i <= BUCKETS; i++)
		if ((seen += us[i]) >= share * count) return i;
	return BUCKETS;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static int wait_for_word(void)
{
	char line[64];
	return fgets(line, sizeof line, stdin) != 0;
}

static void read_trace(const char *path)
{
	FILE *file = fopen(path, "r");
	Step s;
	if (!file) die(path, -1);
	for (int room = 0; fscanf(file, " %c %u %u %u %u", &s.kind, &s.block, &s.blocks, &s.think, &s.after) == 5;) {
		if (step_count == room) steps = realloc(steps, (room = room ? room * 2 : 4096) * sizeof *steps);
		if (!steps || s.blocks > 65535) die("a step too large", step_count);
		steps[step_count++] = s;
	}
	fclose(file);
	if (!step_count) die("the trace is empty", -1);
}

static void open_golden(const char *path)
{
	struct stat what;
	int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &what)) die(path, -1);
	golden_size = what.st_size;
	golden = mmap(0, golden_size, PROT_READ, MAP_SHARED, fd, 0);
	written = calloc(1, golden_size / 512 / 8 + 1);
	if (golden == MAP_FAILED || !written) die(path, -1);
	for (int i = 0; i < step_count; i++)
		for (uint64_t k = 0; steps[i].kind == 'W' && k < steps[i].blocks; k++) {
			uint64_t block = steps[i].block + k;
			if (block < golden_size / 512) written[block / 8] |= 1 << block % 8;
		}
}

int main(int argc, char **argv)
{
	const char *golden_path = 0;
	if (argc < 5) { fprintf(stderr, "storm HOST PORT TARGET TRACE [key=value ...]\n"); return 2; }
	struct { const char *key; int *to; } numbers[] = {{"clients", &clients}, {"lun", &lun},
		{"together", &together}, {"spread", &spread}, {"from", &number_from}};
	for (int i = 5; i < argc; i++) {
		char *value = strchr(argv[i], '=');
		int known = 0;
		if (!value) { fprintf(stderr, "storm: %s has no value\n", argv[i]); return 2; }
		*value++ = 0;
		for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
			if (!strcmp(argv[i], numbers[k].key)) { *numbers[k].to = atoi(value); known = 1; }
		if (!strcmp(argv[i], "golden")) { golden_path = value; known = 1; }
		if (!strcmp(argv[i], "initiator")) { initiator = value; known = 1; }
		if (!known) { fprintf(stderr, "storm: there is no %s\n", argv[i]); return 2; }
	}
	if (clients < 1 || clients > MAX_CLIENTS || together < 1) {
		fprintf(stderr, "storm: a number is out of range\n");
		return 2;
	}
	target = argv[3];
	read_trace(argv[4]);
	if (golden_path) open_golden(golden_path);
	for (size_t i = 0; i < sizeof payload; i++) payload[i] = rnd();
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	if (getaddrinfo(argv[1], argv[2], &hints, &where)) { fprintf(stderr, "storm: no such address\n"); return 2; }
	epoll = epoll_create1(0);
	all = calloc(clients, sizeof *all);
	heap = calloc(clients + 1, sizeof *heap);
	double *times = calloc(clients, sizeof *times);
	double begun = now();
	for (int i = 0; ready < clients;) {
		for (; i < clients && connected < together; i++, connected++) {
			all[i].line.keep = 65536;
			all[i].line.number = number_from + i;
			for (int k = 0; k < DEPTH; k++) all[i].step[k] = -1;
			start_login(all + i);
		}
		turn();
	}
	double took = now() - begun;
	for (int i = 0; i < clients; i++) times[i] = all[i].ready;
	qsort(times, clients, sizeof *times, by_size);
	printf("{\"logins\": %d, \"seconds\": %.6f, \"ms\": [", clients, took);
	for (int i = 0; i < clients; i++) printf("%s%.3f", i ? "," : "", times[i] * 1e3);
	printf("]}\n");
	fflush(stdout);
	if (!wait_for_word()) return 0;

	begun = now();
	for (int i = 0; i < clients; i++) {
		Client *c = all + i;
		c->state = BOOTING;
		c->begun = begun + i * (spread / 1e6);
		push(c, c->begun + steps[0].think / 1e6);
	}
	while (booted < clients) turn();
	double last = now() - begun;
	for (int i = 0; i < clients; i++) times[i] = all[i].booted;
	qsort(times, clients, sizeof *times, by_size);
	printf("{\"seconds\": %.6f, \"fastest\": %.6f, \"middle\": %.6f, \"slowest\": %.6f, \"steps\": %lu, "
	       "\"read_bytes\": %lu, \"write_bytes\": %lu, \"checked\": %lu, \"read_p50_us\": %d, \"read_p99_us\": %d, "
	       "\"other_p50_us\": %d, \"other_p99_us\": %d}\n",
	       last, times[0], times[clients / 2], times[clients - 1], reads + others, read_bytes, write_bytes, checked,
	       percentile(read_us, reads, 0.5), percentile(read_us, reads, 0.99),
	       percentile(other_us, others, 0.5), percentile(other_us, others, 0.99));
	fflush(stdout);
	wait_for_word();
	return 0;
}
