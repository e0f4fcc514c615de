/* The limit: a server that does nothing but answer, for load.c with echo=1.
 *
 * Every request of 48 bytes (and its data segment) gets 48 bytes and `answer` bytes of data back,
 * from memory; what came in one read is answered in one gathered send. No server of iSCSI can be
 * cheaper than this on the same sockets.
 *
 * echo PORT ANSWER-BYTES
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BHS = 48, ROOM = 512 << 10, MANY = 256 };

typedef struct { int fd; size_t have, skip; unsigned char head[BHS]; } Conn;

static unsigned char room[ROOM], heads[MANY][BHS], data[1 << 20];

static void put(int fd, struct iovec *v, int n)
{
	while (n) {
		struct msghdr m = {.msg_iov = v, .msg_iovlen = n > 1000 ? 1000 : n};
		ssize_t sent = sendmsg(fd, &m, MSG_NOSIGNAL);
		if (sent < 0) exit(errno == EPIPE || errno == ECONNRESET ? 0 : 1);
		while (n && (size_t)sent >= v->iov_len) { sent -= v->iov_len; v++; n--; }
		if (n) { v->iov_base = (char *)v->iov_base + sent; v->iov_len -= sent; }
	}
}

int main(int argc, char **argv)
{
	if (argc != 3) { fprintf(stderr, "echo PORT ANSWER-BYTES\n"); return 2; }
	size_t answer = atol(argv[2]);
	if (answer > sizeof data) return 2;
	struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int door = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
	setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
	if (bind(door, (void *)&where, sizeof where) || listen(door, 1024)) { perror("echo"); return 1; }
	struct epoll_event e = {EPOLLIN, {.ptr = 0}};
	epoll_ctl(epoll, EPOLL_CTL_ADD, door, &e);
	for (;;) {
		struct epoll_event events[64];
		int n = epoll_wait(epoll, events, 64, -1);
		for (int i = 0; i < n; i++) {
			Conn *c = events[i].data.ptr;
			if (!c) {
				c = calloc(1, sizeof *c);
				c->fd = accept(door, 0, 0);
				setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
				e = (struct epoll_event){EPOLLIN, {.ptr = c}};
				epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e);
				continue;
			}
			ssize_t got = recv(c->fd, room, sizeof room, 0);
			if (got <= 0) { close(c->fd); free(c); continue; }
			struct iovec v[2 * MANY];
			int parts = 0, many = 0;
			for (unsigned char *p = room, *end = room + got; p < end;) {
				size_t k = end - p;
				if (c->skip) { k = k < c->skip ? k : c->skip; p += k; c->skip -= k; if (c->skip) break; }
				else {
					k = k < BHS - c->have ? k : BHS - c->have;
					memcpy(c->head + c->have, p, k); p += k; c->have += k;
					if (c->have < BHS) break;
					c->skip = c->head[5] << 16 | c->head[6] << 8 | c->head[7];
				}
				if (c->have == BHS && !c->skip) {
					unsigned char *h = heads[many++];
					memset(h, 0, BHS);
					h[0] = answer ? 0x25 : 0x21; h[1] = answer ? 0x81 : 0x80;
					h[5] = answer >> 16; h[6] = answer >> 8; h[7] = answer;
					memcpy(h + 16, c->head + 16, 4);
					v[parts++] = (struct iovec){h, BHS};
					if (answer) v[parts++] = (struct iovec){data, answer};
					c->have = 0;
					if (many == MANY) { put(c->fd, v, parts); parts = many = 0; }
				}
			}
			if (parts) put(c->fd, v, parts);
		}
	}
}
