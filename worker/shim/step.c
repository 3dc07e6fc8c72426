/* One step: the loop that reads its output, minds its time and listens for orders. */
#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/os.h"
#include "worker/shim/job.h"

#define PIPE_BYTES      ((int)MIB)
#define DRAIN_MS        2000u /* for background processes that hold the pipe at the end */
#define CLOSED_MS       50u   /* for those that have closed it: perhaps they are just ending */
#define NEVER           UINT64_MAX
#define FULL_PIPE_READS 64 /* more than a full pipe holds */

/* Why a step is being ended before its time. The first reason counts, but force beats all. */
enum stop { STOP_NONE, STOP_TIMEOUT, STOP_CANCEL, STOP_SYSTEM, STOP_KILL };

struct run {
    struct job *job;
    const struct conf_step *step;
    int out_fd; /* -1 after the end of file */
    enum stop stop;
    uint64_t deadline_ms;       /* of the step: then TERM */
    uint64_t kill_deadline_ms;  /* after TERM: then KILL */
    uint64_t drain_deadline_ms; /* after the main process's end */
    bool done;
};

static const char *stop_text(enum stop stop)
{
    switch (stop) {
    case STOP_TIMEOUT:
        return "its time is up";
    case STOP_CANCEL:
        return "the job was canceled";
    case STOP_SYSTEM:
        return "this machine stops its jobs";
    case STOP_KILL:
        return "the job was ended by force";
    case STOP_NONE:
        break;
    }
    return "";
}

/* Reads what is there, at most `rounds` times, so that a busy script cannot keep us from our clock.
 */
static void drain(struct run *run, int rounds)
{
    static char bytes[FRAME_BYTES_MAX];
    while (run->out_fd >= 0 && rounds-- > 0) {
        ssize_t n = read(run->out_fd, bytes, sizeof(bytes));
        if (n > 0) {
            output_add(&run->job->output, STREAM_JOB, bytes, (size_t)n);
        } else if (n == 0) {
            close(run->out_fd);
            run->out_fd = -1;
        } else if (errno != EINTR) {
            return;
        }
    }
}

static void kill_tree(struct run *run)
{
    tree_kill(&run->job->tree);
    run->kill_deadline_ms = NEVER;
    run->done = true;
}

static void stop(struct run *run, enum stop why)
{
    struct job *j = run->job;
    if (why == STOP_KILL) {
        if (!j->tree.main_ended) {
            run->stop = why;
        }
        kill_tree(run);
        return;
    }
    if (j->tree.main_ended || run->stop != STOP_NONE) {
        return;
    }
    run->stop = why;
    run->deadline_ms = NEVER;
    run->kill_deadline_ms = os_monotonic_ms() + j->conf.grace_ms;
    if (why != STOP_CANCEL || !j->silent) {
        output_interject(&j->output, "\033[33;1mEnding %s: %s\033[0;m", run->step->name,
                         stop_text(why));
    }
    tree_signal(&j->tree, SIGTERM);
    tree_signal(&j->tree, SIGCONT);
}

static void read_signals(struct run *run)
{
    job_read_signals(run->job);
    if (run->job->stopped_by_system) {
        stop(run, STOP_SYSTEM);
    }
}

static void read_orders(struct run *run)
{
    job_read_orders(run->job);
    if (run->job->killed) {
        stop(run, STOP_KILL);
    } else if (run->job->canceled && run->step->kind == STEP_MAIN) {
        stop(run, STOP_CANCEL);
    }
}

/* After the end of the main process. Who was told to stop may take the whole grace for it;
 * otherwise only what still holds the pipe is waited for, and not long: it may be a daemon. */
static void check_end(struct run *run, uint64_t now_ms)
{
    if (run->stop == STOP_NONE) {
        uint64_t wait_ms = run->out_fd >= 0 ? DRAIN_MS : CLOSED_MS;
        run->drain_deadline_ms = MIN(run->drain_deadline_ms, now_ms + wait_ms);
    }
    run->done = run->done || run->job->tree.empty || now_ms >= run->drain_deadline_ms;
}

static void check_clock(struct run *run)
{
    uint64_t now_ms = os_monotonic_ms();
    if (run->job->tree.main_ended) {
        check_end(run, now_ms);
    } else if (now_ms >= run->deadline_ms) {
        run->job->timed_out = run->job->timed_out || run->step->kind == STEP_MAIN;
        stop(run, STOP_TIMEOUT);
    }
    if (now_ms >= run->kill_deadline_ms) {
        kill_tree(run);
    }
}

static int poll_timeout_ms(const struct run *run)
{
    uint64_t next_ms = MIN(run->drain_deadline_ms, MIN(run->deadline_ms, run->kill_deadline_ms));
    uint64_t now_ms = os_monotonic_ms();
    if (next_ms == NEVER) {
        return -1;
    }
    return next_ms > now_ms ? (int)MIN(next_ms - now_ms, 3600u * 1000u) : 0;
}

static void loop(struct run *run)
{
    struct job *j = run->job;
    enum { OUT, CTL, SIGNAL, REPORT, COUNT };
    while (!run->done) {
        struct pollfd fds[COUNT] = {
            [OUT] = {.fd = run->out_fd, .events = POLLIN},
            [CTL] = {.fd = j->ctl_fd, .events = POLLIN},
            [SIGNAL] = {.fd = j->signal_fd, .events = POLLIN},
            [REPORT] = {.fd = j->tree.report_fd, .events = POLLIN},
        };
        if (poll(fds, COUNT, poll_timeout_ms(run)) < 0) {
            check(errno == EINTR);
            continue;
        }
        if (fds[OUT].revents != 0) {
            drain(run, 1);
        }
        if (fds[SIGNAL].revents != 0) {
            read_signals(run);
        }
        if (fds[REPORT].revents != 0) {
            tree_reap(&j->tree);
        }
        if (fds[CTL].revents != 0) {
            read_orders(run);
        }
        check_clock(run);
    }
}

/* After the main process: nothing of the step may be left, and nothing in the pipe. */
static void sweep_up(struct run *run)
{
    struct job *j = run->job;
    size_t left = tree_kill(&j->tree);
    drain(run, FULL_PIPE_READS);
    if (left > 0 && run->stop == STOP_NONE) {
        j->status.leftovers += (uint32_t)left;
        output_say(&j->output, "\033[33;1mEnded %zu process%s that %s left running\033[0;m", left,
                   left == 1 ? "" : "es", run->step->name);
    }
    if (!j->tree.empty) {
        output_say(&j->output, "\033[31;1mERROR: processes of %s cannot be ended\033[0;m",
                   run->step->name);
    }
    if (run->out_fd >= 0) {
        close(run->out_fd);
    }
}

static const char *result_of(const struct run *run, int wait_status)
{
    switch (run->stop) {
    case STOP_TIMEOUT:
        return "timeout";
    case STOP_CANCEL:
        return "canceled";
    case STOP_KILL:
        return "killed";
    case STOP_SYSTEM:
        return "signal";
    case STOP_NONE:
        break;
    }
    if (!run->job->tree.empty) {
        return "error";
    }
    return WIFEXITED(wait_status) ? "exit" : "signal";
}

static int code_of(const struct run *run, int wait_status)
{
    if (run->stop == STOP_SYSTEM) {
        return SIGTERM;
    }
    if (run->stop == STOP_NONE && !run->job->tree.empty) {
        return EBUSY;
    }
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : WTERMSIG(wait_status);
}

static void say_result(struct run *run, const struct shim_step_status *s)
{
    struct output *o = &run->job->output;
    if (strcmp(s->result, "signal") == 0) {
        output_say(o, "\033[31;1mERROR: %s was ended by signal %d (%s)\033[0;m", s->name, s->code,
                   strsignal(s->code));
    } else if (strcmp(s->result, "exit") == 0 && s->code != 0 && strcmp(s->name, "script") == 0 &&
               !run->step->quiet) {
        output_say(o, "\033[31;1mERROR: the script ended with exit code %d\033[0;m", s->code);
    }
}

/* The pipe for stdout and stderr; returns its writing end or -errno. */
static int open_pipe(struct run *run)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return -errno;
    }
    fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES); /* where it is not granted, the usual size does */
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    run->out_fd = ends[0];
    return ends[1];
}

/* Puts the first program that is there among the arguments. */
static bool choose_program(const struct conf_step *step)
{
    for (size_t i = 0; i < step->either_count; i++) {
        if (access(step->either[i], X_OK) == 0) {
            step->argv[step->either_at] = step->either[i];
            return true;
        }
    }
    return step->either_count == 0;
}

static int start(struct run *run)
{
    if (!choose_program(run->step)) {
        return -ENOENT;
    }
    int output_fd = open_pipe(run);
    if (output_fd < 0) {
        return output_fd;
    }
    struct launch launch = {
        .argv = run->step->argv,
        .envp = run->step->envp,
        .cwd = run->step->cwd,
        .output_fd = output_fd,
        .open_files = run->job->conf.open_files,
    };
    int r = tree_start(&run->job->tree, &launch);
    close(output_fd);
    if (r < 0) {
        close(run->out_fd);
    }
    return r;
}

void step_run(struct job *j, const struct conf_step *step, struct shim_step_status *ret)
{
    uint64_t begin_ms = os_monotonic_ms();
    struct run run = {
        .job = j,
        .step = step,
        .deadline_ms = step->timeout_ms > 0 ? begin_ms + step->timeout_ms : NEVER,
        .kill_deadline_ms = NEVER,
        .drain_deadline_ms = NEVER,
    };
    if (step->kind == STEP_MAIN) {
        run.deadline_ms = MIN(run.deadline_ms, j->deadline_ms);
    }
    int r = start(&run);
    if (r < 0) {
        const char *program = step->either != NULL ? step->argv[step->either_at] : step->argv[0];
        output_say(&j->output, "\033[31;1mERROR: cannot run %s for %s: %s\033[0;m", program,
                   step->name, strerror(-r));
        step_set_result(ret, "error", -r);
        return;
    }
    loop(&run);
    sweep_up(&run);
    int wait_status = j->tree.main_status;
    step_set_result(ret, result_of(&run, wait_status), code_of(&run, wait_status));
    ret->duration_ms = os_monotonic_ms() - begin_ms;
    say_result(&run, ret);
}
