#include "common/base.h"

#include "broker/core/apply.h"
#include "common/limits.h"

#define WEIGHT_MAX 1000u
#define DECLARED_TEXT \
    "%s %.60s is declared in the broker's configuration file: change it there, then reload"

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

static bool listed(const Pb__PoolRecord *pool, const char *project)
{
    for (size_t i = 0; i < pool->n_projects; i++) {
        if (project_matches(str_from(pool->projects[i]), project)) {
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

static int pool_bounds_check(struct core *c, const Pb__PoolSet *cmd)
{
    if (!name_ok(cmd->name)) {
        return reject(c, -E_INVALID, "bad name of the pool");
    }
    if (cmd->n_projects > LIMIT_POOL_PROJECTS) {
        return reject(c, -E_LIMIT, "a pool lists %u projects at most", LIMIT_POOL_PROJECTS);
    }
    for (size_t i = 0; i < cmd->n_projects; i++) {
        if (!str_is_project_pattern(str_from(cmd->projects[i]))) {
            return reject(c, -E_INVALID, "pool %s: a project is group/name, or group/*, not `%s`",
                          cmd->name, cmd->projects[i]);
        }
    }
    if (cmd->queue_timeout_ms > LIMIT_TIMEOUT_MS) {
        return reject(c, -E_LIMIT, "the queue timeout is too long");
    }
    if ((unsigned)cmd->on_worker_lost > PB__ON_WORKER_LOST__ON_WORKER_LOST_WAIT) {
        return reject(c, -E_INVALID, "a pool's on_worker_lost is requeue, fail or wait");
    }
    return 0;
}

static const char *const losses[] = {[PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE] = "requeue",
                                     [PB__ON_WORKER_LOST__ON_WORKER_LOST_FAIL] = "fail",
                                     [PB__ON_WORKER_LOST__ON_WORKER_LOST_WAIT] = "wait"};

const char *worker_loss_text(Pb__OnWorkerLost policy)
{
    return losses[(unsigned)policy < ARRAY_LEN(losses) ? (unsigned)policy : 0];
}

bool worker_loss_from_text(const char *text, Pb__OnWorkerLost *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(losses); i++) {
        if (strcmp(losses[i], text) == 0) {
            *ret = (Pb__OnWorkerLost)i;
            return true;
        }
    }
    return false;
}

const char *pool_times_check(uint32_t heartbeat_ms, uint32_t suspect_ms, uint32_t lease_ms)
{
    if (heartbeat_ms == 0 && suspect_ms == 0 && lease_ms == 0) {
        return NULL;
    }
    if (heartbeat_ms < LIMIT_HEARTBEAT_MIN_MS || heartbeat_ms > LIMIT_HEARTBEAT_MS) {
        return "heartbeat_ms is 20 to 60000, and needed where suspect_ms or lease_ms is set";
    }
    if (lease_ms < 2 * heartbeat_ms || lease_ms > LIMIT_LEASE_MS) {
        return "lease_ms is at least twice heartbeat_ms, at most 600000";
    }
    if (suspect_ms != 0 && (suspect_ms <= heartbeat_ms || suspect_ms > lease_ms)) {
        return "suspect_ms is more than heartbeat_ms, at most lease_ms";
    }
    return NULL;
}

static Pb__PoolRecord *pool_open(struct core *c, char *name)
{
    Pb__PoolRecord *p = (Pb__PoolRecord *)pool_get(c->tx, name);

    if (p == NULL) {
        p = arena_alloc(c->arena, sizeof(*p));
        pb__pool_record__init(p);
        p->name = name;
        p->created_ms = c->now_ms;
    }
    return p;
}

#define TAKE(field) row->field = cmd->has_##field ? cmd->field : row->field

static void pool_take(Pb__PoolRecord *row, const Pb__PoolSet *cmd)
{
    if (cmd->has_projects) {
        row->projects = cmd->projects;
        row->n_projects = cmd->n_projects;
    }
    row->protected_ = cmd->has_protected ? cmd->protected_ : row->protected_;
    TAKE(locked);
    TAKE(max_running);
    TAKE(project_max_running);
    row->queue_timeout_ms = cmd->has_queue_timeout ? cmd->queue_timeout_ms : row->queue_timeout_ms;
    TAKE(preempt);
    row->heartbeat_ms = cmd->has_heartbeat ? cmd->heartbeat_ms : row->heartbeat_ms;
    row->suspect_ms = cmd->has_suspect ? cmd->suspect_ms : row->suspect_ms;
    row->lease_ms = cmd->has_lease ? cmd->lease_ms : row->lease_ms;
    TAKE(on_worker_lost);
}

int pool_prepare(struct core *c, const Pb__PoolSet *cmd, Pb__PoolRecord **ret)
{
    const char *bad_times;
    Pb__PoolRecord *row;
    int r = pool_bounds_check(c, cmd);

    if (r < 0) {
        return r;
    }
    row = pool_open(c, cmd->name);
    pool_take(row, cmd);
    bad_times = pool_times_check(row->heartbeat_ms, row->suspect_ms, row->lease_ms);
    if (bad_times != NULL) {
        return reject(c, -E_INVALID, "pool %.40s: %s", cmd->name, bad_times);
    }
    *ret = row;
    return 0;
}

void pool_put(struct core *c, Pb__PoolRecord *row, const char *event)
{
    const struct key k = pool_key(row->name);

    row->id = row->id != 0 ? row->id : core_new_id(c);
    tx_put_msg(c->tx, T_POOL, &k, &row->base);
    pool_event(c, row->name, event);
}

int apply_pool_set(struct core *c, const Pb__PoolSet *cmd)
{
    Pb__PoolRecord *row;
    int r = pool_prepare(c, cmd, &row);

    if (r < 0) {
        return r;
    }
    if (row->declared) {
        return reject(c, -E_CONFLICT, DECLARED_TEXT, "pool", row->name);
    }
    if (row->id == 0 && tx_count(c->tx, T_POOL) >= LIMIT_POOLS) {
        return reject(c, -E_LIMIT, "there are %u pools already", LIMIT_POOLS);
    }
    pool_put(c, row, "set");
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
    if (p->declared) {
        return reject(c, -E_CONFLICT, DECLARED_TEXT, "pool", p->name);
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

static bool patterns_ok(char *const *patterns, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (patterns[i][0] == '\0' || !text_ok(patterns[i], LIMIT_NAME)) {
            return false;
        }
    }
    return n <= LIMIT_PROTECTED_REFS;
}

int project_prepare(struct core *c, const Pb__ProjectSet *cmd)
{
    if (!name_ok(cmd->name)) {
        return reject(c, -E_INVALID, "bad project name");
    }
    if (cmd->weight > WEIGHT_MAX) {
        return reject(c, -E_INVALID, "a project's weight is 1 to %u, or 0 for the default",
                      WEIGHT_MAX);
    }
    if (!text_ok(cmd->default_branch, LIMIT_NAME) ||
        !patterns_ok(cmd->protected_branches, cmd->n_protected_branches) ||
        !patterns_ok(cmd->protected_tags, cmd->n_protected_tags)) {
        return reject(c, -E_INVALID,
                      "names of branches and tags have 1 to %u bytes, and there are at most %u",
                      LIMIT_NAME, LIMIT_PROTECTED_REFS);
    }
    return 0;
}

void project_put(struct core *c, Pb__ProjectRecord *row, const char *event)
{
    const struct key k = key_u64(row->id);

    tx_put_msg(c->tx, T_PROJECT, &k, &row->base);
    event_add(c, &(struct event){
                     .kind = EVENT_PROJECT, .project_id = row->id, .to = event, .name = row->name});
    effect_add(c->fx, (struct effect){.kind = EFFECT_SETTINGS});
}

void project_take_protection(Pb__ProjectRecord *row, const Pb__ProjectSet *cmd)
{
    if (cmd->has_protected_branches) {
        row->protected_branches = cmd->protected_branches;
        row->n_protected_branches = cmd->n_protected_branches;
    }
    if (cmd->has_protected_tags) {
        row->protected_tags = cmd->protected_tags;
        row->n_protected_tags = cmd->n_protected_tags;
    }
}

int apply_project_set(struct core *c, const Pb__ProjectSet *cmd)
{
    const Pb__ProjectRecord *before = NULL;
    Pb__ProjectRecord *row;
    int r = project_prepare(c, cmd);

    if (r < 0) {
        return r;
    }
    before = project_by_name(c->tx, cmd->name);
    if (before != NULL && before->declared) {
        return reject(c, -E_CONFLICT, DECLARED_TEXT, "project", before->name);
    }
    row = project_open(c, cmd->name);
    TAKE(weight);
    TAKE(max_running);
    TAKE(default_branch);
    project_take_protection(row, cmd);
    project_put(c, row, "set");
    c->reply->project_id = row->id;
    return 0;
}
