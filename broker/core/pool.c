#include "common/base.h"

#include "broker/core/apply.h"
#include "common/limits.h"

#define WEIGHT_MAX 1000u

struct key pool_key(const char *name)
{
    return key_bytes(name, strlen(name));
}

const Pb__PoolRecord *pool_get(struct tx *tx, const char *name)
{
    const struct key k = pool_key(name);

    if (name[0] == '\0') {
        return NULL;
    }
    return (const Pb__PoolRecord *)tx_get_msg(tx, T_POOL, &k, &pb__pool_record__descriptor);
}

/* "group/name", or "group/" and a star for all below the group. */
static bool listed(const Pb__PoolRecord *pool, const char *project)
{
    for (size_t i = 0; i < pool->n_projects; i++) {
        const char *p = pool->projects[i];
        const size_t n = strlen(p);
        const bool group = n > 2 && strcmp(p + n - 2, "/*") == 0;
        if (group ? strncmp(p, project, n - 1) == 0 : strcmp(p, project) == 0) {
            return true;
        }
    }
    return false;
}

enum pool_bar pool_bar(const Pb__PoolRecord *pool, const char *name, const Pb__ClassRecord *class,
                       const char *project)
{
    const bool named = strcmp(class->pool, name) == 0;

    if (class->pool[0] != '\0' && !named) {
        return POOL_BAR_OTHER;
    }
    if (pool == NULL) {
        return POOL_BAR_NONE;
    }
    if (pool->locked && !named) {
        return POOL_BAR_LOCKED;
    }
    if (pool->protected_ && !class->protected_) {
        return POOL_BAR_PROTECTED;
    }
    return pool->n_projects > 0 && !listed(pool, project) ? POOL_BAR_PROJECT : POOL_BAR_NONE;
}

static void pool_event(struct core *c, const char *name, const char *to)
{
    event_add(c, &(struct event){.kind = EVENT_POOL, .to = to, .name = name});
    effect_add(c->fx, (struct effect){.kind = EFFECT_SETTINGS});
}

static int pool_set_check(struct core *c, const Pb__PoolSet *cmd)
{
    if (!name_ok(cmd->name)) {
        return reject(c, -E_INVALID, "bad name of the pool");
    }
    if (cmd->n_projects > LIMIT_POOL_PROJECTS) {
        return reject(c, -E_LIMIT, "a pool lists %u projects at most", LIMIT_POOL_PROJECTS);
    }
    for (size_t i = 0; i < cmd->n_projects; i++) {
        if (!name_ok(cmd->projects[i])) {
            return reject(c, -E_INVALID, "bad name of project %zu of the pool", i);
        }
    }
    if (cmd->queue_timeout_ms > LIMIT_TIMEOUT_MS) {
        return reject(c, -E_LIMIT, "the queue timeout is too long");
    }
    if (pool_get(c->tx, cmd->name) == NULL && tx_count(c->tx, T_POOL) >= LIMIT_POOLS) {
        return reject(c, -E_LIMIT, "there are %u pools already", LIMIT_POOLS);
    }
    return 0;
}

static Pb__PoolRecord *pool_open(struct core *c, char *name)
{
    Pb__PoolRecord *p = (Pb__PoolRecord *)pool_get(c->tx, name);

    if (p == NULL) {
        p = arena_alloc(c->arena, sizeof(*p));
        pb__pool_record__init(p);
        p->id = core_new_id(c);
        p->name = name;
        p->created_ms = c->now_ms;
    }
    return p;
}

int apply_pool_set(struct core *c, const Pb__PoolSet *cmd)
{
    const struct key k = pool_key(cmd->name);
    Pb__PoolRecord *p;
    int r = pool_set_check(c, cmd);

    if (r < 0) {
        return r;
    }
    p = pool_open(c, cmd->name);
    if (cmd->has_projects) {
        p->projects = cmd->projects;
        p->n_projects = cmd->n_projects;
    }
    p->protected_ = cmd->has_protected ? cmd->protected_ : p->protected_;
    p->locked = cmd->has_locked ? cmd->locked : p->locked;
    p->max_running = cmd->has_max_running ? cmd->max_running : p->max_running;
    p->project_max_running = cmd->has_project_max_running ? cmd->project_max_running
                                                          : p->project_max_running;
    p->queue_timeout_ms = cmd->has_queue_timeout ? cmd->queue_timeout_ms : p->queue_timeout_ms;
    p->preempt = cmd->has_preempt ? cmd->preempt : p->preempt;
    tx_put_msg(c->tx, T_POOL, &k, &p->base);
    pool_event(c, p->name, "set");
    return 0;
}

/* A worker of the pool, by name; NULL: none. */
static const char *worker_of(struct core *c, const char *pool)
{
    struct cursor cur;
    const char *found = NULL;

    for (tx_seek(&cur, c->tx, T_WORKER, STR_NULL, NULL); cur.valid && found == NULL;
         tx_next(&cur)) {
        const Pb__WorkerRecord *w = worker_get(c->tx, key_read_u64(cur.key, 0));
        found = w != NULL && strcmp(w->pool, pool) == 0 ? w->name : NULL;
    }
    cursor_end(&cur);
    return found;
}

static bool is_named(struct core *c, const char *pool)
{
    struct cursor cur;
    bool found = false;

    for (tx_seek(&cur, c->tx, T_CLASS, STR_NULL, NULL); cur.valid && !found; tx_next(&cur)) {
        const Pb__ClassRecord *class = class_get(c->tx, key_read_u64(cur.key, 0));
        found = class != NULL && strcmp(class->pool, pool) == 0 && class->unfinished > 0;
    }
    cursor_end(&cur);
    return found;
}

/* A pool that is not there is shared by all: so none goes while there is something to keep apart.
 */
int apply_pool_delete(struct core *c, const Pb__PoolDelete *cmd)
{
    const Pb__PoolRecord *p = pool_get(c->tx, cmd->name);
    const struct key k = pool_key(p != NULL ? p->name : "");
    const char *worker;

    if (p == NULL) {
        return reject(c, -E_NOT_FOUND, "no pool %.100s", cmd->name);
    }
    worker = worker_of(c, cmd->name);
    if (worker != NULL) {
        return reject(c, -E_CONFLICT, "worker %.60s is of that pool", worker);
    }
    if (is_named(c, cmd->name)) {
        return reject(c, -E_CONFLICT, "jobs that have not ended name that pool");
    }
    tx_del(c->tx, T_POOL, &k);
    pool_event(c, p->name, "deleted");
    return 0;
}

int apply_project_set(struct core *c, const Pb__ProjectSet *cmd)
{
    Pb__ProjectRecord *p;
    struct key k;

    if (!name_ok(cmd->name)) {
        return reject(c, -E_INVALID, "bad project name");
    }
    if (cmd->weight > WEIGHT_MAX) {
        return reject(c, -E_INVALID, "a project's weight is 1 to %u, or 0 for the default",
                      WEIGHT_MAX);
    }
    p = project_open(c, cmd->name);
    p->weight = cmd->has_weight ? cmd->weight : p->weight;
    p->max_running = cmd->has_max_running ? cmd->max_running : p->max_running;
    k = key_u64(p->id);
    tx_put_msg(c->tx, T_PROJECT, &k, &p->base);
    event_add(c, &(struct event){
                     .kind = EVENT_PROJECT, .project_id = p->id, .to = "set", .name = p->name});
    effect_add(c->fx, (struct effect){.kind = EFFECT_SETTINGS});
    c->reply->project_id = p->id;
    return 0;
}
