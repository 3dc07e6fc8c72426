#include "common/base.h"

#include "broker/core/apply.h"

static struct effect effect_of(const Pb__AssignmentRecord *a, enum effect_kind kind)
{
    return (struct effect){.kind = kind,
                           .worker_id = a->worker_id,
                           .job_id = a->job_id,
                           .attempt = a->attempt,
                           .epoch = a->epoch};
}

static void recover_job(struct tx *tx, const Pb__AssignmentRecord *a, struct effects *fx)
{
    const Pb__JobRecord *job = job_get(tx, a->job_id);
    struct effect cancel = effect_of(a, EFFECT_CANCEL);

    if (!a->acked) {
        effect_add(fx, effect_of(a, EFFECT_ASSIGN));
    }
    if (job != NULL && job->state == JOB_CANCELING) {
        cancel.cancel_kind = job->cancel_forced ? PB__CANCEL_KIND__CANCEL_FORCE
                                                : PB__CANCEL_KIND__CANCEL_GRACEFUL;
        effect_add(fx, cancel);
    }
}

void core_recover_worker(struct tx *tx, uint64_t worker_id, struct effects *fx)
{
    const struct key prefix = key_u64(worker_id);
    struct cursor cur;

    for (tx_seek(&cur, tx, T_WORKER_JOB, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        const Pb__AssignmentRecord *a = assignment_get(tx, key_read_u64(cur.key, sizeof(uint64_t)));
        if (a != NULL) {
            recover_job(tx, a, fx);
        }
    }
}

void core_recover(struct tx *tx, core_holder_fn fn, void *ctx)
{
    struct cursor cur;

    for (tx_seek(&cur, tx, T_ASSIGNMENT, STR_NULL, NULL); cur.valid; tx_next(&cur)) {
        const Pb__AssignmentRecord *a = assignment_get(tx, key_read_u64(cur.key, 0));
        if (a != NULL) {
            fn(ctx, a);
        }
    }
}

void core_recover_triggers(struct tx *tx, struct effects *fx)
{
    struct cursor cur;

    for (tx_seek(&cur, tx, T_TRIGGER, STR_NULL, NULL); cur.valid; tx_next(&cur)) {
        const Pb__JobRecord *job = job_get(tx, key_read_u64(cur.key, 0));
        if (job != NULL) {
            effect_add(fx, (struct effect){.kind = EFFECT_TRIGGER,
                                           .job_id = job->id,
                                           .attempt = job->attempt,
                                           .epoch = job->epoch});
        }
    }
}
