#include "common/base.h"

#include <stdlib.h>
#include <utlist.h>

#include "broker/net/state.h"

/* Who is told when a job ends. Soft: a client asks again in its next session. */

static void drop(struct fleet *f, struct watch *w)
{
    struct watch *first;

    HASH_FIND(hh, f->watches, &w->job_id, sizeof(w->job_id), first);
    check(first != NULL);
    if (first == w) {
        HASH_DELETE(hh, f->watches, first);
        if (w->next_same != NULL) {
            HASH_ADD(hh, f->watches, job_id, sizeof(w->job_id), w->next_same);
        }
    } else {
        LL_DELETE2(first, w, next_same);
    }
    DL_DELETE(w->client->watches, w);
    w->client->watch_count--;
    f->watch_count--;
    free(w);
}

static bool watches(const struct watch *first, const struct client *c)
{
    while (first != NULL && first->client != c) {
        first = first->next_same;
    }
    return first != NULL;
}

bool watch_has_room(const struct fleet *f, const struct client *c, size_t count)
{
    return c->watch_count + count <= LIMIT_CLIENT_WATCHED &&
           f->watch_count + count <= LIMIT_WATCHED;
}

void watch_add(struct fleet *f, struct client *c, uint64_t job_id)
{
    struct watch *first;

    HASH_FIND(hh, f->watches, &job_id, sizeof(job_id), first);
    if (watches(first, c)) {
        return;
    }
    struct watch *w = xcalloc(1, sizeof(*w));
    w->job_id = job_id;
    w->client = c;
    if (first == NULL) {
        HASH_ADD(hh, f->watches, job_id, sizeof(w->job_id), w);
    } else {
        w->next_same = first->next_same;
        first->next_same = w;
    }
    DL_APPEND(c->watches, w);
    c->watch_count++;
    f->watch_count++;
}

void watch_drop_all(struct fleet *f, struct client *c)
{
    while (c->watches != NULL) {
        drop(f, c->watches);
    }
}

void watch_ended(struct fleet *f, const struct effect *e)
{
    Pb__ClientJob job = PB__CLIENT_JOB__INIT;
    struct watch *w;

    HASH_FIND(hh, f->watches, &e->job_id, sizeof(e->job_id), w);
    if (w == NULL) {
        return;
    }
    job.job_id = e->job_id;
    job.state = e->state;
    job.reason = e->reason;
    job.exit_code = e->exit_code;
    job.attempt = e->attempt;
    while (w != NULL) {
        struct watch *next = w->next_same;
        struct session *s = w->client->session;
        drop(f, w);
        send_job_ended(f, s, &job);
        w = next;
    }
}
