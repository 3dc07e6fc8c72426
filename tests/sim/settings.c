#include "common/base.h"

#include "broker/turn.h"
#include "tests/sim/sim.h"

/* Administrators: they set pools, projects and resource groups. */

static char *name(struct post *p, char kind, uint64_t number)
{
    return arena_printf(post_arena(p), "%c%u", kind, (unsigned)number);
}

static void set_pool(uint64_t pool)
{
    struct post *p = post_new("admin");
    Pb__PoolSet *c = POST_BODY(p, pool_set, POOL_SET, pb__pool_set__init);

    c->name = name(p, 'x', pool);
    c->has_projects = one_in(3);
    c->projects = arena_array(post_arena(p), MODEL_PROJECTS, sizeof(*c->projects));
    for (uint64_t i = 1; i <= MODEL_PROJECTS && c->has_projects; i++) {
        if (one_in(2)) {
            c->projects[c->n_projects++] = name(p, 'p', i);
        }
    }
    c->has_protected = one_in(4);
    c->protected_ = one_in(3);
    c->has_locked = one_in(3);
    c->locked = one_in(2);
    c->has_max_running = one_in(3);
    c->max_running = (uint32_t)below(5);
    c->has_project_max_running = one_in(3);
    c->project_max_running = (uint32_t)below(3);
    c->has_queue_timeout = one_in(3);
    c->queue_timeout_ms = one_in(2) ? 0 : between(1000, 60000);
    c->has_on_worker_lost = one_in(3);
    c->on_worker_lost = (Pb__OnWorkerLost)below(3);
    c->has_preempt = one_in(2);
    c->preempt = !one_in(3);
    user_submit(p);
}

static void delete_pool(uint64_t pool)
{
    struct post *p = post_new("admin");

    POST_BODY(p, pool_delete, POOL_DELETE, pb__pool_delete__init)->name = name(p, 'x', pool);
    user_submit(p);
}

static void set_project(uint64_t project, uint32_t max_running)
{
    struct post *p = post_new("admin");
    Pb__ProjectSet *c = POST_BODY(p, project_set, PROJECT_SET, pb__project_set__init);

    c->name = name(p, 'p', project);
    c->has_weight = one_in(2);
    c->weight = one_in(4) ? 0 : (uint32_t)between(1, 400);
    c->has_max_running = true;
    c->max_running = max_running;
    user_submit(p);
}

static void set_group(uint64_t project, uint64_t group, Pb__ProcessMode mode)
{
    struct post *p = post_new("admin");
    Pb__ResourceGroupSet *c = POST_BODY(p, resource_group_set, RESOURCE_GROUP_SET,
                                        pb__resource_group_set__init);

    c->project = name(p, 'p', project);
    c->name = name(p, 'g', group);
    c->mode = mode;
    user_submit(p);
}

void settings_change(void)
{
    switch (below(6)) {
    case 0:
    case 1:
        set_pool(between(1, MODEL_POOLS));
        break;
    case 2:
        delete_pool(between(1, MODEL_POOLS));
        break;
    case 3:
    case 4:
        set_project(between(1, MODEL_PROJECTS), (uint32_t)below(4));
        break;
    default:
        set_group(between(1, MODEL_PROJECTS), between(1, 3), (Pb__ProcessMode)below(4));
        break;
    }
}

/* Takes back what may keep jobs for ever, where it is so. */
void settings_open(void)
{
    const struct model *m = sim->model;

    for (uint64_t i = 1; i <= MODEL_POOLS; i++) {
        const struct model_pool *pool = &m->pools[i];
        if (pool->projects != 0 || pool->is_protected || pool->locked) {
            struct post *p = post_new("admin");
            Pb__PoolSet *c = POST_BODY(p, pool_set, POOL_SET, pb__pool_set__init);
            c->name = name(p, 'x', i);
            c->has_projects = c->has_protected = c->has_locked = true;
            user_submit(p);
        }
    }
    for (uint64_t i = 1; i <= MODEL_PROJECTS; i++) {
        for (uint64_t g = 1; g <= MODEL_GROUPS / MODEL_PROJECTS; g++) {
            if (m->projects[i].modes[g] != 0) {
                set_group(i, g, PB__PROCESS_MODE__PROCESS_UNORDERED);
            }
        }
    }
}
