#include "common/base.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "cli/follow.h"
#include "common/crypto.h"
#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"

#define RECONNECT_MS 500u
#define TICK_MS      50u
#define LIMIT_LINE   (64u * KIB) /* a longer line is printed in pieces */

#define BLOCKED_MS   1000u

struct follower;
struct stream;

struct follow {
    struct cli *c;
    const struct client *cl;
    struct follow_options o;
    pthread_mutex_t lock; /* guards all below, and standard output */
    struct follower *jobs;
    size_t live;
    struct stream *streams; /* the last one is the pipeline's own, before it its descendants' */
    volatile bool stop;
    int error; /* why following is no use any more */
};

/* The events of one pipeline, on a thread of its own. */
struct stream {
    struct stream *next;
    struct follow *f;
    pthread_t thread;
    uint64_t pipeline_id;
    char *prefix; /* before the names of its jobs: "" or "deploy/" */
    char status[32];
    char last_id[32];
    bool ended;
};

/* The log of one job, on a thread of its own. */
struct follower {
    struct follower *next;
    struct follow *f;
    pthread_t thread;
    uint64_t job_id;
    char *name;
    char last_id[64]; /* ATTEMPT:OFFSET */
    char status[32];
    struct buf line;
    char *detail; /* of how the job ended; NULL until its event says so */
    bool done;    /* all of the log was shown */
    unsigned color;
};

static void print_prefix(const struct follower *j)
{
    if (j->f->c->color) {
        printf("\x1b[%um%s\x1b[0m | ", j->color, j->name);
    } else {
        printf("%s | ", j->name);
    }
}

/* Prints the whole lines that wait; the rest too, when `all`. */
static void print_lines(struct follower *j, bool all)
{
    struct follow *f = j->f;
    struct str rest = buf_str(&j->line);
    pthread_mutex_lock(&f->lock);
    for (;;) {
        ptrdiff_t end = str_chr(rest, '\n');
        if (end < 0 && !((all && rest.n > 0) || rest.n > LIMIT_LINE)) {
            break;
        }
        size_t n = end < 0 ? rest.n : (size_t)end;
        print_prefix(j);
        fwrite(rest.p, 1, n, stdout);
        fputc('\n', stdout);
        rest = str_sub(rest, end < 0 ? n : n + 1, rest.n);
    }
    fflush(stdout);
    pthread_mutex_unlock(&f->lock);
    buf_drop_front(&j->line, j->line.n - rest.n);
}

/* What becomes of a job; with --json only the result is printed, by the caller. */
static void print_job_end(struct follow *f, const char *name, const char *status,
                          const char *detail)
{
    if (f->c->json) {
        return;
    }
    printf("%s: %s%s%s\n", name, cli_status(f->c, status), detail[0] != 0 ? ", " : "", detail);
    fflush(stdout);
}

static bool on_log_event(void *ctx, struct str id, struct str event, struct str data)
{
    struct follower *j = ctx;
    json_t *o = json_loadb(data.p, data.n, 0, NULL);
    bool go_on = true;
    if (str_eqz(event, "log")) {
        crypto_from_base64(str_from(json_text(o, "bytes")), &j->line);
        snprintf(j->last_id, sizeof(j->last_id), STR_FMT, STR_ARG(id));
        print_lines(j, false);
    } else if (str_eqz(event, "attempt")) {
        print_lines(j, true);
        if (json_number(o, "attempt") > 1) {
            pthread_mutex_lock(&j->f->lock);
            printf("%s: attempt %" PRIu64 "\n", j->name, json_number(o, "attempt"));
            pthread_mutex_unlock(&j->f->lock);
        }
    } else if (str_eqz(event, "end")) {
        print_lines(j, true);
        snprintf(j->status, sizeof(j->status), "%s", json_text(o, "status"));
        go_on = false;
    }
    json_decref(o);
    return go_on;
}

static void *follower_main(void *ctx)
{
    struct follower *j = ctx;
    struct follow *f = j->f;
    struct buf why = BUF_INIT;
    char path[64];
    snprintf(path, sizeof(path), "/jobs/%" PRIu64 "/log/follow", j->job_id);
    char *url = client_url(f->cl, path);
    while (!f->stop && j->status[0] == 0) {
        http_events(url, f->cl->token, j->last_id[0] != 0 ? j->last_id : NULL, on_log_event, j,
                    &f->stop, &why);
        if (!f->stop && j->status[0] == 0) {
            os_sleep_ms(RECONNECT_MS);
        }
    }
    print_lines(j, true);
    pthread_mutex_lock(&f->lock);
    if (j->detail != NULL && j->status[0] != 0) {
        print_job_end(f, j->name, j->status, j->detail);
    }
    j->done = true;
    f->live--;
    pthread_mutex_unlock(&f->lock);
    free(url);
    buf_release(&why);
    return NULL;
}

/* The one whose job has not ended yet, as far as events tell. Under the lock. */
static struct follower *find_follower(struct follow *f, uint64_t job_id)
{
    for (struct follower *j = f->jobs; j != NULL; j = j->next) {
        if (j->job_id == job_id && j->detail == NULL) {
            return j;
        }
    }
    return NULL;
}

static void start_follower(struct follow *f, uint64_t job_id, const char *name)
{
    struct follower *j = xcalloc(1, sizeof(*j));
    j->f = f;
    j->job_id = job_id;
    j->name = xstrdup(name);
    j->color = 31 + (unsigned)(job_id % 6);
    if (pthread_create(&j->thread, NULL, follower_main, j) != 0) {
        free(j->name); /* too many threads: this job's log is not shown */
        free(j);
        return;
    }
    j->next = f->jobs;
    f->jobs = j;
    f->live++;
}

static void on_job_event(struct follow *f, const json_t *o, const char *name)
{
    const char *to = json_text(o, "to");
    uint64_t job_id = json_number(o, "job_id");
    bool terminal = strcmp(to, "success") == 0 || strcmp(to, "failed") == 0 ||
                    strcmp(to, "canceled") == 0 || strcmp(to, "skipped") == 0;
    struct follower *j = find_follower(f, job_id);
    bool has_log = json_number(o, "worker_id") != 0; /* a trigger job has none */
    if (strcmp(to, "running") == 0 && j == NULL && has_log && !f->o.quiet) {
        start_follower(f, job_id, name);
    } else if (terminal && j != NULL) {
        j->detail = xstrdup(json_text(o, "detail"));
        if (j->done) { /* else the end of its log comes first */
            print_job_end(f, j->name, to, j->detail);
        }
    } else if (terminal || strcmp(to, "manual") == 0 || strcmp(to, "scheduled") == 0) {
        print_job_end(f, name, to, json_text(o, "detail"));
    } else if (!f->c->json && strcmp(json_text(o, "from"), "running") == 0 &&
               strcmp(to, "pending") == 0) {
        printf("%s: %s, runs again\n", name, json_text(o, "detail"));
    }
}

/* "deploy/build": a job's name with those of the trigger jobs above it. Heap. */
static char *full_name(const struct stream *s, const char *name)
{
    struct buf text = BUF_INIT;
    buf_addf(&text, "%s%s", s->prefix, name);
    return buf_take(&text);
}

static bool start_stream(struct follow *f, uint64_t pipeline_id, const char *prefix);

/* A trigger job has made its pipeline. Under the lock. */
static void on_child_event(struct follow *f, const json_t *o, const char *name)
{
    struct buf prefix = BUF_INIT;
    uint64_t id = 0;
    if (str_to_u64(str_from(json_text(o, "detail")), &id) < 0) {
        return;
    }
    for (const struct stream *s = f->streams; s != NULL; s = s->next) {
        if (s->pipeline_id == id) { /* told again after a reconnection */
            return;
        }
    }
    if (!f->c->json) {
        printf("%s: pipeline %" PRIu64 "\n", name, id);
        fflush(stdout);
    }
    buf_addf(&prefix, "%s/", name);
    start_stream(f, id, buf_cstr(&prefix));
    buf_release(&prefix);
}

static bool on_event(void *ctx, struct str id, struct str event, struct str data)
{
    struct stream *s = ctx;
    struct follow *f = s->f;
    json_t *o = json_loadb(data.p, data.n, 0, NULL);
    char *name = full_name(s, json_text(o, "name"));
    pthread_mutex_lock(&f->lock);
    if (id.n > 0) {
        snprintf(s->last_id, sizeof(s->last_id), STR_FMT, STR_ARG(id));
    }
    if (str_eqz(event, "job")) {
        on_job_event(f, o, name);
    } else if (str_eqz(event, "child")) {
        on_child_event(f, o, name);
    } else if (str_eqz(event, "pipeline") && json_text(o, "to")[0] != 0) {
        snprintf(s->status, sizeof(s->status), "%s", json_text(o, "to"));
    } else if (str_eqz(event, "end")) {
        s->ended = true;
    }
    bool go_on = !s->ended && !f->stop;
    pthread_mutex_unlock(&f->lock);
    free(name);
    json_decref(o);
    return go_on;
}

/* An answer that another try will not change. */
static bool is_final(int r)
{
    return r == -E_NOT_FOUND || r == -E_GONE || r == -E_UNAUTHORIZED || r == -E_FORBIDDEN;
}

static void *events_main(void *ctx)
{
    struct stream *s = ctx;
    struct follow *f = s->f;
    struct buf why = BUF_INIT;
    char path[64];
    snprintf(path, sizeof(path), "/pipelines/%" PRIu64 "/events", s->pipeline_id);
    char *url = client_url(f->cl, path);
    bool said = s->prefix[0] != 0; /* one stream tells of a lost broker */
    while (!f->stop && !s->ended && f->error == 0) {
        char last[32];
        snprintf(last, sizeof(last), "%s", s->last_id);
        buf_clear(&why);
        int r = http_events(url, f->cl->token, last[0] != 0 ? last : NULL, on_event, s, &f->stop,
                            &why);
        if (f->stop || s->ended) {
            break;
        }
        if (is_final(r)) {
            pthread_mutex_lock(&f->lock);
            f->error = cli_fail(f->c, r, "%s", buf_cstr(&why));
            pthread_mutex_unlock(&f->lock);
        } else {
            if (r < 0 && !said) {
                cli_fail(f->c, r, "lost the broker at %s: %s; trying until it is back", f->cl->url,
                         buf_cstr(&why));
            }
            said = r < 0 || s->prefix[0] != 0;
            os_sleep_ms(RECONNECT_MS);
        }
    }
    free(url);
    buf_release(&why);
    return NULL;
}

/* Under the lock. */
static bool start_stream(struct follow *f, uint64_t pipeline_id, const char *prefix)
{
    struct stream *s = xcalloc(1, sizeof(*s));
    s->f = f;
    s->pipeline_id = pipeline_id;
    s->prefix = xstrdup(prefix);
    if (pthread_create(&s->thread, NULL, events_main, s) != 0) {
        free(s->prefix);
        free(s);
        return false;
    }
    s->next = f->streams;
    f->streams = s;
    return true;
}

static bool finished(struct follow *f)
{
    pthread_mutex_lock(&f->lock);
    bool done = f->live == 0;
    for (const struct stream *s = f->streams; s != NULL; s = s->next) {
        done = done && s->ended;
    }
    done = done || f->error < 0;
    pthread_mutex_unlock(&f->lock);
    return done;
}

/* --- pipelines that wait for somebody --- */

static bool is_blocked(struct follow *f, uint64_t pipeline_id);

/* A job that will not go on by itself, as long as nobody starts the manual ones. */
static bool stands_still(struct follow *f, const json_t *job)
{
    static const char *const still[] = {"created", "manual",   "success",
                                        "failed",  "canceled", "skipped"};
    const char *status = json_text(job, "status");
    uint64_t child = json_number(job, "child_pipeline_id");
    for (size_t i = 0; i < ARRAY_LEN(still); i++) {
        if (strcmp(status, still[i]) == 0) {
            return true;
        }
    }
    return strcmp(status, "running") == 0 && child != 0 && is_blocked(f, child);
}

/* Nothing of it will move before a manual job is started, there or in a child. */
static bool is_blocked(struct follow *f, uint64_t pipeline_id)
{
    char path[64];
    json_t *p = NULL;
    size_t i;
    json_t *job;
    snprintf(path, sizeof(path), "/pipelines/%" PRIu64, pipeline_id);
    if (client_call(f->c, f->cl, "GET", path, NULL, NULL, &p) < 0) {
        return false;
    }
    const char *status = json_text(p, "status");
    bool blocked = strcmp(status, "manual") == 0 || strcmp(status, "running") == 0;
    json_array_foreach(json_object_get(p, "jobs"), i, job)
    {
        blocked = blocked && stands_still(f, job);
    }
    json_decref(p);
    return blocked;
}

/* The pipelines that have not ended, heap; 0: some job's log still comes, or none says that it
 * waits for somebody. */
static size_t waiting_streams(struct follow *f, uint64_t **ret)
{
    bool manual = false;
    size_t n = 0;
    pthread_mutex_lock(&f->lock);
    for (const struct stream *s = f->streams; s != NULL; s = s->next) {
        manual = manual || (!s->ended && strcmp(s->status, "manual") == 0);
        n += !s->ended;
    }
    n = manual && f->live == 0 ? n : 0;
    *ret = xcalloc(n + 1, sizeof(**ret));
    size_t k = 0;
    for (const struct stream *s = f->streams; s != NULL && k < n; s = s->next) {
        if (!s->ended) {
            (*ret)[k++] = s->pipeline_id;
        }
    }
    pthread_mutex_unlock(&f->lock);
    return n;
}

/* Asked once a second at most. */
static bool all_blocked(struct follow *f, uint64_t *next_ms)
{
    uint64_t now_ms = os_monotonic_ms();
    uint64_t *ids;
    if (now_ms < *next_ms) {
        return false;
    }
    *next_ms = now_ms + BLOCKED_MS;
    size_t n = waiting_streams(f, &ids);
    bool blocked = n > 0;
    for (size_t i = 0; i < n && blocked; i++) {
        blocked = is_blocked(f, ids[i]);
    }
    free(ids);
    return blocked;
}

static void follow_release(struct follow *f)
{
    f->stop = true;
    for (;;) {
        pthread_mutex_lock(&f->lock);
        struct stream *s = f->streams; /* those that still run may add others */
        if (s != NULL) {
            LL_DELETE(f->streams, s);
        }
        pthread_mutex_unlock(&f->lock);
        if (s == NULL) {
            break;
        }
        pthread_join(s->thread, NULL);
        free(s->prefix);
        free(s);
    }
    while (f->jobs != NULL) {
        struct follower *j = f->jobs;
        f->jobs = j->next;
        pthread_join(j->thread, NULL);
        buf_release(&j->line);
        free(j->detail);
        free(j->name);
        free(j);
    }
    pthread_mutex_destroy(&f->lock);
}

int follow_pipeline(struct cli *c, const struct client *cl, uint64_t pipeline_id,
                    const struct follow_options *o, char *ret_status, size_t n)
{
    struct follow f = {.c = c, .cl = cl, .o = *o};
    uint64_t next_ms = 0;
    int r = 0;
    pthread_mutex_init(&f.lock, NULL);
    pthread_mutex_lock(&f.lock);
    bool started = start_stream(&f, pipeline_id, "");
    struct stream *own = f.streams;
    pthread_mutex_unlock(&f.lock);
    if (!started) {
        pthread_mutex_destroy(&f.lock);
        return cli_fail(c, -E_INTERNAL, "cannot start a thread");
    }
    while (!finished(&f) && !all_blocked(&f, &next_ms)) {
        if (o->tick != NULL && !o->tick(o->ctx)) {
            r = -E_CANCELED;
            break;
        }
        os_sleep_ms(TICK_MS);
    }
    pthread_mutex_lock(&f.lock);
    snprintf(ret_status, n, "%s", own->status);
    pthread_mutex_unlock(&f.lock);
    follow_release(&f);
    return r < 0 ? r : f.error;
}

int follow_exit_code(const struct cli *c, const char *status)
{
    if (strcmp(status, "manual") == 0 || strcmp(status, "running") == 0) {
        fprintf(stderr, "davit %s: waits for a manual job to be started\n", c->command);
        return 0;
    }
    return strcmp(status, "success") == 0 ? 0 : EXIT_JOB_FAILED;
}

struct raw_log {
    bool silent; /* only wait for the end */
    char last_id[64];
    char status[32]; /* how it ended */
    bool ended;
    bool broken;
};

static bool on_raw_event(void *ctx, struct str id, struct str event, struct str data)
{
    struct raw_log *l = ctx;
    if (str_eqz(event, "log")) {
        struct buf bytes = BUF_INIT;
        json_t *o = json_loadb(data.p, data.n, 0, NULL);
        crypto_from_base64(str_from(json_text(o, "bytes")), &bytes);
        l->broken = !l->silent &&
                    (fwrite(bytes.p, 1, bytes.n, stdout) != bytes.n || fflush(stdout) != 0);
        snprintf(l->last_id, sizeof(l->last_id), STR_FMT, STR_ARG(id));
        json_decref(o);
        buf_release(&bytes);
    } else if (str_eqz(event, "end")) {
        json_t *o = json_loadb(data.p, data.n, 0, NULL);
        snprintf(l->status, sizeof(l->status), "%s", json_text(o, "status"));
        json_decref(o);
        l->ended = true;
    }
    return !l->ended && !l->broken;
}

static int follow_raw(struct cli *c, const struct client *cl, uint64_t job_id, uint64_t attempt,
                      struct raw_log *l)
{
    struct buf why = BUF_INIT;
    volatile bool never = false;
    char path[96];
    int r = 0;
    snprintf(path, sizeof(path), "/jobs/%" PRIu64 "/log/follow", job_id);
    if (attempt != 0) {
        snprintf(path, sizeof(path), "/jobs/%" PRIu64 "/log/follow?attempt=%" PRIu64, job_id,
                 attempt);
    }
    char *url = client_url(cl, path);
    while (!l->ended && !l->broken) {
        buf_clear(&why);
        r = http_events(url, cl->token, l->last_id[0] != 0 ? l->last_id : NULL, on_raw_event, l,
                        &never, &why);
        if (!l->ended && !l->broken && r < 0) {
            cli_fail(c, r, "%s; trying again", buf_cstr(&why));
            if (is_final(r)) {
                break;
            }
            os_sleep_ms(RECONNECT_MS);
        }
    }
    free(url);
    buf_release(&why);
    return l->ended ? 0 : r;
}

int follow_log(struct cli *c, const struct client *cl, uint64_t job_id, uint64_t attempt)
{
    struct raw_log l = {.silent = c->json};
    return follow_raw(c, cl, job_id, attempt, &l);
}

int follow_job(struct cli *c, const struct client *cl, uint64_t job_id, bool quiet,
               char *ret_status, size_t n)
{
    struct raw_log l = {.silent = quiet || c->json};
    int r = follow_raw(c, cl, job_id, 0, &l);
    snprintf(ret_status, n, "%s", l.status);
    return r;
}
