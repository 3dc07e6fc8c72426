#include "common/base.h"

#include <stdlib.h>
#include <utlist.h>

#include "client/state.h"
#include "common/os.h"

/* Jobs whose end somebody waits for. The broker knows of them as long as a session lives; in the
 * next one it is asked again, and what is not there any more has ended unseen. */

#define ASK_PAUSE_MS 1000u

static void unlist(struct davit *d, struct job *job)
{
    if (job->list == JOB_UNASKED) {
        DL_DELETE(d->unasked, job);
    } else if (job->list == JOB_ENDED) {
        DL_DELETE(d->ended, job);
    }
    job->list = JOB_LOOSE;
}

struct job *watch_job(struct davit *d, uint64_t id, bool asked)
{
    struct job *job;

    HASH_FIND(hh, d->jobs, &id, sizeof(id), job);
    if (job == NULL) {
        job = xcalloc(1, sizeof(*job));
        job->result.id = id;
        HASH_ADD(hh, d->jobs, result.id, sizeof(id), job);
        if (!asked) {
            DL_APPEND(d->unasked, job);
            job->list = JOB_UNASKED;
        }
    }
    return job;
}

void watch_forget(struct davit *d, struct job *job)
{
    unlist(d, job);
    HASH_DELETE(hh, d->jobs, job);
    free(job);
}

void watch_result(const Pb__ClientJob *said, struct davit_result *ret)
{
    bool known = said->state <= JOB_SKIPPED;

    ret->id = said->job_id;
    ret->state = known ? (enum davit_state)(said->state + 1) : DAVIT_GONE;
    ret->reason = (int)said->reason;
    ret->exit_code = said->exit_code;
    ret->attempt = said->attempt;
}

static void end(struct davit *d, struct job *job)
{
    unlist(d, job);
    job->ended = true;
    if (job->waiters == 0) {
        DL_APPEND(d->ended, job);
        job->list = JOB_ENDED;
    }
    pthread_cond_broadcast(&d->news);
}

void watch_ended(struct davit *d, const Pb__ClientJob *said)
{
    struct job *job;

    HASH_FIND(hh, d->jobs, &said->job_id, sizeof(said->job_id), job);
    if (job == NULL || job->ended) {
        return;
    }
    watch_result(said, &job->result);
    if (!davit_has_ended(job->result.state)) {
        job->result.state = DAVIT_GONE; /* its rows are */
    }
    end(d, job);
    d->ask_due_ms = 0; /* there is room for another */
    watch_ask(d);
}

void watch_claim(struct davit *d, struct job *job)
{
    if (job->list == JOB_ENDED) {
        unlist(d, job);
    }
    job->waiters++;
}

void watch_release(struct davit *d, struct job *job, bool taken)
{
    check(job->waiters > 0);
    job->waiters--;
    if (job->waiters > 0 || !(job->ended || job->refused)) {
        return;
    }
    if (taken || job->refused) {
        watch_forget(d, job);
    } else {
        DL_APPEND(d->ended, job);
        job->list = JOB_ENDED;
    }
}

void watch_ask(struct davit *d)
{
    Pb__ClientQuery query = PB__CLIENT_QUERY__INIT;

    if (!d->open || d->ask.count > 0 || d->ask_due_ms != 0 || d->unasked == NULL) {
        return;
    }
    while (d->unasked != NULL && d->ask.count < d->ask_max) {
        struct job *job = d->unasked;
        d->ask_ids[d->ask.count++] = job->result.id;
        unlist(d, job);
    }
    query.request = d->ask.number = ++d->next_request;
    query.job_ids = d->ask_ids;
    query.n_job_ids = d->ask.count;
    query.notify = true;
    buf_clear(&d->ask.content);
    PB_PACK(&query, &d->ask.content);
    d->ask.kind = PB__ENVELOPE__BODY_CLIENT_QUERY;
    session_send(d, d->ask.kind, buf_str(&d->ask.content));
}

/* Nobody will be told of its end: those who wait for it are told that. */
static void refuse(struct davit *d, struct job *job)
{
    job->refused = true;
    d->refusals++;
    pthread_cond_broadcast(&d->news);
    if (job->waiters == 0) {
        watch_forget(d, job);
    }
}

/* `said` NULL: there is no such job. */
static void learn(struct davit *d, uint64_t id, const Pb__ClientJob *said)
{
    struct davit_result result = {.id = id, .state = DAVIT_GONE};
    struct job *job;

    HASH_FIND(hh, d->jobs, &id, sizeof(id), job);
    if (job == NULL || job->ended) {
        return;
    }
    if (said != NULL) {
        watch_result(said, &result);
    }
    if (davit_has_ended(result.state)) {
        job->result = result;
        end(d, job);
    } else if (said->unwatched) {
        refuse(d, job);
    }
}

/* The answer keeps the order of the question, with gaps. */
void watch_answered(struct davit *d, const Pb__ClientAnswer *m)
{
    size_t count = d->ask.count;
    size_t at = 0;

    d->ask.count = 0;
    d->ask_max = MIN(2 * d->ask_max, ARRAY_LEN(d->ask_ids));
    for (size_t i = 0; i < count; i++) {
        bool there = at < m->n_jobs && m->jobs[at]->job_id == d->ask_ids[i];
        learn(d, d->ask_ids[i], there ? m->jobs[at++] : NULL);
    }
    watch_ask(d);
}

/* The broker has no room for so many: fewer are asked for, and once there is none for a single one,
 * the next is asked for after a pause, or when another has ended. */
void watch_put_off(struct davit *d)
{
    size_t count = d->ask.count;

    d->ask.count = 0;
    for (size_t i = count; i-- > 0;) {
        struct job *job;
        HASH_FIND(hh, d->jobs, &d->ask_ids[i], sizeof(d->ask_ids[i]), job);
        if (job != NULL && !job->ended && job->list == JOB_LOOSE) {
            DL_PREPEND(d->unasked, job);
            job->list = JOB_UNASKED;
        }
    }
    d->ask_max = MAX(count / 2, 1u);
    d->ask_due_ms = count == 1 ? os_monotonic_ms() + ASK_PAUSE_MS : 0;
    watch_ask(d);
}

void watch_time(struct davit *d, uint64_t now_ms)
{
    if (d->ask_due_ms != 0 && d->ask_due_ms <= now_ms) {
        d->ask_due_ms = 0;
        watch_ask(d);
    }
}

void watch_session_ended(struct davit *d)
{
    struct job *job;
    struct job *tmp;

    d->ask.count = 0;
    d->ask_max = ARRAY_LEN(d->ask_ids);
    d->ask_due_ms = 0;
    HASH_ITER (hh, d->jobs, job, tmp) {
        if (!job->ended && !job->refused && job->list == JOB_LOOSE) {
            DL_APPEND(d->unasked, job);
            job->list = JOB_UNASKED;
        }
    }
}
