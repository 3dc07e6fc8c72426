#include "common/base.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/follow.h"
#include "common/crypto.h"
#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"

#define RECONNECT_MS 500u
#define TICK_MS      50u
#define LIMIT_LINE   (64u * KIB) /* a longer line is printed in pieces */

struct follower;

struct follow {
    struct cli *c;
    const struct client *cl;
    struct follow_options o;
    pthread_mutex_t lock; /* guards all below, and standard output */
    struct follower *jobs;
    size_t live;
    volatile bool stop;
    bool ended;
    int error; /* why following is no use any more */
    char status[32];
    char last_id[32];
    uint64_t pipeline_id;
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

static void on_job_event(struct follow *f, const json_t *o)
{
    const char *to = json_text(o, "to");
    uint64_t job_id = json_number(o, "job_id");
    bool terminal = strcmp(to, "success") == 0 || strcmp(to, "failed") == 0 ||
                    strcmp(to, "canceled") == 0 || strcmp(to, "skipped") == 0;
    struct follower *j = find_follower(f, job_id);
    if (strcmp(to, "running") == 0 && j == NULL && !f->o.quiet) {
        start_follower(f, job_id, json_text(o, "name"));
    } else if (terminal && j != NULL) {
        j->detail = xstrdup(json_text(o, "detail"));
        if (j->done) { /* else the end of its log comes first */
            print_job_end(f, j->name, to, j->detail);
        }
    } else if (terminal || strcmp(to, "manual") == 0 || strcmp(to, "scheduled") == 0) {
        print_job_end(f, json_text(o, "name"), to, json_text(o, "detail"));
    } else if (!f->c->json && strcmp(json_text(o, "from"), "running") == 0 &&
               strcmp(to, "pending") == 0) {
        printf("%s: %s, runs again\n", json_text(o, "name"), json_text(o, "detail"));
    }
}

static bool on_event(void *ctx, struct str id, struct str event, struct str data)
{
    struct follow *f = ctx;
    json_t *o = json_loadb(data.p, data.n, 0, NULL);
    pthread_mutex_lock(&f->lock);
    if (id.n > 0) {
        snprintf(f->last_id, sizeof(f->last_id), STR_FMT, STR_ARG(id));
    }
    if (str_eqz(event, "job")) {
        on_job_event(f, o);
    } else if (str_eqz(event, "pipeline") && json_text(o, "to")[0] != 0) {
        snprintf(f->status, sizeof(f->status), "%s", json_text(o, "to"));
    } else if (str_eqz(event, "end")) {
        f->ended = true;
    }
    bool go_on = !f->ended && !f->stop;
    pthread_mutex_unlock(&f->lock);
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
    struct follow *f = ctx;
    struct buf why = BUF_INIT;
    char path[64];
    snprintf(path, sizeof(path), "/pipelines/%" PRIu64 "/events", f->pipeline_id);
    char *url = client_url(f->cl, path);
    bool said = false;
    while (!f->stop && !f->ended && f->error == 0) {
        char last[32];
        snprintf(last, sizeof(last), "%s", f->last_id);
        buf_clear(&why);
        int r = http_events(url, f->cl->token, last[0] != 0 ? last : NULL, on_event, f, &f->stop,
                            &why);
        if (f->stop || f->ended) {
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
            said = r < 0;
            os_sleep_ms(RECONNECT_MS);
        }
    }
    free(url);
    buf_release(&why);
    return NULL;
}

static bool finished(struct follow *f)
{
    pthread_mutex_lock(&f->lock);
    bool done = f->error < 0 || (f->ended && f->live == 0);
    pthread_mutex_unlock(&f->lock);
    return done;
}

int follow_pipeline(struct cli *c, const struct client *cl, uint64_t pipeline_id,
                    const struct follow_options *o, char *ret_status, size_t n)
{
    struct follow f = {.c = c, .cl = cl, .o = *o, .pipeline_id = pipeline_id};
    pthread_t events;
    int r = 0;
    pthread_mutex_init(&f.lock, NULL);
    if (pthread_create(&events, NULL, events_main, &f) != 0) {
        return cli_fail(c, -E_INTERNAL, "cannot start a thread");
    }
    while (!finished(&f)) {
        if (o->tick != NULL && !o->tick(o->ctx)) {
            r = -E_CANCELED;
            break;
        }
        os_sleep_ms(TICK_MS);
    }
    f.stop = true;
    pthread_join(events, NULL);
    while (f.jobs != NULL) {
        struct follower *j = f.jobs;
        f.jobs = j->next;
        pthread_join(j->thread, NULL);
        buf_release(&j->line);
        free(j->detail);
        free(j->name);
        free(j);
    }
    pthread_mutex_destroy(&f.lock);
    snprintf(ret_status, n, "%s", f.status);
    return r < 0 ? r : f.error;
}

struct raw_log {
    bool silent; /* only wait for the end */
    char last_id[64];
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
        l->ended = true;
    }
    return !l->ended && !l->broken;
}

int follow_log(struct cli *c, const struct client *cl, uint64_t job_id, uint64_t attempt)
{
    struct raw_log l = {.silent = c->json};
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
    while (!l.ended && !l.broken) {
        buf_clear(&why);
        r = http_events(url, cl->token, l.last_id[0] != 0 ? l.last_id : NULL, on_raw_event, &l,
                        &never, &why);
        if (!l.ended && !l.broken && r < 0) {
            cli_fail(c, r, "%s; trying again", buf_cstr(&why));
            if (is_final(r)) {
                break;
            }
            os_sleep_ms(RECONNECT_MS);
        }
    }
    free(url);
    buf_release(&why);
    return l.ended ? 0 : r;
}
