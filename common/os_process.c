#include "common/base.h"

#include "common/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define STAT_BYTES ((size_t)4096)
#define LOOK_MS    200 /* how often `stop` is looked at */

int os_raise_open_files(uint64_t *ret_before)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0) {
        return err_from_errno(errno);
    }
    uint64_t before = files.rlim_cur;
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0) {
        return err_from_errno(errno);
    }
    *ret_before = before;
    return 0;
}

static void set_stream(posix_spawn_file_actions_t *actions, int fd, int slot)
{
    /* A source below its slot would have been replaced already. */
    check(fd == -1 || fd >= slot || fd == STDOUT_FILENO);
    if (fd >= 0) {
        check(posix_spawn_file_actions_adddup2(actions, fd, slot) == 0);
    }
}

static void set_actions(posix_spawn_file_actions_t *actions, const struct os_spawn *s)
{
    check(posix_spawn_file_actions_init(actions) == 0);
    if (s->stdin_fd < 0) {
        check(posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0) ==
              0);
    }
    set_stream(actions, s->stdin_fd, STDIN_FILENO);
    set_stream(actions, s->stdout_fd, STDOUT_FILENO);
    set_stream(actions, s->stderr_to_stdout ? STDOUT_FILENO : s->stderr_fd, STDERR_FILENO);
    check(posix_spawn_file_actions_addclosefrom_np(actions, STDERR_FILENO + 1) == 0);
    if (s->cwd != NULL) {
        check(posix_spawn_file_actions_addchdir_np(actions, s->cwd) == 0);
    }
}

static void set_attributes(posix_spawnattr_t *attr, const struct os_spawn *s)
{
    sigset_t all;
    sigset_t none;
    short flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
    sigfillset(&all);
    sigemptyset(&none);
    check(posix_spawnattr_init(attr) == 0);
    check(posix_spawnattr_setsigdefault(attr, &all) == 0);
    check(posix_spawnattr_setsigmask(attr, &none) == 0);
    if (s->new_session) {
        flags |= POSIX_SPAWN_SETSID;
    }
    check(posix_spawnattr_setflags(attr, flags) == 0);
}

int os_spawn(const struct os_spawn *s, pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    pid_t pid;
    char *const *envp = s->envp != NULL ? (char *const *)s->envp : environ;
    set_actions(&actions, s);
    set_attributes(&attr, s);
    int e = posix_spawnp(&pid, s->argv[0], &actions, &attr, (char *const *)s->argv, envp);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    if (e != 0) {
        errno = e;
        return err_from_errno(e);
    }
    *ret_pid = pid;
    return 0;
}

/* When a process is given up, though its output has not ended. */
struct patience {
    uint64_t end_ms;         /* 0: no end */
    const atomic_bool *stop; /* NULL: none */
};

static int wait_ms(const struct patience *p, uint64_t now_ms)
{
    uint64_t left_ms = p->end_ms > 0 ? p->end_ms - now_ms : UINT64_MAX;
    left_ms = p->stop != NULL ? MIN(left_ms, (uint64_t)LOOK_MS) : left_ms;
    return left_ms == UINT64_MAX ? -1 : (int)MIN(left_ms, (uint64_t)INT32_MAX);
}

/* Waits for output, or the end of it. */
static int await_output(int fd, const struct patience *patience)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    for (;;) {
        uint64_t now_ms = os_monotonic_ms();
        if (patience->stop != NULL && atomic_load(patience->stop)) {
            return -E_SHUTDOWN;
        }
        if (patience->end_ms > 0 && now_ms >= patience->end_ms) {
            return -E_TIMEOUT;
        }
        int n = poll(&p, 1, wait_ms(patience, now_ms));
        if (n > 0) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return err_from_errno(errno);
        }
    }
}

static int read_output(int fd, const struct patience *patience, size_t limit, struct buf *out)
{
    char bytes[4096];
    size_t start = out->n;
    for (;;) {
        int r = await_output(fd, patience);
        if (r < 0) {
            return r;
        }
        ssize_t n = read(fd, bytes, sizeof(bytes));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? err_from_errno(errno) : 0;
        }
        if ((size_t)n > limit - (out->n - start)) {
            return -E_TOO_BIG;
        }
        buf_add(out, bytes, (size_t)n);
        if (!buf_ok(out)) {
            return -E_TOO_BIG;
        }
    }
}

static int wait_for(pid_t pid, int *ret_status)
{
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return err_from_errno(errno);
        }
    }
    *ret_status = status;
    return 0;
}

int os_run(const struct os_spawn *s, size_t limit, struct buf *out, int *ret_status)
{
    return os_run_within(s, 0, NULL, limit, out, ret_status);
}

int os_run_within(const struct os_spawn *s, uint64_t timeout_ms, const atomic_bool *stop,
                  size_t limit, struct buf *out, int *ret_status)
{
    struct patience patience = {.stop = stop};
    struct os_spawn child = *s;
    int ends[2] = {-1, -1};
    pid_t pid;
    int status = 0;
    check(out != NULL || (timeout_ms == 0 && stop == NULL)); /* its output is how we wait */
    patience.end_ms = timeout_ms > 0 ? os_monotonic_ms() + timeout_ms : 0;
    if (out != NULL) {
        if (pipe2(ends, O_CLOEXEC) < 0) {
            return err_from_errno(errno);
        }
        child.stdout_fd = ends[1];
    }
    int r = os_spawn(&child, &pid);
    if (out != NULL) {
        close(ends[1]);
    }
    if (r == 0) {
        int read_result = out != NULL ? read_output(ends[0], &patience, limit, out) : 0;
        if (read_result < 0) {
            kill(s->new_session ? -pid : pid, SIGKILL);
        }
        r = wait_for(pid, &status);
        r = read_result < 0 ? read_result : r;
    }
    if (out != NULL) {
        close(ends[0]);
    }
    if (r == 0) {
        *ret_status = status;
    }
    return r;
}

int os_process_start_time(pid_t pid, uint64_t *ret_ticks)
{
    enum { FIELD = 22, FIRST_AFTER_NAME = 3 };
    char path[64];
    struct buf text = BUF_INIT;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int r = os_read_file(path, STAT_BYTES, &text);
    if (r < 0) {
        return r;
    }
    /* The name stands in parentheses and may hold any character, so count from the last ')'. */
    const char *close_paren = strrchr(text.p, ')');
    struct str rest = str_from(close_paren != NULL ? close_paren + 1 : "");
    struct str field = STR_NULL;
    rest = str_trim(rest);
    for (int i = FIRST_AFTER_NAME; i <= FIELD; i++) {
        if (!str_split(&rest, ' ', &field)) {
            field = STR_NULL;
        }
    }
    r = str_to_u64(field, ret_ticks) < 0 ? -E_CORRUPT : 0;
    buf_release(&text);
    return r;
}
