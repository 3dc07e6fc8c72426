/* bench_floor DIR: what the machine itself can do, in the same units as the benchmarks: durable
 * writes of the disk, commits of the store, round trips of nng, starts of a process. One line each:
 * {"name": ..., "unit": ..., "samples": [5 rates]}. */
#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
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

enum { FILE_BYTES = 16 << 20, PAGE_BYTES = 4096 };

static void sync_page(void *ctx)
{
    static const char page[PAGE_BYTES] = "davit";
    struct file *f = ctx;

    if (os_pwrite_all(f->fd, page, sizeof(page), f->offset) < 0 || fdatasync(f->fd) < 0) {
        die("fdatasync", strerror(errno));
    }
    f->offset = (f->offset + PAGE_BYTES) % FILE_BYTES;
}

static void bench_disk(const char *dir)
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
    measure("write 4 KiB in place + fdatasync", "1/s", sync_page, &f);
    close(f.fd);
    unlink(path);
    free(path);
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
    bench_store(argv[1]);
    bench_nng();
    measure("fork and exec of /bin/true", "1/s", run_true, NULL);
    return 0;
}
