/* The worker's one event loop: descriptors, timers, signals, ends of processes, changes in folders;
 * epoll beneath. The only file of worker/ besides link.c that makes system calls of its own.
 *
 * Callbacks run one after the other on the thread of loop_run and may add and remove anything,
 * themselves too. Ownership: what loop_* returns belongs to the loop and ends with loop_unwatch or
 * loop_free; timers are embedded in their owner, who clears them before it goes.
 * Threads: one. */
#ifndef DAVIT_WORKER_LOOP_H
#define DAVIT_WORKER_LOOP_H

#include <sys/types.h>

#include "common/err.h"
#include "common/heap.h"

struct loop;
struct loop_watch;
typedef void (*loop_fn)(void *ctx);
typedef void (*loop_signal_fn)(void *ctx, int signal_number);

/* Blocks SIGTERM, SIGINT, SIGHUP and SIGCHLD and ignores SIGPIPE for the whole process: call it
 * before any thread is made. Ended children are reaped before any other callback of a round. */
int loop_new(loop_signal_fn on_signal, void *ctx, struct loop **ret);
void loop_free(struct loop *l);
void loop_run(struct loop *l); /* until loop_stop; may be run again */
void loop_stop(struct loop *l);

/* Readable descriptor; it stays the caller's. */
struct loop_watch *loop_watch_fd(struct loop *l, int fd, loop_fn fn, void *ctx);
/* The same for what may be awaited of a descriptor, once and for all or changed by loop_await. */
enum loop_event { LOOP_READ = 1, LOOP_WRITE = 2 };
typedef void (*loop_io_fn)(void *ctx, unsigned events); /* an error or a hang-up is both */
struct loop_watch *loop_watch_io(struct loop *l, int fd, unsigned events, loop_io_fn fn, void *ctx);
void loop_await(struct loop *l, struct loop_watch *w, unsigned events);
/* Called once when the process has ended. NULL when there is no such process. */
struct loop_watch *loop_watch_process(struct loop *l, pid_t pid, loop_fn fn, void *ctx);
/* The same for a child of ours that was just started: `status` as of waitpid; to be unwatched
 * then. */
typedef void (*loop_child_fn)(void *ctx, int status);
struct loop_watch *loop_watch_child(struct loop *l, pid_t pid, loop_child_fn fn, void *ctx);
/* Something was written or renamed in the folder. NULL when the machine cannot watch it: whoever
 * needs to know must look now and then anyway. */
struct loop_watch *loop_watch_folder(struct loop *l, const char *path, loop_fn fn, void *ctx);
void loop_unwatch(struct loop *l, struct loop_watch *w); /* accepts NULL */

struct loop_timer {
    uint64_t due_ms; /* os_monotonic_ms; 0: not set */
    loop_fn fn;
    void *ctx;
    struct heap_node node;
};
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t due_ms, loop_fn fn, void *ctx);
void loop_timer_clear(struct loop *l, struct loop_timer *t);

#endif
