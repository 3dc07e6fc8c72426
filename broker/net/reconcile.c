#include "common/base.h"

#include <stdlib.h>

#include "broker/core/query.h"
#include "broker/net/state.h"
#include "common/log.h"

/* docs/protocol.md, "Reconciliation": what the worker says it holds against what the store says. */

size_t worker_assignments(struct tx *tx, uint64_t worker_id, const Pb__AssignmentRecord ***ret)
{
    uint32_t expected = worker_job_count(tx, worker_id);
    const Pb__AssignmentRecord **list = arena_array(tx_arena(tx), expected + 1u, sizeof(*list));
    struct key prefix = key_u64(worker_id);
    struct cursor c;
    size_t count = 0;

    for (tx_seek(&c, tx, T_WORKER_JOB, key_str(&prefix), NULL); c.valid && count < expected;
         tx_next(&c)) {
        const Pb__AssignmentRecord *a = assignment_get(tx, key_read_u64(c.key, 8));
        if (a != NULL) {
            list[count++] = a;
        }
    }
    cursor_end(&c);
    *ret = list;
    return count;
}

const Pb__AssignmentRecord *holder_check(struct tx *tx, uint64_t worker_id, const Pb__JobKey *key)
{
    const Pb__AssignmentRecord *a = key != NULL ? assignment_get(tx, key->job_id) : NULL;

    if (a == NULL || a->worker_id != worker_id || a->attempt != key->attempt ||
        a->epoch != key->epoch) {
        return NULL;
    }
    return a;
}

/* The last session may have ended before these messages were read. */
static void catch_up(struct fleet *f, const struct peer *p, const Pb__AssignmentRecord *a,
                     Pb__HeldState held)
{
    if (!a->acked) {
        command_job(f, p, a, PB__COMMAND__BODY_ASSIGN_ACKED);
    }
    const Pb__JobRecord *job = job_get(f->turn.tx, a->job_id);
    if (held == PB__HELD_STATE__HELD_RUNNING && job != NULL && job->state == JOB_ASSIGNED) {
        command_job(f, p, a, PB__COMMAND__BODY_JOB_STARTED);
    }
}

static void check_held(struct fleet *f, struct session *s, const Pb__HeldJob *held,
                       bool new_session)
{
    const struct peer *p = s->peer;
    const Pb__AssignmentRecord *a = holder_check(f->turn.tx, p->worker_id, held->key);

    if (a == NULL) {
        if (held->state == PB__HELD_STATE__HELD_FINISHED) {
            send_finish_ack(f, s, held->key, true);
        } else {
            send_cancel(f, s, held->key, PB__CANCEL_KIND__CANCEL_FENCED);
        }
        return;
    }
    if (a->waiting) {
        command_job(f, p, a, PB__COMMAND__BODY_WORKER_RECLAIMED);
    }
    if (new_session) {
        catch_up(f, p, a, held->state);
    }
}

static int by_job(const void *a, const void *b)
{
    const Pb__HeldJob *x = *(Pb__HeldJob *const *)a;
    const Pb__HeldJob *y = *(Pb__HeldJob *const *)b;

    return x->key->job_id < y->key->job_id ? -1 : x->key->job_id > y->key->job_id;
}

/* Both lists are sorted by job. A job that the worker had acknowledged and no longer has is lost,
 * also if it was waited for;
 * one it never acknowledged is on its way, or is sent again in a new session. */
static void check_assigned(struct fleet *f, struct session *s, Pb__HeldJob *const *held,
                           size_t count)
{
    const Pb__AssignmentRecord **list;
    size_t n = worker_assignments(f->turn.tx, s->peer->worker_id, &list);
    size_t h = 0;

    for (size_t i = 0; i < n; i++) {
        const Pb__AssignmentRecord *a = list[i];
        while (h < count && held[h]->key->job_id < a->job_id) {
            h++;
        }
        if ((h == count || held[h]->key->job_id != a->job_id) && a->acked) {
            log_warn("net: %s has lost job %" PRIu64, s->peer->actor, a->job_id);
            command_lost(f, s->peer, a, true);
        }
    }
}

void reconcile(struct fleet *f, struct session *s, Pb__HeldJob *const *jobs, size_t count,
               bool new_session)
{
    Pb__HeldJob **sorted = arena_array(&f->arena, count + 1, sizeof(*sorted));

    for (size_t i = 0; i < count; i++) {
        if (jobs[i]->key == NULL) {
            session_violation(f, s, "a held job without a key");
            return;
        }
        sorted[i] = jobs[i];
    }
    qsort(sorted, count, sizeof(*sorted), by_job);
    check_assigned(f, s, sorted, count);
    for (size_t i = 0; i < count && tx_ok(f->turn.tx) && !s->ended; i++) {
        check_held(f, s, sorted[i], new_session);
    }
}
