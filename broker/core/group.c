#include "common/base.h"

#include "broker/core/run.h"
#include "common/crypto.h"
#include "common/limits.h"

/* Who is next to hold a resource group: its process mode decides.
 *
 * The modes look at pipelines, oldest or newest, that still have a job for the group: one that is
 * created, delayed or waits. The table resource_next has a row for each, in the order of pipelines;
 * a job without a pipeline is its own.
 *
 * A pipeline and all child pipelines below it stand at one place. A job that comes later in the
 * parent is upcoming while the trigger job before it waits for the child: were the child behind its
 * parent, the two would wait for each other. So whoever is at the end of the line never waits for
 * this group but in it: what stops all of its jobs that are not there yet is its own. */

#define NEXT_WAITS "w"

static bool is_upcoming(const Pb__JobRecord *job)
{
    return job->resource_group[0] != '\0' &&
           (job->state == JOB_CREATED || job->state == JOB_SCHEDULED ||
            job->state == JOB_WAITING_FOR_RESOURCE);
}

static uint64_t order_of(const Pb__JobRecord *job)
{
    if (job->root_pipeline_id != 0) {
        return job->root_pipeline_id;
    }
    return job->pipeline_id != 0 ? job->pipeline_id : job->id;
}

struct key lock_next_key(const Pb__JobRecord *job)
{
    struct key k = lock_key(job);

    key_add_u64(&k, order_of(job));
    key_add_u64(&k, job->id);
    return k;
}

struct str lock_next_value(const Pb__JobRecord *job)
{
    return job->state == JOB_WAITING_FOR_RESOURCE ? STR(NEXT_WAITS) : STR_NULL;
}

bool lock_is_next(const Pb__JobRecord *job)
{
    return is_upcoming(job);
}

void lock_note(struct core *c, const Pb__JobRecord *job)
{
    const struct key k = lock_next_key(job);

    if (is_upcoming(job)) {
        tx_put(c->tx, T_RESOURCE_NEXT, &k, lock_next_value(job));
    } else {
        tx_del(c->tx, T_RESOURCE_NEXT, &k);
        if (tx_count(c->tx, T_RESOURCE_GROUP) > 0) {
            lock_freed(c, job); /* perhaps others waited for it to go, not for the group */
        }
    }
}

Pb__ProcessMode lock_mode(struct tx *tx, struct str group)
{
    const struct key k = key_bytes(group.p, group.n);
    const Pb__ResourceGroupRecord *r = NULL;

    if (tx_count(tx, T_RESOURCE_GROUP) > 0) {
        r = (const Pb__ResourceGroupRecord *)tx_get_msg(tx, T_RESOURCE_GROUP, &k,
                                                        &pb__resource_group_record__descriptor);
    }
    return r != NULL ? r->mode : PB__PROCESS_MODE__PROCESS_UNORDERED;
}

/* The first job in the group's rows of `t`; 0: none. */
static uint64_t first_of(struct tx *tx, enum table t, struct str group)
{
    struct cursor cur;
    uint64_t id = 0;

    tx_seek(&cur, tx, t, group, NULL);
    if (cur.valid) {
        id = key_read_u64(cur.key, cur.key.n - sizeof(uint64_t));
    }
    cursor_end(&cur);
    return id;
}

/* The oldest or newest pipeline that has a job for the group; 0: none has. */
static uint64_t end_of_line(struct tx *tx, struct str group, bool newest)
{
    struct cursor cur;
    uint64_t order = 0;

    if (newest) {
        tx_seek_last(&cur, tx, T_RESOURCE_NEXT, group);
    } else {
        tx_seek(&cur, tx, T_RESOURCE_NEXT, group, NULL);
    }
    if (cur.valid) {
        order = key_read_u64(cur.key, CORE_LOCK_KEY_BYTES);
    }
    cursor_end(&cur);
    return order;
}

/* The first job of that pipeline that waits; 0: none does yet. */
static uint64_t waiting_of(struct tx *tx, struct str group, uint64_t order)
{
    struct key prefix = key_bytes(group.p, group.n);
    struct cursor cur;
    uint64_t id = 0;

    key_add_u64(&prefix, order);
    for (tx_seek(&cur, tx, T_RESOURCE_NEXT, key_str(&prefix), NULL); cur.valid && id == 0;
         tx_next(&cur)) {
        id = cur.value.n > 0 ? key_read_u64(cur.key, prefix.n) : 0;
    }
    cursor_end(&cur);
    return id;
}

static uint64_t newest_waiting(struct tx *tx, struct str group)
{
    struct cursor cur;
    uint64_t order = 0;

    for (tx_seek_last(&cur, tx, T_RESOURCE_NEXT, group); cur.valid && order == 0; tx_prev(&cur)) {
        order = cur.value.n > 0 ? key_read_u64(cur.key, CORE_LOCK_KEY_BYTES) : 0;
    }
    cursor_end(&cur);
    return order != 0 ? waiting_of(tx, group, order) : 0;
}

uint64_t lock_heir(struct tx *tx, struct str group)
{
    if (first_of(tx, T_RESOURCE_HOLD, group) != 0) {
        return 0;
    }
    switch (lock_mode(tx, group)) {
    case PB__PROCESS_MODE__PROCESS_OLDEST_FIRST:
        return waiting_of(tx, group, end_of_line(tx, group, false));
    case PB__PROCESS_MODE__PROCESS_NEWEST_FIRST:
        return waiting_of(tx, group, end_of_line(tx, group, true));
    case PB__PROCESS_MODE__PROCESS_NEWEST_READY_FIRST:
        return newest_waiting(tx, group);
    case PB__PROCESS_MODE__PROCESS_UNORDERED:
    case _PB__PROCESS_MODE_IS_INT_SIZE:
    default:
        return first_of(tx, T_RESOURCE_WAIT, group);
    }
}

bool lock_may_take(struct tx *tx, const Pb__JobRecord *job)
{
    const struct key k = lock_key(job);
    const struct str group = key_str(&k);
    const Pb__ProcessMode mode = lock_mode(tx, group);
    const bool newest = mode == PB__PROCESS_MODE__PROCESS_NEWEST_FIRST;
    uint64_t end;

    if (first_of(tx, T_RESOURCE_HOLD, group) != 0) {
        return false;
    }
    if (mode == PB__PROCESS_MODE__PROCESS_OLDEST_FIRST || newest) {
        end = end_of_line(tx, group, newest);
        return end == 0 || (newest ? end <= order_of(job) : end >= order_of(job));
    }
    /* Those who wait come first; where the newest does, none waits while the group is free. */
    return first_of(tx, T_RESOURCE_WAIT, group) == 0;
}

static uint64_t count_groups(struct core *c, uint64_t project_id)
{
    const struct key prefix = key_u64(project_id);
    struct cursor cur;
    uint64_t n = 0;

    for (tx_seek(&cur, c->tx, T_RESOURCE_GROUP, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        n++;
    }
    cursor_end(&cur);
    return n;
}

static void put_mode(struct core *c, const struct key *k, const Pb__ResourceGroupSet *cmd,
                     uint64_t project_id)
{
    Pb__ResourceGroupRecord row = PB__RESOURCE_GROUP_RECORD__INIT;

    if (cmd->mode == PB__PROCESS_MODE__PROCESS_UNORDERED) {
        tx_del(c->tx, T_RESOURCE_GROUP, k);
        return;
    }
    row.project_id = project_id;
    row.name = cmd->name;
    row.mode = cmd->mode;
    tx_put_msg(c->tx, T_RESOURCE_GROUP, k, &row.base);
}

int apply_resource_group_set(struct core *c, const Pb__ResourceGroupSet *cmd)
{
    static const char *const modes[] = {"unordered", "oldest_first", "newest_first",
                                        "newest_ready_first"};
    const Pb__ProjectRecord *p = project_by_name(c->tx, cmd->project);
    Pb__JobRecord as = PB__JOB_RECORD__INIT; /* any that names the group */
    struct key k;

    if (p == NULL) {
        return reject(c, -E_NOT_FOUND, "no project %.100s", cmd->project);
    }
    if (!name_ok(cmd->name) || (unsigned)cmd->mode >= ARRAY_LEN(modes)) {
        return reject(c, -E_INVALID, "bad name or mode of the resource group");
    }
    as.project_id = p->id;
    as.resource_group = cmd->name;
    k = lock_key(&as);
    if (cmd->mode != PB__PROCESS_MODE__PROCESS_UNORDERED && !tx_has(c->tx, T_RESOURCE_GROUP, &k) &&
        count_groups(c, p->id) >= LIMIT_RESOURCE_GROUPS) {
        return reject(c, -E_LIMIT, "the project has %u resource groups with a mode already",
                      LIMIT_RESOURCE_GROUPS);
    }
    put_mode(c, &k, cmd, p->id);
    lock_freed(c, &as); /* by the new mode somebody else may be next */
    event_add(c, &(struct event){.kind = EVENT_GROUP,
                                 .project_id = p->id,
                                 .to = modes[cmd->mode],
                                 .name = cmd->name});
    c->reply->project_id = p->id;
    return 0;
}
