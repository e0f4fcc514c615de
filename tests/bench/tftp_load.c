/* Load for a TFTP server: many clients at once, each with a socket of its own, who fetch one file.
 *
 * One thread and one epoll, and per block one recv and one send, so that it costs less than the
 * server that is measured; one curl with as many transfers costs more. Asks like a firmware (RFC
 * 1350, tsize and blksize of RFC 2347-2349), answers in lock-step, says again after a second what
 * had no answer, and takes each block once and in order. Prints how often something was said again;
 * exits 1 when a download has not the length that it should.
 *
 * tftp_load PORT NAME SIZE CLIENTS BLKSIZE      at 127.0.0.1
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST = 65468, REQUEST = 512, EVENTS = 256, LONGEST = 60 };

typedef struct {
	int fd, connected, done;
	unsigned block; /* the last one that has come */
	long bytes;
	double said; /* when we spoke last */
} Client;

static Client *clients;
static int count, epoll, again;
static long size, blksize;
static char request[REQUEST], packet[LARGEST];
static size_t asks;
static struct sockaddr_in door;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void fail(const char *why)
{
	fprintf(stderr, "tftp_load: %s: %s\n", why, strerror(errno));
	exit(1);
}

static void put(const char *text)
{
	size_t n = strlen(text) + 1;
	if (asks + n > REQUEST) { errno = EMSGSIZE; fail("the request"); }
	memcpy(request + asks, text, n);
	asks += n;
}

/* What is to be heard next is asked for: by the request, or by the ACK of what has come. */
static void say(Client *client, double at)
{
	char ack[4] = {0, 4, (char)(client->block >> 8), (char)client->block};
	ssize_t sent;
	if (client->connected) sent = send(client->fd, ack, sizeof ack, 0);
	else sent = sendto(client->fd, request, asks, 0, (struct sockaddr *)&door, sizeof door);
	if (sent < 0 && errno != EAGAIN && errno != ENOBUFS) fail("send");
	client->said = at;
}

/* One datagram; 1 when it was the last. */
static int hear(Client *client, double at)
{
	struct sockaddr_in from;
	socklen_t length = sizeof from;
	ssize_t n;
	unsigned number;
	if (client->connected) n = recv(client->fd, packet, sizeof packet, 0);
	else n = recvfrom(client->fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &length);
	if (n < 0) {
		if (errno != EAGAIN) fail("recv");
		return 0;
	}
	if (n < 4) return 0;
	if (!client->connected) { /* the server's port for this transfer */
		if (connect(client->fd, (struct sockaddr *)&from, length)) fail("connect");
		client->connected = 1;
	}
	number = (unsigned char)packet[2] << 8 | (unsigned char)packet[3];
	if (packet[1] == 6) {
		if (!client->block) say(client, at);
		return 0;
	}
	if (packet[1] != 3) {
		packet[n < LARGEST ? n : LARGEST - 1] = 0;
		fprintf(stderr, "tftp_load: the server says: %s\n", packet + 4);
		exit(1);
	}
	if (number != ((client->block + 1) & 0xffff)) return 0; /* a copy of what has come */
	client->block++;
	client->bytes += n - 4;
	say(client, at);
	return n - 4 < blksize;
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS];
	char number[24];
	int left;
	double begun = now(), looked = begun;
	if (argc != 6) {
		fprintf(stderr, "tftp_load PORT NAME SIZE CLIENTS BLKSIZE\n");
		return 2;
	}
	door = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
				    .sin_addr = {htonl(INADDR_LOOPBACK)}};
	size = atol(argv[3]);
	left = count = atoi(argv[4]);
	blksize = atol(argv[5]);
	request[1] = 1;
	asks = 2;
	put(argv[2]); put("octet"); put("tsize"); put("0"); put("blksize");
	snprintf(number, sizeof number, "%ld", blksize);
	put(number);
	clients = calloc(count, sizeof *clients);
	epoll = epoll_create1(0);
	if (!clients || epoll < 0) fail("room");
	for (int i = 0; i < count; i++) {
		struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
		clients[i].fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
		if (clients[i].fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &event)) fail("socket");
		say(&clients[i], now());
	}
	while (left) {
		int n = epoll_wait(epoll, events, EVENTS, 100);
		double at = now();
		if (n < 0) fail("epoll_wait");
		for (int i = 0; i < n; i++) {
			Client *client = &clients[events[i].data.u32];
			if (!hear(client, at)) continue;
			if (client->bytes != size) {
				fprintf(stderr, "tftp_load: %ld of %ld bytes have come\n", client->bytes, size);
				return 1;
			}
			client->done = 1;
			close(client->fd);
			left--;
		}
		if (at - looked < 0.1) continue;
		looked = at;
		for (int i = 0; i < count; i++)
			if (!clients[i].done && at - clients[i].said > 1) {
				say(&clients[i], at);
				again++;
			}
		if (at - begun > LONGEST) {
			fprintf(stderr, "tftp_load: %d of %d are not done after %d s\n", left, count, LONGEST);
			return 1;
		}
	}
	printf("%d\n", again);
	return 0;
}
