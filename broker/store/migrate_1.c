/* Schema 1 to 2: a class counts the jobs that name it, and those that have not ended; one that no
 * job names stands in class_idle. Schema 1 had neither counts nor that table. */
#include "common/base.h"

#include "broker/store/migrate.h"

enum phase { RESET, COUNT, IDLE };

/* The states of jobs in schema 1 from which there was no way out. */
static bool had_ended(uint32_t state)
{
    enum { SUCCESS = 8, FAILED = 9, CANCELED = 10, SKIPPED = 11 };

    return state == SUCCESS || state == FAILED || state == CANCELED || state == SKIPPED;
}

static Pb__ClassRecord *class_at(struct migration *m, const struct key *k)
{
    return (Pb__ClassRecord *)tx_get_msg(m->tx, T_CLASS, k, &pb__class_record__descriptor);
}

static void reset(struct migration *m, const struct key *k)
{
    Pb__ClassRecord *class = class_at(m, k);

    if (class != NULL) {
        class->jobs = class->unfinished = class->idle_ms = 0;
        tx_put_msg(m->tx, T_CLASS, k, &class->base);
    }
}

static void count(struct migration *m, const struct key *k)
{
    const Pb__JobRecord *job = (const Pb__JobRecord *)tx_get_msg(m->tx, T_JOB, k,
                                                                 &pb__job_record__descriptor);
    const struct key of_class = key_u64(job != NULL ? job->class_id : 0);
    Pb__ClassRecord *class = job != NULL && job->class_id != 0 ? class_at(m, &of_class) : NULL;

    if (class != NULL) {
        class->jobs++;
        class->unfinished += !had_ended((uint32_t)job->state);
        tx_put_msg(m->tx, T_CLASS, &of_class, &class->base);
    }
}

/* It goes an hour after the newest command, as if its last job had gone with that. */
static void note_idle(struct migration *m, const struct key *k)
{
    Pb__ClassRecord *class = class_at(m, k);
    struct key idle;

    if (class == NULL || class->jobs > 0) {
        return;
    }
    class->idle_ms = MAX(m->now_ms, 1u);
    idle = key_u64_u64(class->idle_ms, class->id);
    tx_put(m->tx, T_CLASS_IDLE, &idle, STR_NULL);
    tx_put_msg(m->tx, T_CLASS, k, &class->base);
}

bool migrate_1(struct migration *m)
{
    static const struct {
        enum table table;
        void (*each)(struct migration *m, const struct key *k);
    } phases[] = {
        [RESET] = {T_CLASS, reset}, [COUNT] = {T_JOB, count}, [IDLE] = {T_CLASS, note_idle}};
    struct key *keys;
    size_t n;

    if (m->phase >= ARRAY_LEN(phases)) {
        tx_fail(m->tx, -E_CORRUPT);
        return false;
    }
    n = migration_keys(m, phases[m->phase].table, &keys);
    for (size_t i = 0; i < n; i++) {
        phases[m->phase].each(m, &keys[i]);
    }
    if (n < MIGRATION_ROWS) {
        m->phase++;
        m->after.n = 0;
    }
    return m->phase == ARRAY_LEN(phases);
}
