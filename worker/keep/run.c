#include "common/base.h"

#include "worker/keep/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/shim/proc.h"

#define NEVER       UINT64_MAX
#define READ_BYTES  (64u * KIB)
#define READS       16 /* at a time, so that a busy command keeps nobody from the clock */
#define POLL_MAX_MS (3600u * 1000u)

/* ---- the beginning and the end ---- */

static int put_text(const struct keep *k, const char *name, struct buf *text)
{
    char *path = os_path_join(k->folder, name);
    int r = os_put_file(path, text->p, text->n, 0600);

    free(path);
    buf_release(text);
    return r;
}

static int take_lock(struct keep *k)
{
    char *path = os_path_join(k->folder, "lock");
    int r = os_lock_file(path, &k->lock_fd);

    free(path);
    return r;
}

static int write_pid(const struct keep *k)
{
    struct buf text = BUF_INIT;

    buf_addf(&text, "%d %" PRIu64 "\n", (int)getpid(), k->start_ticks);
    return put_text(k, "pid", &text);
}

static int open_signals(struct keep *k)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    k->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return k->signal_fd < 0 ? err_from_errno(errno) : 0;
}

static int open_tree(struct keep *k)
{
    struct buf text = BUF_INIT;
    int r = tree_init(&k->tree, getenv("DAVIT_SHIM_METHOD"), k->start_ticks);

    if (r < 0) {
        return r;
    }
    tree_describe(&k->tree, &text);
    buf_add_char(&text, '\n');
    return put_text(k, "method", &text);
}

/* One that was here before, and was killed, has been restarted by our start. */
static void count_before(struct keep *k)
{
    struct keep_state before;

    if (keep_state_read(k->folder, &before) == 0) {
        k->state.restarts = before.restarts + 1;
        k->state.end = before.end;
        k->state.code = before.code;
    }
}

int keep_open(struct keep *k, const char *folder)
{
    struct proc self;

    *k = (struct keep){.folder = folder,
                       .lock_fd = -1,
                       .signal_fd = -1,
                       .out_fd = -1,
                       .backoff_ms = KEEP_BACKOFF_FIRST_MS,
                       .due_ms = NEVER};
    int r = keep_conf_load(&k->conf, folder);
    r = r < 0 ? r : proc_read(getpid(), &self, &k->start_ticks);
    r = r < 0 ? r : take_lock(k);
    if (r < 0) {
        return r;
    }
    count_before(k);
    keep_log_open(&k->log, folder, k->conf.log_bytes, k->conf.mask);
    r = open_signals(k);
    r = r < 0 ? r : open_tree(k);
    return r < 0 ? r : write_pid(k);
}

void keep_release(struct keep *k)
{
    tree_release(&k->tree);
    keep_log_close(&k->log);
    keep_conf_release(&k->conf);
}

/* ---- the command ---- */

static void stand(struct keep *k, enum keep_what what, uint64_t due_ms)
{
    k->due_ms = due_ms;
    k->state.what = what;
    k->state.since_ms = os_realtime_ms();
    k->state.child = what == KEEP_RUNNING || what == KEEP_STOPPING ? MAX(k->tree.child, 0) : 0;
    if (keep_state_write(k->folder, &k->state) < 0) {
        keep_log_say(&k->log, "the file `state` cannot be written");
    }
}

static void wait_for_restart(struct keep *k)
{
    stand(k, KEEP_WAITING, os_monotonic_ms() + k->backoff_ms);
    k->backoff_ms = MIN(k->backoff_ms * 2, KEEP_BACKOFF_MAX_MS);
}

static void read_output(struct keep *k, int reads)
{
    static char bytes[READ_BYTES];

    while (k->out_fd >= 0 && reads-- > 0) {
        const ssize_t n = read(k->out_fd, bytes, sizeof(bytes));
        if (n > 0) {
            keep_log_add(&k->log, bytes, (size_t)n);
        } else if (n == 0) {
            close(k->out_fd);
            k->out_fd = -1;
        } else if (errno != EINTR) {
            return;
        }
    }
}

static void close_output(struct keep *k)
{
    read_output(k, READS);
    if (k->out_fd >= 0) {
        close(k->out_fd);
    }
    k->out_fd = -1;
    keep_log_pause(&k->log);
}

static int launch(struct keep *k)
{
    const char *argv[] = {"/bin/sh", "-c", k->conf.command, NULL};
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return -errno;
    }
    check(fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    const struct launch launch = {.argv = argv,
                                  .envp = k->conf.envp,
                                  .cwd = k->conf.cwd,
                                  .output_fd = ends[1],
                                  .service = true};
    const int r = tree_start(&k->tree, &launch);
    close(ends[1]);
    if (r < 0) {
        close(ends[0]);
    } else {
        k->out_fd = ends[0];
    }
    return r;
}

static void start(struct keep *k)
{
    int r = k->tree.empty ? 0 : -EBUSY;

    if (r < 0) {
        tree_kill(&k->tree);
        r = k->tree.empty ? 0 : -EBUSY;
    }
    keep_log_say(&k->log, "start %" PRIu64, k->state.restarts);
    r = r < 0 ? r : launch(k);
    if (r == 0) {
        k->begun_ms = os_monotonic_ms();
        stand(k, KEEP_RUNNING, NEVER);
        return;
    }
    keep_log_say(&k->log, "cannot run it in %s: %s", k->conf.cwd, strerror(-r));
    k->state.end = KEEP_END_ERROR;
    k->state.code = -r;
    wait_for_restart(k);
}

/* The main process has ended: nothing else may be left, and nothing in the pipe. */
static void take_end(struct keep *k)
{
    const int status = k->tree.main_status;

    tree_kill(&k->tree);
    close_output(k);
    k->state.end = WIFSIGNALED(status) ? KEEP_END_SIGNAL : KEEP_END_EXIT;
    k->state.code = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- the loop ---- */

static void begin_stop(struct keep *k)
{
    if (k->state.what == KEEP_RUNNING) {
        tree_signal(&k->tree, SIGTERM);
        tree_signal(&k->tree, SIGCONT);
        stand(k, KEEP_STOPPING, os_monotonic_ms() + k->conf.grace_ms);
    } else if (k->state.what == KEEP_WAITING) {
        stand(k, KEEP_STOPPING, os_monotonic_ms());
    }
}

static void read_signals(struct keep *k)
{
    struct signalfd_siginfo info;

    while (read(k->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGTERM) {
            begin_stop(k);
        }
    }
    tree_reap(&k->tree);
}

static void advance(struct keep *k)
{
    const uint64_t now_ms = os_monotonic_ms();

    switch (k->state.what) {
    case KEEP_RUNNING:
        if (k->tree.main_ended) {
            if (now_ms - k->begun_ms >= KEEP_STEADY_MS) {
                k->backoff_ms = KEEP_BACKOFF_FIRST_MS;
            }
            take_end(k);
            wait_for_restart(k);
        }
        break;
    case KEEP_WAITING:
        if (now_ms >= k->due_ms) {
            k->state.restarts++;
            start(k);
        }
        break;
    case KEEP_STOPPING:
        if (k->tree.empty || now_ms >= k->due_ms) {
            take_end(k);
            stand(k, KEEP_STOPPED, NEVER);
        }
        break;
    case KEEP_STOPPED:
        break;
    }
}

static int poll_timeout_ms(const struct keep *k)
{
    const uint64_t now_ms = os_monotonic_ms();

    if (k->due_ms == NEVER) {
        return -1;
    }
    return k->due_ms > now_ms ? (int)MIN(k->due_ms - now_ms, POLL_MAX_MS) : 0;
}

void keep_begin(struct keep *k)
{
    start(k);
}

int keep_run(struct keep *k)
{
    enum { OUT, SIGNAL, REPORT, COUNT };

    while (k->state.what != KEEP_STOPPED) {
        struct pollfd fds[COUNT] = {
            [OUT] = {.fd = k->out_fd, .events = POLLIN},
            [SIGNAL] = {.fd = k->signal_fd, .events = POLLIN},
            [REPORT] = {.fd = k->tree.report_fd, .events = POLLIN},
        };
        if (poll(fds, COUNT, poll_timeout_ms(k)) < 0) {
            check(errno == EINTR);
            continue;
        }
        if (fds[OUT].revents != 0) {
            read_output(k, READS);
        }
        if (fds[SIGNAL].revents != 0 || fds[REPORT].revents != 0) {
            read_signals(k);
        }
        advance(k);
    }
    return k->tree.empty ? 0 : -E_BUSY;
}
