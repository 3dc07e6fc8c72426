/* Schema 2 to 3: the first row counts the jobs by their state. Schema 2 had no such counts. */
#include "common/base.h"

#include "broker/store/migrate.h"

#define STATES 12u /* that a job of schema 2 could be in */

bool migrate_2(struct migration *m)
{
    struct key *keys;
    size_t n;

    if (m->after.n == 0) {
        m->meta->n_job_counts = STATES;
        m->meta->job_counts = arena_array(tx_arena(m->tx), STATES, sizeof(uint64_t));
        memset(m->meta->job_counts, 0, STATES * sizeof(uint64_t));
    }
    n = migration_keys(m, T_JOB, &keys);
    for (size_t i = 0; i < n; i++) {
        const Pb__JobRecord *job = (const Pb__JobRecord *)tx_get_msg(m->tx, T_JOB, &keys[i],
                                                                     &pb__job_record__descriptor);
        if (job == NULL || (uint32_t)job->state >= m->meta->n_job_counts) {
            tx_fail(m->tx, -E_CORRUPT);
            return false;
        }
        m->meta->job_counts[job->state]++;
    }
    return n < MIGRATION_ROWS;
}
