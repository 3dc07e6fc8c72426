/* The job as a whole: its files, the order of its steps. */
#include "common/base.h"

#include "worker/shim/job.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/os.h"
#include "worker/shim/cgroup.h"
#include "worker/shim/proc.h"
#include "worker/shim/status.h"

static char *file(const struct job *j, const char *name)
{
    return os_path_join(j->folder, name);
}

void job_init(struct job *j, const char *folder)
{
    *j = (struct job){.folder = folder, .ctl_fd = -1, .signal_fd = -1, .status_fd = -1};
}

static int open_signals(struct job *j)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    j->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return j->signal_fd < 0 ? err_from_errno(errno) : 0;
}

/* Open for reading and writing, so that the end of a writer is no end of file. */
static int open_fifo(struct job *j)
{
    char *path = file(j, "ctl");
    int r = 0;
    if (mkfifo(path, 0600) < 0 && errno != EEXIST) {
        r = err_from_errno(errno);
    } else {
        j->ctl_fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
        r = j->ctl_fd < 0 ? err_from_errno(errno) : 0;
    }
    free(path);
    return r;
}

static int reserve_status(struct job *j)
{
    char *path = file(j, "status.new");
    j->status_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int error = j->status_fd < 0 ? errno : posix_fallocate(j->status_fd, 0, STATUS_BYTES_MAX);
    free(path);
    return error == 0 ? 0 : err_from_errno(error);
}

static int describe_method(struct job *j)
{
    struct buf text = BUF_INIT;
    char *path = file(j, "method");
    int r = tree_init(&j->tree, getenv("DAVIT_SHIM_METHOD"), j->start_ticks);
    if (r == 0) {
        tree_describe(&j->tree, &text);
        buf_add_char(&text, '\n');
        r = os_put_file(path, text.p, text.n, 0600);
        if (r < 0) {
            tree_release(&j->tree);
        }
    }
    free(path);
    buf_release(&text);
    return r;
}

static int write_durably(const char *path, const struct buf *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    int r = os_write_all(fd, text->p, text->n);
    if (r == 0 && fsync(fd) < 0) {
        r = err_from_errno(errno);
    }
    close(fd);
    return r;
}

/* By a link, which the second of two shims cannot make: a folder is run once. */
static int write_pid(struct job *j)
{
    struct buf name = BUF_INIT;
    struct buf text = BUF_INIT;
    buf_addf(&name, "pid.%d", (int)getpid());
    buf_addf(&text, "%d %" PRIu64 "\n", (int)getpid(), j->start_ticks);
    char *own = file(j, name.p);
    char *path = file(j, "pid");
    int r = write_durably(own, &text);
    if (r == 0 && link(own, path) < 0) {
        r = errno == EEXIST ? -E_EXISTS : err_from_errno(errno);
    }
    unlink(own);
    if (r == 0) {
        r = os_fsync_dir(j->folder);
    }
    free(path);
    free(own);
    buf_release(&text);
    buf_release(&name);
    return r;
}

int job_open(struct job *j)
{
    struct proc self;
    int r = conf_load(&j->conf, j->folder);
    r = r < 0 ? r : proc_read(getpid(), &self, &j->start_ticks);
    r = r < 0 ? r : write_pid(j);
    r = r < 0 ? r : open_signals(j);
    r = r < 0 ? r : open_fifo(j);
    r = r < 0 ? r : reserve_status(j);
    r = r < 0 ? r
              : output_open(&j->output, j->folder, j->conf.head_bytes, j->conf.tail_bytes,
                            j->conf.mask);
    return r < 0 ? r : describe_method(j);
}

void job_read_orders(struct job *j)
{
    char order;
    while (read(j->ctl_fd, &order, 1) == 1) {
        j->canceled = j->canceled || order == 'c' || order == 'e';
        j->silent = j->silent || order == 'e';
        j->killed = j->killed || order == 'k';
    }
}

void job_read_signals(struct job *j)
{
    struct signalfd_siginfo info;
    while (read(j->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        j->stopped_by_system = j->stopped_by_system || info.ssi_signo == SIGTERM;
    }
    tree_reap(&j->tree);
}

void step_set_result(struct shim_step_status *s, const char *result, int code)
{
    snprintf(s->result, sizeof(s->result), "%s", result);
    s->code = code;
}

/* Why a main step is not even begun, or NULL. The first such step carries the reason, so that the
 * status tells of a cancel that came between two steps. */
static const char *main_refusal(struct job *j)
{
    if (j->failed) {
        return "skipped";
    }
    if (j->killed) {
        return "killed";
    }
    if (j->stopped_by_system) {
        return "signal";
    }
    if (j->canceled) {
        return "canceled";
    }
    return os_monotonic_ms() >= j->deadline_ms ? "timeout" : NULL;
}

static const char *refusal(struct job *j, const struct conf_step *step)
{
    switch (step->kind) {
    case STEP_MAIN:
        return main_refusal(j);
    case STEP_AFTER:
        return j->killed || j->stopped_by_system || !j->script_begun ? "skipped" : NULL;
    case STEP_ALWAYS:
        return j->killed || j->stopped_by_system ? "skipped" : NULL;
    }
    return NULL;
}

static const char *outcome_so_far(const struct job *j)
{
    if (!j->failed) {
        return "success";
    }
    return j->canceled && !j->timed_out ? "canceled" : "failed";
}

/* Every process of the job carries the folder's name; the steps behind the script know how it went.
 */
static void run_with_marks(struct job *j, const struct conf_step *step,
                           struct shim_step_status *ret)
{
    struct buf folder = BUF_INIT;
    struct buf outcome = BUF_INIT;
    struct buf tail = BUF_INIT;
    struct shim_status now = {0};
    output_describe(&j->output, &now);
    buf_addf(&tail, "DAVIT_JOB_TAIL=%" PRIu64 " %" PRIu64 " %" PRIu64, now.tail_bytes,
             now.elided_bytes, now.tail_start);
    buf_addf(&folder, "DAVIT_JOB_FOLDER=%s", j->folder);
    buf_addf(&outcome, "DAVIT_JOB_STATUS=%s", outcome_so_far(j));
    step->envp[step->env_count] = folder.p;
    step->envp[step->env_count + 1] = step->kind == STEP_MAIN ? NULL : outcome.p;
    step->envp[step->env_count + 2] = tail.p;
    step->envp[step->env_count + CONF_ENV_EXTRA] = NULL;
    step_run(j, step, ret);
    buf_release(&tail);
    buf_release(&folder);
    buf_release(&outcome);
}

static void run_one(struct job *j, const struct conf_step *step, struct shim_step_status *ret)
{
    snprintf(ret->name, sizeof(ret->name), "%s", step->name);
    job_read_orders(j);
    job_read_signals(j);
    const char *refused = refusal(j, step);
    if (refused != NULL) {
        step_set_result(ret, refused, strcmp(refused, "signal") == 0 ? SIGTERM : 0);
    } else {
        j->script_begun = j->script_begun || strcmp(step->name, "script") == 0;
        run_with_marks(j, step, ret);
    }
    if (step->kind == STEP_MAIN && (strcmp(ret->result, "exit") != 0 || ret->code != 0)) {
        j->failed = true;
    }
}

static int write_status(struct job *j)
{
    struct buf text = BUF_INIT;
    char *new_path = file(j, "status.new");
    char *path = file(j, "status");
    status_encode(&j->status, &text);
    int r = os_pwrite_all(j->status_fd, text.p, text.n, 0);
    if (r == 0 && (ftruncate(j->status_fd, (off_t)text.n) < 0 || fsync(j->status_fd) < 0 ||
                   rename(new_path, path) < 0)) {
        r = err_from_errno(errno);
    }
    if (r == 0) {
        r = os_fsync_dir(j->folder);
    }
    free(path);
    free(new_path);
    buf_release(&text);
    return r;
}

int job_run(struct job *j)
{
    uint64_t kills = cgroup_oom_kills();
    j->deadline_ms = os_monotonic_ms() + j->conf.timeout_ms;
    for (size_t i = 0; i < j->conf.step_count; i++) {
        run_one(j, &j->conf.steps[i], &j->status.steps[j->status.step_count++]);
    }
    output_close(&j->output, &j->status);
    kills = cgroup_oom_kills() - kills;
    j->status.oom_kills = kills <= UINT32_MAX ? (uint32_t)kills : 0;
    tree_release(&j->tree);
    return write_status(j);
}

void job_release(struct job *j)
{
    conf_release(&j->conf);
    close(j->ctl_fd);
    close(j->signal_fd);
    close(j->status_fd);
}
