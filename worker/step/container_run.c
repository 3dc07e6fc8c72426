/* One start of the job's container, and what comes out of it. */
#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/exec/steps.h"
#include "worker/step/container.h"

#define CHUNK_BYTES  ((size_t)256 * KIB)
#define PAUSE_MIN_MS 5u    /* between two looks at the output, after some */
#define PAUSE_MAX_MS 50u   /* after none for a while */
#define LOOK_MS      2000u /* how often the Engine is asked whether the container still runs */
#define LOOK_WAIT_S  5u
#define PATIENCE_MS  10000u /* of an Engine that does not answer */
#define STOP_WAIT_S  20u

struct watch {
    struct box *box;
    const Pb__ContainerState *state;
    const char *dir; /* FOLDER/run */
    int ctl_fd;
    struct spool_reader spool;
    uint64_t shown; /* bytes of the log */
    bool told;      /* to end */
    bool lost;      /* it cannot be known how it goes on; `detail` says why */
    uint64_t next_look_ms;
    uint64_t away_since_ms; /* the Engine; 0: it answers */
    const char *detail;
    struct shim_status status;
};

static volatile sig_atomic_t told_to_end;

static void on_end(int number)
{
    (void)number;
    told_to_end = 1;
}

/* The shim of the host asks for an end by SIGTERM; the shim of the container gives the grace. */
static void catch_end(void)
{
    struct sigaction action = {.sa_handler = on_end};
    sigaction(SIGTERM, &action, NULL);
}

static int put(const char *dir, const char *name, struct str text, mode_t mode)
{
    char *path = os_path_join(dir, name);
    int r = os_put_file(path, text.p != NULL ? text.p : "", text.n, mode);
    if (r == 0 && chmod(path, mode) < 0) {
        r = err_from_errno(errno);
    }
    free(path);
    return r;
}

/* Made here, so that they stay ours whoever writes into them: the container may run as anybody. */
static int put_files(const char *dir)
{
    static const char *const names[] = {"spool", "tail", "status.new", "errors"};
    int r = chmod(dir, 0777) < 0 ? err_from_errno(errno) : 0;
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(names); i++) {
        r = put(dir, names[i], STR(""), 0666);
    }
    char *ctl = os_path_join(dir, "ctl");
    if (r == 0 && (mkfifo(ctl, 0666) < 0 || chmod(ctl, 0666) < 0)) {
        r = err_from_errno(errno);
    }
    free(ctl);
    return r;
}

/* What an earlier start left is moved away, not removed: some of it may not be ours to remove. */
static int fresh_dir(struct watch *w)
{
    struct step *s = w->box->s;
    w->dir = arena_printf(&s->arena, "%s/run", s->folder);
    for (unsigned i = 0; os_exists(w->dir) && i < SHIM_STEPS_MAX; i++) {
        const char *aside = arena_printf(&s->arena, "%s/run.%u", s->folder, i);
        if (!os_exists(aside) && rename(w->dir, aside) < 0) {
            return err_from_errno(errno);
        }
    }
    int r = mkdir(w->dir, 0700) < 0 ? err_from_errno(errno) : 0;
    return r < 0 ? r : put_files(w->dir);
}

static int write_conf(struct watch *w, const struct box_run *run)
{
    uint64_t grace_ms = w->box->settings->cancel_grace_ms;
    /* The shim of the host ends us after the whole grace: what we have to tell comes before. */
    grace_ms -= MIN(grace_ms / 4, 1000u);
    struct shim_conf *conf = shim_conf_new(STEPS_LOG_HEAD_BYTES, STEPS_LOG_TAIL_BYTES, grace_ms,
                                           LIMIT_TIMEOUT_MS);
    shim_conf_inherit(conf);
    run->add_steps(run->ctx, conf);
    int r = shim_conf_write(conf, w->dir);
    const char *path = arena_printf(&w->box->s->arena, "%s/shim.conf", w->dir);
    if (r == 0 && chmod(path, 0644) < 0) {
        r = err_from_errno(errno);
    }
    if (r == 0 && run->script.p != NULL) {
        r = put(w->dir, arena_printf(&w->box->s->arena, "%s.sh", run->name), run->script, 0644);
    }
    return r;
}

static int open_files(struct watch *w)
{
    char *ctl = os_path_join(w->dir, "ctl");
    w->ctl_fd = open(ctl, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    free(ctl);
    return w->ctl_fd < 0 ? err_from_errno(errno) : spool_open(&w->spool, w->dir);
}

static void order(const struct watch *w, char command)
{
    (void)!write(w->ctl_fd, &command, 1);
}

static void lose(struct watch *w, const char *detail)
{
    w->lost = true;
    w->detail = detail;
}

/* Shows what is there; true when there was something. */
static bool show(struct watch *w)
{
    struct buf out = BUF_INIT;
    int r = spool_read(&w->spool, w->shown, CHUNK_BYTES, &out);
    bool some = out.n > 0;
    if (some) {
        (void)os_write_all(STDOUT_FILENO, out.p, out.n);
        w->shown += out.n;
    }
    if (r < 0 && !w->lost) {
        order(w, 'k');
        lose(w, "what the container printed cannot be read any more");
    }
    buf_release(&out);
    return some;
}

/* Does it still run? The Engine may be away for a moment: it is restarted for an upgrade, say. */
static void look(struct watch *w)
{
    struct engine engine = w->box->engine;
    struct answer_container c;
    struct arena arena;
    struct buf why = BUF_INIT;
    uint64_t now_ms = os_monotonic_ms();
    arena_init(&arena, 0);
    engine.arena = &arena;
    int r = engine_inspect(&engine, w->state->container, &c, &why);
    if (r == 0) {
        w->away_since_ms = 0;
        if (!c.running && shim_status_read(w->dir, &w->status) < 0) {
            lose(w, c.oom_killed ? "the container ran out of memory and was killed"
                                 : arena_printf(&w->box->s->arena,
                                                "the container was killed (exit code %" PRIi64 ")",
                                                c.exit_code));
        }
    } else if (r == -E_NOT_FOUND) {
        lose(w, "the container is gone: somebody removed it");
    } else if (w->away_since_ms == 0) {
        w->away_since_ms = MAX(now_ms, 1u);
    } else if (now_ms - w->away_since_ms > PATIENCE_MS) {
        order(w, 'k'); /* the container may live without its Engine */
        lose(w, arena_printf(&w->box->s->arena, "the Docker Engine does not answer: %s",
                             box_quote(w->box, buf_str(&why))));
    }
    w->next_look_ms = os_monotonic_ms() + LOOK_MS;
    arena_release(&arena);
    buf_release(&why);
}

static void watch(struct watch *w)
{
    uint64_t pause_ms = PAUSE_MIN_MS;
    w->next_look_ms = os_monotonic_ms() + LOOK_MS;
    while (!w->lost) {
        bool ended = shim_status_read(w->dir, &w->status) == 0;
        while (show(w)) {
            pause_ms = PAUSE_MIN_MS;
        }
        if (ended) {
            return;
        }
        if (told_to_end && !w->told) {
            order(w, 'e');
            w->told = true;
        }
        if (os_monotonic_ms() >= w->next_look_ms) {
            look(w);
        }
        os_sleep_ms(pause_ms);
        pause_ms = MIN(pause_ms * 2, PAUSE_MAX_MS);
    }
}

/* What the shim kept beside the spool, and the container at rest: the next start needs it so. */
static void finish(struct watch *w)
{
    struct buf out = BUF_INIT;
    struct buf why = BUF_INIT;
    while (show(w)) {
    }
    if (!w->lost && shim_tail_read(w->dir, &w->status, &out) == 0) {
        (void)os_write_all(STDOUT_FILENO, out.p, out.n);
    }
    if (w->away_since_ms == 0) {
        (void)engine_wait(&w->box->engine, w->state->container, STOP_WAIT_S, &why);
    }
    buf_release(&out);
    buf_release(&why);
}

/* The lines did not end well. Perhaps that is not their fault. */
static bool ran_out_of_memory(const struct watch *w)
{
    struct answer_container c;
    if (w->status.oom_kills > 0) {
        return true;
    }
    struct buf why = BUF_INIT;
    bool oom = engine_inspect(&w->box->engine, w->state->container, &c, &why) == 0 && c.oom_killed;
    buf_release(&why);
    return oom;
}

static int judge(struct watch *w, struct shim_step_status *ret)
{
    const struct shim_step_status *s = &w->status.steps[0];
    if (w->lost) {
        return -E_FAILED;
    }
    if (w->status.step_count == 0) {
        w->detail = "the container ran nothing";
        return -E_FAILED;
    }
    bool well = strcmp(s->result, "exit") == 0 && s->code == 0;
    if (!well && !w->told && ran_out_of_memory(w)) {
        w->detail = "the container ran out of memory";
        return -E_FAILED;
    }
    *ret = *s;
    return 0;
}

static int prepare(struct watch *w, const struct box_run *run)
{
    int r = fresh_dir(w);
    r = r < 0 ? r : write_conf(w, run);
    r = r < 0 ? r : open_files(w);
    if (r < 0) {
        w->detail = arena_printf(&w->box->s->arena, "cannot prepare %s: %s", w->dir, err_text(r));
    }
    return r;
}

/* Some of what the job asks for shows only now to be wrong. */
static int start(struct watch *w)
{
    struct buf why = BUF_INIT;
    int r = engine_start(&w->box->engine, w->state->container, &why);
    if (r < 0) {
        bool user = str_find(buf_str(&why), STR("unable to find user")) >= 0;
        r = user ? -E_INVALID : r;
        w->detail = arena_printf(&w->box->s->arena, "the container does not start: %s",
                                 box_quote(w->box, buf_str(&why)));
    }
    buf_release(&why);
    return r;
}

int box_run(struct box *box, const Pb__ContainerState *state, const struct box_run *run,
            struct shim_step_status *ret, const char **ret_detail)
{
    struct watch w = {.box = box, .state = state, .ctl_fd = -1, .spool.fd = -1};
    if (told_to_end) {
        *ret = (struct shim_step_status){.result = "canceled"};
        return 0;
    }
    int r = prepare(&w, run);
    if (r == 0) {
        catch_end();
        r = start(&w);
    }
    if (r == 0) {
        watch(&w);
        finish(&w);
        r = judge(&w, ret);
    }
    if (r < 0) {
        step_error("%s", w.detail);
        *ret_detail = w.detail;
    }
    if (w.ctl_fd >= 0) {
        close(w.ctl_fd);
    }
    spool_close(&w.spool);
    return r;
}
