/* bench_floor DIR: what the machine itself can do, in the same units as the benchmarks: durable
 * writes of the disk, commits of the store, round trips of nng, starts of a process. One line each:
 * {"name": ..., "unit": ..., "samples": [5 rates]}. */
#include "common/base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/store/tx.h"
#include "common/limits.h"
#include "common/os.h"

enum { ROUNDS = 5, ROUND_MS = 600 };

/* Calls step until ROUND_MS are over, ROUNDS times; prints the rates. */
static void measure(const char *name, const char *unit, void (*step)(void *ctx), void *ctx)
{
    printf("{\"name\": \"%s\", \"unit\": \"%s\", \"samples\": [", name, unit);
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start_us = os_monotonic_us();
        uint64_t end_us;
        uint64_t count = 0;

        do {
            step(ctx);
            count++;
            end_us = os_monotonic_us();
        } while (end_us - start_us < ROUND_MS * 1000ull);
        printf("%s%.1f", round ? ", " : "", (double)count * 1e6 / (double)(end_us - start_us));
    }
    printf("]}\n");
    fflush(stdout);
}

NORETURN static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_floor: %s: %s\n", what, why);
    exit(1);
}

struct file {
    int fd;
    uint64_t offset;
};

enum { FILE_BYTES = 16 << 20, PAGE_BYTES = 4096, MESSAGE_BYTES = 300 };

static void sync_page(void *ctx)
{
    static const char page[PAGE_BYTES] = "davit";
    struct file *f = ctx;

    if (os_pwrite_all(f->fd, page, sizeof(page), f->offset) < 0 || fdatasync(f->fd) < 0) {
        die("fdatasync", strerror(errno));
    }
    f->offset = (f->offset + PAGE_BYTES) % FILE_BYTES;
}

/* Written from end to end, so that what is measured moves no metadata. */
static struct file open_file(const char *dir)
{
    char *path = os_path_join(dir, "floor");
    struct file f = {.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    static const char zeros[PAGE_BYTES];

    if (f.fd < 0) {
        die(path, strerror(errno));
    }
    for (uint64_t at = 0; at < FILE_BYTES; at += PAGE_BYTES) {
        if (os_pwrite_all(f.fd, zeros, sizeof(zeros), at) < 0) {
            die(path, strerror(errno));
        }
    }
    fsync(f.fd);
    free(path);
    return f;
}

static void close_file(const char *dir, struct file *f)
{
    char *path = os_path_join(dir, "floor");

    close(f->fd);
    unlink(path);
    free(path);
}

static void bench_disk(const char *dir)
{
    struct file f = open_file(dir);

    measure("write 4 KiB in place + fdatasync", "1/s", sync_page, &f);
    close_file(dir, &f);
}

struct commits {
    struct store *s;
    uint64_t id;
    uint64_t rows; /* of one commit */
};

static void commit_rows(void *ctx)
{
    static const char row[300] = "row";
    struct commits *c = ctx;
    struct tx *tx;

    if (tx_begin(c->s, true, &tx) < 0) {
        die("store", "cannot begin");
    }
    for (uint64_t i = 0; i < c->rows; i++) {
        struct key k = key_u64(c->id++ % 100000);

        tx_put(tx, T_JOB, &k, str_of(row, sizeof(row)));
    }
    if (tx_commit(tx) < 0) {
        die("store", "cannot commit");
    }
}

static void bench_store(const char *dir)
{
    char *path = os_path_join(dir, "floor-store");
    struct buf why = BUF_INIT;
    struct commits c = {.rows = 1};

    if (store_open(path, NULL, &c.s, &why) < 0) {
        die(path, buf_cstr(&why));
    }
    measure("LMDB commit of 1 row of 300 bytes", "1/s", commit_rows, &c);
    c.rows = 20;
    measure("LMDB commit of 20 rows", "1/s", commit_rows, &c);
    store_close(c.s);
    os_remove_tree(path);
    free(path);
}

/* A connection whose other end makes each message durable before it sends it back. */
struct keeper {
    struct file file;
    int sides[2]; /* the client's, the keeper's */
};

static void *keep(void *ctx)
{
    struct keeper *k = ctx;
    char message[MESSAGE_BYTES];

    while (recv(k->sides[1], message, sizeof(message), MSG_WAITALL) == sizeof(message)) {
        sync_page(&k->file);
        if (send(k->sides[1], message, sizeof(message), MSG_NOSIGNAL) != sizeof(message)) {
            break;
        }
    }
    return NULL;
}

/* A job alone: submit and assignment are one flush, its end is another. */
static void keep_twice(void *ctx)
{
    struct keeper *k = ctx;
    char message[MESSAGE_BYTES] = "job";

    for (int i = 0; i < 2; i++) {
        if (send(k->sides[0], message, sizeof(message), MSG_NOSIGNAL) != sizeof(message) ||
            recv(k->sides[0], message, sizeof(message), MSG_WAITALL) != sizeof(message)) {
            die("round trip", strerror(errno));
        }
    }
}

static int tcp_pair(int sides[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    int r = 0;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sides[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 1) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0 ||
        connect(sides[0], (struct sockaddr *)&address, length) < 0) {
        r = -E_UNREACHABLE;
    } else {
        sides[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    }
    for (int i = 0; i < 2 && r == 0; i++) {
        r = setsockopt(sides[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    close(listener);
    return r;
}

static void bench_job(const char *dir)
{
    struct keeper k = {.file = open_file(dir)};
    pthread_t thread;

    if (tcp_pair(k.sides) < 0) {
        die("TCP", strerror(errno));
    }
    check(pthread_create(&thread, NULL, keep, &k) == 0);
    measure("a job alone: two TCP round trips, each with a write + fdatasync", "1/s", keep_twice,
            &k);
    shutdown(k.sides[0], SHUT_RDWR);
    pthread_join(thread, NULL);
    close(k.sides[0]);
    close(k.sides[1]);
    close_file(dir, &k.file);
}

static void *echo(void *ctx)
{
    nng_socket *s = ctx;
    nng_msg *msg;

    while (nng_recvmsg(*s, &msg, 0) == 0) {
        if (nng_sendmsg(*s, msg, 0) != 0) {
            nng_msg_free(msg);
        }
    }
    return NULL;
}

static void round_trip(void *ctx)
{
    static const char body[64] = "ping";
    nng_socket *s = ctx;
    nng_msg *msg;

    if (nng_msg_alloc(&msg, 0) != 0 || nng_msg_header_append_u32(msg, 0x80000001u) != 0 ||
        nng_msg_append(msg, body, sizeof(body)) != 0 || nng_sendmsg(*s, msg, 0) != 0 ||
        nng_recvmsg(*s, &msg, 0) != 0) {
        die("nng", "round trip failed");
    }
    nng_msg_free(msg);
}

static void bench_nng(void)
{
    char url[64];
    int port = 0;
    nng_listener listener;
    nng_socket rep;
    nng_socket req;
    pthread_t thread;

    if (nng_rep0_open_raw(&rep) != 0 || nng_req0_open_raw(&req) != 0 ||
        nng_listen(rep, "tcp://127.0.0.1:0", &listener, 0) != 0 ||
        nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port) != 0) {
        die("nng", "cannot listen");
    }
    snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", port);
    check(pthread_create(&thread, NULL, echo, &rep) == 0);
    if (nng_dial(req, url, NULL, 0) != 0) {
        die(url, "cannot dial");
    }
    measure("nng round trip of 64 bytes, raw REQ/REP over TCP", "1/s", round_trip, &req);
    nng_close(req);
    nng_close(rep);
    pthread_join(thread, NULL);
}

static void run_true(void *ctx UNUSED)
{
    static const char *const argv[] = {"/bin/true", NULL};
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    int status;

    if (os_run(&spawn, 0, NULL, &status) < 0 || status != 0) {
        die("/bin/true", "did not run");
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        die("usage", "bench_floor DIR");
    }
    bench_disk(argv[1]);
    bench_job(argv[1]);
    bench_store(argv[1]);
    bench_nng();
    measure("fork and exec of /bin/true", "1/s", run_true, NULL);
    return 0;
}
