#include "common/base.h"

#include "broker/core/apply.h"
#include "common/limits.h"

/* A pipeline without a parent and all that stand below it are one family: they are kept for as long
 * as one of them runs, and are deleted together. The one without a parent counts those that have
 * not ended; the table pipeline_ended holds it while there are none. */

struct key family_ended_key(uint64_t ended_ms, uint64_t root_id)
{
    return key_u64_u64(ended_ms, root_id);
}

Pb__PipelineRecord *family_root(struct core *c, const Pb__PipelineRecord *p)
{
    for (uint32_t i = 0; i < LIMIT_PIPELINE_DEPTH && p->parent_job_id != 0; i++) {
        const struct key of_job = key_u64(p->parent_job_id);
        const Pb__JobRecord *job = (const Pb__JobRecord *)core_row(c, T_JOB, &of_job,
                                                                   &pb__job_record__descriptor);
        const struct key k = key_u64(job->pipeline_id);
        p = (const Pb__PipelineRecord *)core_row(c, T_PIPELINE, &k,
                                                 &pb__pipeline_record__descriptor);
    }
    return (Pb__PipelineRecord *)p;
}

static void index_root(struct core *c, Pb__PipelineRecord *root)
{
    const bool ended = status_terminal(root->status) && root->family_live == 0;
    struct key k;

    if (ended == (root->family_ended_ms != 0)) {
        return;
    }
    if (ended) {
        root->family_ended_ms = c->now_ms;
        k = family_ended_key(root->family_ended_ms, root->id);
        tx_put(c->tx, T_PIPELINE_ENDED, &k, STR_NULL);
    } else {
        k = family_ended_key(root->family_ended_ms, root->id);
        tx_del(c->tx, T_PIPELINE_ENDED, &k);
        root->family_ended_ms = 0;
    }
}

/* A run of the pipeline is open now, and perhaps one of a relative: those wait. */
void family_moved(struct core *c, Pb__PipelineRecord *p)
{
    struct later *l;

    if (p->parent_job_id == 0 && p->family == 0) {
        index_root(c, p);
        return;
    }
    l = later_add(c);
    l->kind = LATER_COUNT;
    l->pipeline_id = p->id;
    l->ended = status_terminal(p->status);
}

void family_count(struct core *c, uint64_t pipeline_id, bool ended)
{
    const struct key k = key_u64(pipeline_id);
    const Pb__PipelineRecord *p = (const Pb__PipelineRecord *)core_row(
        c, T_PIPELINE, &k, &pb__pipeline_record__descriptor);
    Pb__PipelineRecord *root = family_root(c, p);
    const struct key of_root = key_u64(root->id);

    if (root->id != pipeline_id) {
        check(!ended || root->family_live > 0 || !tx_ok(c->tx));
        root->family_live += ended ? UINT32_MAX : 1;
    }
    index_root(c, root);
    tx_put_msg(c->tx, T_PIPELINE, &of_root, &root->base);
}
