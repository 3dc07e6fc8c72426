#include "common/base.h"

#include "worker/loop.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utlist.h>

#include "common/os.h"

enum watch_kind { WATCH_FD, WATCH_IO, WATCH_PROCESS, WATCH_CHILD, WATCH_FOLDER };

struct loop_watch {
    enum watch_kind kind;
    int fd; /* the caller's; the process's pidfd, ours; the inotify watch number of a folder */
    bool dead;
    bool reaped; /* a child: `status` is how it ended */
    int status;
    pid_t pid;
    loop_fn fn;
    loop_io_fn io_fn;
    loop_child_fn child_fn;
    void *ctx;
    struct loop_watch *prev, *next;
};

struct loop {
    int epoll_fd;
    int signal_fd;
    int inotify_fd;
    loop_signal_fn on_signal;
    void *signal_ctx;
    struct loop_watch *watches;
    struct loop_watch *ios;       /* the same, of WATCH_IO: thousands, which nobody looks through */
    struct loop_watch *graveyard; /* removed while events of this round may still point to them */
    struct heap timers;
    size_t children; /* that are watched */
    bool stopped;
};

static int epoll_set(struct loop *l, int operation, int fd, unsigned events, void *tag)
{
    uint32_t wanted = ((events & LOOP_READ) != 0 ? (uint32_t)EPOLLIN : 0u) |
                      ((events & LOOP_WRITE) != 0 ? (uint32_t)EPOLLOUT : 0u);
    struct epoll_event ev = {.events = wanted, .data.ptr = tag};
    return epoll_ctl(l->epoll_fd, operation, fd, &ev) == 0 ? 0 : err_from_errno(errno);
}

static int epoll_add(struct loop *l, int fd, void *tag)
{
    return epoll_set(l, EPOLL_CTL_ADD, fd, LOOP_READ, tag);
}

static bool is_earlier(const struct heap_node *a, const struct heap_node *b)
{
    return HEAP_ITEM(a, struct loop_timer, node)->due_ms <
           HEAP_ITEM(b, struct loop_timer, node)->due_ms;
}

int loop_new(loop_signal_fn on_signal, void *ctx, struct loop **ret)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR) {
        return err_from_errno(errno);
    }
    struct loop *l = xcalloc(1, sizeof(*l));
    l->on_signal = on_signal;
    l->timers.before = is_earlier;
    l->signal_ctx = ctx;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    l->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    int r = l->epoll_fd < 0 || l->signal_fd < 0 ? err_from_errno(errno) : 0;
    if (r == 0) {
        r = epoll_add(l, l->signal_fd, &l->signal_fd);
    }
    if (r == 0 && l->inotify_fd >= 0) {
        r = epoll_add(l, l->inotify_fd, &l->inotify_fd);
    }
    if (r < 0) {
        loop_free(l);
        return r;
    }
    *ret = l;
    return 0;
}

static void close_fd(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

static void bury(struct loop *l)
{
    struct loop_watch *w, *next;
    DL_FOREACH_SAFE (l->graveyard, w, next) {
        free(w);
    }
    l->graveyard = NULL;
}

void loop_free(struct loop *l)
{
    if (l == NULL) {
        return;
    }
    while (l->watches != NULL || l->ios != NULL) {
        loop_unwatch(l, l->watches != NULL ? l->watches : l->ios);
    }
    bury(l);
    heap_release(&l->timers);
    close_fd(l->epoll_fd);
    close_fd(l->signal_fd);
    close_fd(l->inotify_fd);
    free(l);
}

static struct loop_watch *watch_new(struct loop *l, enum watch_kind kind, int fd, loop_fn fn,
                                    void *ctx)
{
    struct loop_watch *w = xcalloc(1, sizeof(*w));
    *w = (struct loop_watch){.kind = kind, .fd = fd, .fn = fn, .ctx = ctx};
    if (kind == WATCH_IO) {
        DL_APPEND(l->ios, w);
    } else {
        DL_APPEND(l->watches, w);
    }
    return w;
}

struct loop_watch *loop_watch_fd(struct loop *l, int fd, loop_fn fn, void *ctx)
{
    struct loop_watch *w = watch_new(l, WATCH_FD, fd, fn, ctx);
    check(epoll_add(l, fd, w) == 0);
    return w;
}

struct loop_watch *loop_watch_io(struct loop *l, int fd, unsigned events, loop_io_fn fn, void *ctx)
{
    struct loop_watch *w = watch_new(l, WATCH_IO, fd, NULL, ctx);
    w->io_fn = fn;
    check(epoll_set(l, EPOLL_CTL_ADD, fd, events, w) == 0);
    return w;
}

void loop_await(struct loop *l, struct loop_watch *w, unsigned events)
{
    check(w->kind == WATCH_IO && !w->dead);
    check(epoll_set(l, EPOLL_CTL_MOD, w->fd, events, w) == 0);
}

/* Its pidfd says when it has ended, the reaping how. */
struct loop_watch *loop_watch_child(struct loop *l, pid_t pid, loop_child_fn fn, void *ctx)
{
    int fd = pidfd_open(pid, 0);
    check(fd >= 0); /* nobody reaps between its start and here */
    struct loop_watch *w = watch_new(l, WATCH_CHILD, fd, NULL, ctx);
    w->pid = pid;
    w->child_fn = fn;
    l->children++;
    check(epoll_add(l, fd, w) == 0);
    return w;
}

struct loop_watch *loop_watch_process(struct loop *l, pid_t pid, loop_fn fn, void *ctx)
{
    int fd = pidfd_open(pid, 0);
    if (fd < 0) {
        return NULL;
    }
    struct loop_watch *w = watch_new(l, WATCH_PROCESS, fd, fn, ctx);
    check(epoll_add(l, fd, w) == 0);
    return w;
}

struct loop_watch *loop_watch_folder(struct loop *l, const char *path, loop_fn fn, void *ctx)
{
    uint32_t mask = IN_MODIFY | IN_MOVED_TO | IN_ONLYDIR;
    int wd = l->inotify_fd < 0 ? -1 : inotify_add_watch(l->inotify_fd, path, mask);
    return wd < 0 ? NULL : watch_new(l, WATCH_FOLDER, wd, fn, ctx);
}

void loop_unwatch(struct loop *l, struct loop_watch *w)
{
    if (w == NULL) {
        return;
    }
    check(!w->dead);
    if (w->kind == WATCH_FOLDER) {
        inotify_rm_watch(l->inotify_fd, w->fd);
    } else {
        epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    }
    if (w->kind == WATCH_PROCESS || w->kind == WATCH_CHILD) {
        close(w->fd);
    }
    l->children -= w->kind == WATCH_CHILD;
    w->dead = true;
    if (w->kind == WATCH_IO) {
        DL_DELETE(l->ios, w);
    } else {
        DL_DELETE(l->watches, w);
    }
    DL_APPEND(l->graveyard, w);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t due_ms, loop_fn fn, void *ctx)
{
    loop_timer_clear(l, t);
    *t = (struct loop_timer){.due_ms = MAX(due_ms, 1), .fn = fn, .ctx = ctx};
    heap_put(&l->timers, &t->node);
}

void loop_timer_clear(struct loop *l, struct loop_timer *t)
{
    if (t->due_ms != 0) {
        heap_remove(&l->timers, &t->node);
        t->due_ms = 0;
    }
}

static int wait_ms(const struct loop *l)
{
    const struct heap_node *top = heap_top(&l->timers);
    if (top == NULL) {
        return -1;
    }
    uint64_t first = HEAP_ITEM(top, struct loop_timer, node)->due_ms;
    uint64_t now = os_monotonic_ms();
    return first <= now ? 0 : (int)MIN(first - now, (uint64_t)INT_MAX);
}

/* One timer at a time and from the top again: a callback may clear any other timer. No more than
 * there are at the beginning, as callbacks set some that are due at once. */
static void fire_timers(struct loop *l)
{
    uint64_t now = os_monotonic_ms();
    for (size_t left = l->timers.count; left > 0 && !l->stopped; left--) {
        struct heap_node *top = heap_top(&l->timers);
        struct loop_timer *t = top != NULL ? HEAP_ITEM(top, struct loop_timer, node) : NULL;
        if (t == NULL || t->due_ms > now) {
            return;
        }
        loop_fn fn = t->fn;
        void *ctx = t->ctx;
        loop_timer_clear(l, t);
        fn(ctx);
    }
}

static void note_end(struct loop *l, pid_t pid, int status)
{
    struct loop_watch *w;
    DL_FOREACH (l->watches, w) {
        if (w->kind == WATCH_CHILD && w->pid == pid && !w->reaped) {
            w->reaped = true;
            w->status = status;
            return;
        }
    }
}

static void reap_children(struct loop *l)
{
    pid_t pid;
    int status;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (l->children > 0) {
            note_end(l, pid, status);
        }
    }
}

static void call(struct loop_watch *w, uint32_t epoll_events)
{
    bool both = (epoll_events & (EPOLLERR | EPOLLHUP)) != 0;
    unsigned events = ((epoll_events & EPOLLIN) != 0 || both ? LOOP_READ : 0u) |
                      ((epoll_events & EPOLLOUT) != 0 || both ? LOOP_WRITE : 0u);
    if (w->kind == WATCH_IO) {
        w->io_fn(w->ctx, events);
    } else if (w->kind != WATCH_CHILD) {
        w->fn(w->ctx);
    } else if (w->reaped) { /* else it ended since; it is reaped in the next round */
        w->child_fn(w->ctx, w->status);
    }
}

static void take_signals(struct loop *l)
{
    struct signalfd_siginfo info;
    while (read(l->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo != SIGCHLD) {
            l->on_signal(l->signal_ctx, (int)info.ssi_signo);
        }
    }
}

static void folder_changed(struct loop *l, int wd)
{
    struct loop_watch *w;
    DL_FOREACH (l->watches, w) {
        if (w->kind == WATCH_FOLDER && w->fd == wd) {
            w->fn(w->ctx);
            return;
        }
    }
}

static void take_folders(struct loop *l)
{
    char raw[8192] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t n = read(l->inotify_fd, raw, sizeof(raw));
    int last = -1;
    for (ssize_t at = 0; at < n;) {
        const struct inotify_event *ev = (const struct inotify_event *)(const void *)(raw + at);
        at += (ssize_t)(sizeof(*ev) + ev->len);
        if (ev->wd != last && (ev->mask & IN_IGNORED) == 0) {
            folder_changed(l, ev->wd);
        }
        last = ev->wd;
    }
}

static void dispatch(struct loop *l, const struct epoll_event *events, int count)
{
    for (int i = 0; i < count && !l->stopped; i++) {
        void *tag = events[i].data.ptr;
        if (tag == &l->signal_fd) {
            take_signals(l);
        } else if (tag == &l->inotify_fd) {
            take_folders(l);
        } else {
            struct loop_watch *w = tag;
            if (!w->dead) {
                call(w, events[i].events);
            }
        }
    }
}

void loop_run(struct loop *l)
{
    while (!l->stopped) {
        struct epoll_event events[64];
        int count = epoll_wait(l->epoll_fd, events, (int)ARRAY_LEN(events), wait_ms(l));
        check(count >= 0 || errno == EINTR);
        reap_children(l);
        dispatch(l, events, count);
        fire_timers(l);
        bury(l);
    }
    l->stopped = false;
}

void loop_stop(struct loop *l)
{
    l->stopped = true;
}
