/* The worker's side of a running shim: starting it, asking for it, giving it orders. */
#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/os.h"
#include "worker/shim/cgroup.h"
#include "worker/shim/proc.h"
#include "worker/shim/shim.h"

#define SMALL_FILE       ((size_t)PATH_MAX + 64)
#define LEFTOVER_MS      10000u
#define LEFTOVER_SOON_MS 100u
#define PAUSE_MS         5u
#define ANNOUNCE_BYTES   ((size_t)64)

int shim_start(const char *program, const char *folder, pid_t *ret_pid)
{
    const char *argv[] = {program, folder, NULL};
    struct buf out = BUF_INIT;
    uint64_t pid = 0;
    int status;
    char *errors = os_path_join(folder, "errors");
    struct os_spawn spawn = {
        .argv = argv,
        .stdin_fd = -1,
        .stdout_fd = -1,
        .stderr_fd = open(errors, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600),
        .new_session = true,
    };
    free(errors);
    if (spawn.stderr_fd < 0) {
        return err_from_errno(errno);
    }
    /* The process that we start is gone at once; the shim is its child, holds the pipe until it is
     * ready, and writes its pid into it. */
    int r = os_run(&spawn, ANNOUNCE_BYTES, &out, &status);
    close(spawn.stderr_fd);
    if (r == 0 && (str_to_u64(str_trim(buf_str(&out)), &pid) < 0 || pid == 0 || pid > INT_MAX)) {
        r = -E_FAILED;
    }
    buf_release(&out);
    if (r == 0) {
        *ret_pid = (pid_t)pid;
    }
    return r;
}

/* "PID START_TIME" */
static int read_pid(const char *folder, pid_t *ret_pid, uint64_t *ret_start_ticks)
{
    struct buf text = BUF_INIT;
    struct str pid_text;
    uint64_t pid;
    uint64_t start;
    char *path = os_path_join(folder, "pid");
    int r = os_read_file(path, SMALL_FILE, &text);
    free(path);
    if (r == 0) {
        struct str rest = str_trim(buf_str(&text));
        bool ok = str_split(&rest, ' ', &pid_text) && str_to_u64(pid_text, &pid) == 0 && pid > 0 &&
                  pid <= INT_MAX && str_to_u64(rest, &start) == 0;
        r = ok ? 0 : -E_CORRUPT;
    }
    buf_release(&text);
    if (r == 0) {
        *ret_pid = (pid_t)pid;
        *ret_start_ticks = start;
    }
    return r;
}

static bool find_alive(const char *folder, pid_t *ret_pid)
{
    uint64_t start;
    uint64_t now_start;
    struct proc p;
    return read_pid(folder, ret_pid, &start) == 0 && proc_read(*ret_pid, &p, &now_start) == 0 &&
           start == now_start && p.state != 'Z' && p.state != 'X';
}

bool shim_alive(const char *folder)
{
    pid_t pid;
    return find_alive(folder, &pid);
}

bool shim_signal(const char *folder, int signal_number)
{
    pid_t pid;
    return find_alive(folder, &pid) && kill(pid, signal_number) == 0;
}

int shim_control(const char *folder, char command)
{
    char *path = os_path_join(folder, "ctl");
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    int r = 0;
    free(path);
    if (fd < 0) {
        /* ENXIO: the fifo has no reader. */
        return errno == ENXIO ? -E_NOT_FOUND : err_from_errno(errno);
    }
    if (write(fd, &command, 1) != 1) {
        r = err_from_errno(errno);
    }
    close(fd);
    return r;
}

/* The cgroup that the dead shim made, or NULL. The job could write the file: only a cgroup that
 * bears the shim's own name is taken. */
static char *cgroup_of(const char *folder)
{
    struct buf text = BUF_INIT;
    struct buf name = BUF_INIT;
    char *cgroup = NULL;
    pid_t pid;
    uint64_t start;
    char *path = os_path_join(folder, "method");
    if (os_read_file(path, SMALL_FILE, &text) == 0 && read_pid(folder, &pid, &start) == 0) {
        struct str line = str_trim(buf_str(&text));
        buf_add_char(&name, '/');
        cgroup_name(pid, start, &name);
        if (str_starts(line, STR("cgroup /")) && str_ends(line, buf_str(&name))) {
            cgroup = str_dup(str_sub(line, strlen("cgroup "), line.n));
        }
    }
    free(path);
    buf_release(&text);
    buf_release(&name);
    return cgroup;
}

/* One round; returns how many there were. Who carries the mark, and whom they started. */
static size_t kill_round(const char *mark)
{
    struct proc_list list;
    proc_list_load(&list);
    proc_list_mark_environment(&list, mark);
    proc_list_spread(&list);
    size_t count = proc_list_signal(&list, SIGKILL, getpid());
    proc_list_release(&list);
    return count;
}

/* Kills what is in the cgroup; true once it is empty and gone. */
static bool empty_cgroup(const char *cgroup)
{
    if (cgroup == NULL) {
        return true;
    }
    cgroup_kill(cgroup);
    return cgroup_remove(cgroup);
}

/* Rounds until nothing is left or the time is over; true: nothing is left. */
static bool kill_marked(const char *folder, const char *cgroup, uint64_t for_ms, size_t *ret_most)
{
    char canonical[PATH_MAX];
    struct buf mark = BUF_INIT;
    uint64_t deadline_ms = os_monotonic_ms() + for_ms;
    bool gone = false;
    *ret_most = 0;
    if (realpath(folder, canonical) == NULL) {
        return true;
    }
    buf_addf(&mark, "DAVIT_JOB_FOLDER=%s", canonical);
    for (;;) {
        size_t count = kill_round(mark.p);
        gone = empty_cgroup(cgroup) && count == 0;
        *ret_most = MAX(*ret_most, count);
        if (gone || os_monotonic_ms() >= deadline_ms) {
            break;
        }
        os_sleep_ms(PAUSE_MS);
    }
    buf_release(&mark);
    return gone;
}

static bool kill_leftovers(const char *folder, uint64_t for_ms, size_t *ret_most)
{
    char *cgroup = cgroup_of(folder);
    bool gone = kill_marked(folder, cgroup, for_ms, ret_most);
    free(cgroup);
    return gone;
}

int shim_kill_leftovers(const char *folder)
{
    size_t most;
    kill_leftovers(folder, LEFTOVER_MS, &most);
    return (int)most;
}

bool shim_kill_leftovers_soon(const char *folder)
{
    size_t most;
    return kill_leftovers(folder, LEFTOVER_SOON_MS, &most);
}
