/* What the broker's configuration file declares of pools, projects and targets. */
#include "common/base.h"

#include "broker/core/apply.h"
#include "common/limits.h"

#include <stdlib.h>

/* A name of the command, for the search whether a row is still declared. */
static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_among(const char *name, const char *const *names, size_t n)
{
    return n > 0 && bsearch(&name, names, n, sizeof(*names), compare) != NULL;
}

/* Sorted; NULL: one of them stands there twice. */
static const char **sort_names(const char **names, size_t n)
{
    if (n > 1) {
        qsort(names, n, sizeof(*names), compare);
    }
    for (size_t i = 1; i < n; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            return NULL;
        }
    }
    return names;
}

static const char **pool_names(struct core *c, const Pb__Configure *cmd)
{
    const char **names = arena_array(c->arena, cmd->n_pools + 1, sizeof(*names));

    for (size_t i = 0; i < cmd->n_pools; i++) {
        names[i] = cmd->pools[i]->name;
    }
    return sort_names(names, cmd->n_pools);
}

static const char **project_names(struct core *c, const Pb__Configure *cmd)
{
    const char **names = arena_array(c->arena, cmd->n_projects + 1, sizeof(*names));

    for (size_t i = 0; i < cmd->n_projects; i++) {
        names[i] = cmd->projects[i]->name;
    }
    return sort_names(names, cmd->n_projects);
}

static int check_all(struct core *c, const Pb__Configure *cmd)
{
    Pb__PoolRecord *row;
    uint64_t more = 0;

    for (size_t i = 0; i < cmd->n_pools; i++) {
        const int r = pool_prepare(c, cmd->pools[i], &row);
        if (r < 0) {
            return r;
        }
        more += row->id == 0;
    }
    if (tx_count(c->tx, T_POOL) + more > LIMIT_POOLS) {
        return reject(c, -E_LIMIT, "there would be more than %u pools", LIMIT_POOLS);
    }
    for (size_t i = 0; i < cmd->n_projects; i++) {
        const int r = project_prepare(c, cmd->projects[i]);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static void declare_pool(struct core *c, const Pb__PoolSet *set)
{
    const Pb__PoolRecord *before = pool_get(c->tx, set->name);
    Pb__PoolRecord *row;
    const int r = pool_prepare(c, set, &row);

    check(r == 0); /* as in check_all */
    row->declared = true;
    if (before == NULL || !pb_same(&before->base, &row->base)) {
        pool_put(c, row, "declared");
    }
}

static void declare_project(struct core *c, const Pb__ProjectSet *set)
{
    const Pb__ProjectRecord *before = project_open(c, set->name);
    Pb__ProjectRecord *row = (Pb__ProjectRecord *)pb_copy(c->arena, &before->base);

    row->declared = true;
    row->weight = set->weight;
    row->max_running = set->max_running;
    row->default_branch = set->default_branch;
    project_take_protection(row, set);
    if (!pb_same(&before->base, &row->base)) {
        project_put(c, row, "declared");
    }
}

/* What the file does not name any more. It keeps its settings: a pool of one project must not
 * become one of all because a line was deleted. */
static void release_pools(struct core *c, const char *const *names, size_t n)
{
    struct cursor cur;
    Pb__PoolRecord **rows = arena_array(c->arena, LIMIT_POOLS, sizeof(*rows));
    size_t count = 0;

    for (tx_seek(&cur, c->tx, T_POOL, STR_NULL, NULL); cur.valid && count < LIMIT_POOLS;
         tx_next(&cur)) {
        Pb__PoolRecord *row = (Pb__PoolRecord *)pool_get(c->tx, arena_strdup(c->arena, cur.key));
        if (row != NULL && row->declared && !is_among(row->name, names, n)) {
            rows[count++] = row;
        }
    }
    cursor_end(&cur);
    for (size_t i = 0; i < count; i++) {
        rows[i]->declared = false;
        pool_put(c, rows[i], "released");
    }
}

static void release_projects(struct core *c, const char *const *names, size_t n)
{
    struct cursor cur;
    Pb__ProjectRecord **rows = NULL;
    size_t count = 0;
    size_t cap = 0;

    for (tx_seek(&cur, c->tx, T_PROJECT, STR_NULL, NULL); cur.valid; tx_next(&cur)) {
        Pb__ProjectRecord *row = (Pb__ProjectRecord *)project_get(c->tx, key_read_u64(cur.key, 0));
        if (row == NULL || !row->declared || is_among(row->name, names, n)) {
            continue;
        }
        if (count == cap) {
            cap = MAX(2 * cap, 16u);
            rows = xrealloc(rows, cap * sizeof(*rows));
        }
        rows[count++] = row;
    }
    cursor_end(&cur);
    for (size_t i = 0; i < count; i++) {
        rows[i]->declared = false;
        project_put(c, rows[i], "released");
    }
    free(rows);
}

int apply_configure(struct core *c, const Pb__Configure *cmd)
{
    const char **pools = pool_names(c, cmd);
    const char **projects = project_names(c, cmd);
    int r;

    if (pools == NULL || projects == NULL) {
        return reject(c, -E_INVALID, "a pool or a project is declared twice");
    }
    r = check_all(c, cmd);
    r = r < 0 ? r : targets_check(c, cmd->targets, cmd->n_targets);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < cmd->n_pools; i++) {
        declare_pool(c, cmd->pools[i]);
    }
    for (size_t i = 0; i < cmd->n_projects; i++) {
        declare_project(c, cmd->projects[i]);
    }
    release_pools(c, pools, cmd->n_pools);
    release_projects(c, projects, cmd->n_projects);
    targets_declare(c, cmd->targets, cmd->n_targets);
    return 0;
}
