/* `pools:` and `projects:` of the configuration file, with the fields and bounds of the API. What
 * is not written has its default: the file alone says what a declared pool is. */
#include "common/base.h"

#include "broker/config/file.h"

#include "broker/core/query.h"
#include "common/limits.h"

#define WEIGHT_MAX 1000

struct declaring {
    struct file *f;
    const char *where; /* "in pool `fast`" */
    Pb__PoolSet *pool;
    Pb__ProjectSet *project;
};

struct field {
    const char *name;
    void (*read)(struct declaring *d, const char *name, const struct node *n);
};

static void read_flag(struct declaring *d, const char *name, const struct node *n,
                      protobuf_c_boolean *ret)
{
    if (n->kind != NODE_SCALAR || n->type != SCALAR_BOOL) {
        file_wrong(d->f, n, "wrong-value", NULL, "`%s` is true or false", name);
        return;
    }
    *ret = n->truth;
}

static void read_count(struct declaring *d, const char *name, const struct node *n, uint32_t max,
                       uint32_t *ret)
{
    if (n->kind != NODE_SCALAR || n->type != SCALAR_INT || n->integer < 0 || n->integer > max) {
        file_wrong(d->f, n, "wrong-value", NULL, "`%s` is a number, 0 to %u", name, max);
        return;
    }
    *ret = (uint32_t)n->integer;
}

static bool is_name(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f) {
            return false;
        }
    }
    return s.n > 0 && s.n <= LIMIT_NAME;
}

static void read_projects(struct declaring *d, const char *name, const struct node *n)
{
    Pb__PoolSet *pool = d->pool;

    if (n->kind != NODE_LIST || n->count > LIMIT_POOL_PROJECTS) {
        file_wrong(d->f, n, "wrong-value", NULL, "`%s` is a list of at most %u projects", name,
                   LIMIT_POOL_PROJECTS);
        return;
    }
    pool->projects = arena_array(&d->f->o->arena, MAX(n->count, 1u), sizeof(*pool->projects));
    for (uint32_t i = 0; i < n->count; i++) {
        const struct node *item = n->items[i];
        if (item->kind != NODE_SCALAR || item->type == SCALAR_NULL ||
            !str_is_project_pattern(item->text)) {
            file_wrong(d->f, item, "wrong-value", NULL, "a project is group/name, or group/*");
            continue;
        }
        pool->projects[pool->n_projects++] = arena_strdup(&d->f->o->arena, item->text);
    }
}

static bool is_text(const struct node *n)
{
    return n->kind == NODE_SCALAR && n->type != SCALAR_NULL && is_name(n->text);
}

static void read_default_branch(struct declaring *d, const char *name, const struct node *n)
{
    if (!is_text(n)) {
        file_wrong(d->f, n, "wrong-value", NULL, "`%s` is the name of a branch", name);
        return;
    }
    d->project->default_branch = arena_strdup(&d->f->o->arena, n->text);
}

static void read_patterns(struct declaring *d, const char *name, const struct node *n, char ***ret,
                          size_t *ret_count)
{
    if (n->kind != NODE_LIST || n->count > LIMIT_PROTECTED_REFS) {
        file_wrong(d->f, n, "wrong-value", NULL, "`%s` is a list of at most %u names, with `*`",
                   name, LIMIT_PROTECTED_REFS);
        return;
    }
    *ret = arena_array(&d->f->o->arena, MAX(n->count, 1u), sizeof(**ret));
    for (uint32_t i = 0; i < n->count; i++) {
        if (!is_text(n->items[i])) {
            file_wrong(d->f, n->items[i], "wrong-value", NULL, "`%s` holds names, with `*`", name);
            continue;
        }
        (*ret)[(*ret_count)++] = arena_strdup(&d->f->o->arena, n->items[i]->text);
    }
}

static void read_branches(struct declaring *d, const char *name, const struct node *n)
{
    read_patterns(d, name, n, &d->project->protected_branches, &d->project->n_protected_branches);
}

static void read_tags(struct declaring *d, const char *name, const struct node *n)
{
    read_patterns(d, name, n, &d->project->protected_tags, &d->project->n_protected_tags);
}

static void read_queue_timeout(struct declaring *d, const char *name, const struct node *n)
{
    uint64_t ms = 0;

    if (n->kind != NODE_SCALAR ||
        (!str_eqz(n->text, "0") && str_to_duration_ms(n->text, &ms) < 0) || ms > LIMIT_TIMEOUT_MS) {
        file_wrong(d->f, n, "wrong-value", NULL, "`%s` is a time as 30m or 2h, or 0", name);
        return;
    }
    d->pool->queue_timeout_ms = ms;
}

static void read_on_worker_lost(struct declaring *d, const char *name, const struct node *n)
{
    const char *text = n->kind == NODE_SCALAR ? arena_strdup(&d->f->o->arena, n->text) : "";

    if (!worker_loss_from_text(text, &d->pool->on_worker_lost)) {
        file_wrong(d->f, n, "wrong-value", NULL, "`%s` is requeue, fail or wait", name);
    }
}

static void read_protected(struct declaring *d, const char *name, const struct node *n)
{
    read_flag(d, name, n, &d->pool->protected_);
}

static void read_locked(struct declaring *d, const char *name, const struct node *n)
{
    read_flag(d, name, n, &d->pool->locked);
}

static void read_preempt(struct declaring *d, const char *name, const struct node *n)
{
    read_flag(d, name, n, &d->pool->preempt);
}

static void read_max_running(struct declaring *d, const char *name, const struct node *n)
{
    read_count(d, name, n, UINT32_MAX,
               d->pool != NULL ? &d->pool->max_running : &d->project->max_running);
}

static void read_project_max_running(struct declaring *d, const char *name, const struct node *n)
{
    read_count(d, name, n, UINT32_MAX, &d->pool->project_max_running);
}

static void read_heartbeat(struct declaring *d, const char *name, const struct node *n)
{
    read_count(d, name, n, LIMIT_HEARTBEAT_MS, &d->pool->heartbeat_ms);
}

static void read_suspect(struct declaring *d, const char *name, const struct node *n)
{
    read_count(d, name, n, LIMIT_LEASE_MS, &d->pool->suspect_ms);
}

static void read_lease(struct declaring *d, const char *name, const struct node *n)
{
    read_count(d, name, n, LIMIT_LEASE_MS, &d->pool->lease_ms);
}

static void read_weight(struct declaring *d, const char *name, const struct node *n)
{
    read_count(d, name, n, WEIGHT_MAX, &d->project->weight);
}

static const struct field pool_fields[] = {
    {"projects", read_projects},
    {"protected", read_protected},
    {"locked", read_locked},
    {"max_running", read_max_running},
    {"project_max_running", read_project_max_running},
    {"queue_timeout", read_queue_timeout},
    {"preempt", read_preempt},
    {"heartbeat_ms", read_heartbeat},
    {"suspect_ms", read_suspect},
    {"lease_ms", read_lease},
    {"on_worker_lost", read_on_worker_lost},
};

static const struct field project_fields[] = {
    {"weight", read_weight},
    {"max_running", read_max_running},
    {"default_branch", read_default_branch},
    {"protected_branches", read_branches},
    {"protected_tags", read_tags},
};

static void read_field(struct declaring *d, const struct pair *p, const struct field *fields,
                       size_t count)
{
    const char *names[ARRAY_LEN(pool_fields)];

    for (size_t i = 0; i < count; i++) {
        names[i] = fields[i].name;
        if (str_eqz(p->key->text, fields[i].name)) {
            if (!node_is_null(p->value)) {
                fields[i].read(d, fields[i].name, p->value);
            }
            return;
        }
    }
    file_unknown(d->f, p->key, d->where, names, count);
}

static void read_fields(struct declaring *d, const struct node *n, const struct field *fields,
                        size_t count)
{
    if (file_mapping(d->f, n, d->where + strlen("in "))) {
        for (uint32_t i = 0; i < n->count; i++) {
            read_field(d, &n->pairs[i], fields, count);
        }
    }
}

static Pb__PoolSet *new_pool(struct file *f, const struct node *key)
{
    Pb__PoolSet *set = arena_alloc(&f->o->arena, sizeof(*set));

    pb__pool_set__init(set);
    set->name = arena_strdup(&f->o->arena, key->text);
    set->has_projects = set->has_protected = set->has_locked = set->has_max_running = true;
    set->has_project_max_running = set->has_queue_timeout = set->has_preempt = true;
    set->has_heartbeat = set->has_suspect = set->has_lease = set->has_on_worker_lost = true;
    return set;
}

void file_pools(struct file *f, const struct node *n)
{
    Pb__Configure *all = f->o->declared;

    if (!file_mapping(f, n, "`pools`")) {
        return;
    }
    if (n->count > LIMIT_POOLS) {
        file_wrong(f, n, "too-many", NULL, "at most %u pools", LIMIT_POOLS);
        return;
    }
    all->pools = arena_array(&f->o->arena, MAX(n->count, 1u), sizeof(*all->pools));
    for (uint32_t i = 0; i < n->count; i++) {
        const struct node *key = n->pairs[i].key;
        if (!is_name(key->text)) {
            file_wrong(f, key, "wrong-value", NULL, "a pool has a name of at most %u bytes",
                       LIMIT_NAME);
            continue;
        }
        Pb__PoolSet *set = new_pool(f, key);
        struct declaring d = {
            .f = f, .pool = set, .where = arena_printf(&f->o->arena, "in pool `%s`", set->name)};
        const char *times;
        read_fields(&d, n->pairs[i].value, pool_fields, ARRAY_LEN(pool_fields));
        times = pool_times_check(set->heartbeat_ms, set->suspect_ms, set->lease_ms);
        if (times != NULL) {
            file_wrong(f, key, "wrong-times", NULL, "pool `%s`: %s", set->name, times);
        }
        all->pools[all->n_pools++] = set;
    }
}

void file_projects(struct file *f, const struct node *n)
{
    Pb__Configure *all = f->o->declared;

    if (!file_mapping(f, n, "`projects`")) {
        return;
    }
    all->projects = arena_array(&f->o->arena, MAX(n->count, 1u), sizeof(*all->projects));
    for (uint32_t i = 0; i < n->count; i++) {
        const struct node *key = n->pairs[i].key;
        if (!str_is_project_name(key->text)) {
            file_wrong(f, key, "wrong-value", NULL, "a project is named group/name");
            continue;
        }
        Pb__ProjectSet *set = arena_alloc(&f->o->arena, sizeof(*set));
        pb__project_set__init(set);
        set->name = arena_strdup(&f->o->arena, key->text);
        set->has_weight = set->has_max_running = set->has_default_branch = true;
        set->has_protected_branches = set->has_protected_tags = true;
        struct declaring d = {.f = f,
                              .project = set,
                              .where = arena_printf(&f->o->arena, "in project `%s`", set->name)};
        read_fields(&d, n->pairs[i].value, project_fields, ARRAY_LEN(project_fields));
        all->projects[all->n_projects++] = set;
    }
}
