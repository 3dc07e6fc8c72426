#include "common/base.h"

#include "broker/reload.h"

#include <pthread.h>
#include <stdlib.h>

#include "broker/turn_run.h"
#include "common/log.h"

struct reload {
    const struct options_source *source;
    const struct options *started;
    struct options latest; /* without the first reload: nothing of its own */
    bool has_latest;
    struct turn *turn;
    struct https *https;
    pthread_mutex_t lock;
};

struct reload *reload_new(const struct options_source *source, const struct options *started,
                          struct turn *turn, struct https *https)
{
    struct reload *r = xcalloc(1, sizeof(*r));

    r->source = source;
    r->started = started;
    r->turn = turn;
    r->https = https;
    check(pthread_mutex_init(&r->lock, NULL) == 0);
    return r;
}

void reload_free(struct reload *r)
{
    if (r == NULL) {
        return;
    }
    if (r->has_latest) {
        options_release(&r->latest);
    }
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void reload_result_release(struct reload_result *r)
{
    buf_release(&r->changed);
    buf_release(&r->restart);
    buf_release(&r->why);
}

static int declare(struct reload *r, const struct options *o, struct buf *why)
{
    struct post *p = post_new("configuration");
    struct reply reply = {0};

    post_command(p)->body_case = PB__COMMAND__BODY_CONFIGURE;
    post_command(p)->configure = (Pb__Configure *)pb_copy(post_arena(p), &o->declared->base);
    int result = turn_call(r->turn, p, &reply);
    if (result < 0) {
        buf_addf(why, "the configuration was refused: %s\n",
                 reply.text[0] != '\0' ? reply.text : err_text(result));
    }
    return result;
}

int reload_declare(struct reload *r, struct buf *why)
{
    return declare(r, r->started, why);
}

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static const Pb__PoolSet *find_pool(const Pb__Configure *c, const char *name)
{
    for (size_t i = 0; i < c->n_pools; i++) {
        if (strcmp(c->pools[i]->name, name) == 0) {
            return c->pools[i];
        }
    }
    return NULL;
}

static const Pb__ProjectSet *find_project(const Pb__Configure *c, const char *name)
{
    for (size_t i = 0; i < c->n_projects; i++) {
        if (strcmp(c->projects[i]->name, name) == 0) {
            return c->projects[i];
        }
    }
    return NULL;
}

static const Pb__RolloutTarget *find_target(const Pb__Configure *c, const Pb__RolloutTarget *t)
{
    for (size_t i = 0; i < c->n_targets; i++) {
        if (strcmp(c->targets[i]->name, t->name) == 0 &&
            strcmp(c->targets[i]->environment, t->environment) == 0) {
            return c->targets[i];
        }
    }
    return NULL;
}

static void compare_targets(const Pb__Configure *old, const Pb__Configure *new, struct buf *out)
{
    for (size_t i = 0; i < new->n_targets; i++) {
        const Pb__RolloutTarget *t = new->targets[i];
        const Pb__RolloutTarget *before = find_target(old, t);
        if (before == NULL || !pb_same(&before->base, &t->base)) {
            buf_addf(out, "target %s/%s\n", t->environment, t->name);
        }
    }
    for (size_t i = 0; i < old->n_targets; i++) {
        if (find_target(new, old->targets[i]) == NULL) {
            buf_addf(out, "target %s/%s, no longer declared\n", old->targets[i]->environment,
                     old->targets[i]->name);
        }
    }
}

static void compare_declared(const Pb__Configure *old, const Pb__Configure *new, struct buf *out)
{
    for (size_t i = 0; i < new->n_pools; i++) {
        const Pb__PoolSet *before = find_pool(old, new->pools[i]->name);
        if (before == NULL || !pb_same(&before->base, &new->pools[i]->base)) {
            buf_addf(out, "pool %s\n", new->pools[i]->name);
        }
    }
    for (size_t i = 0; i < old->n_pools; i++) {
        if (find_pool(new, old->pools[i]->name) == NULL) {
            buf_addf(out, "pool %s, no longer declared\n", old->pools[i]->name);
        }
    }
    for (size_t i = 0; i < new->n_projects; i++) {
        const Pb__ProjectSet *before = find_project(old, new->projects[i]->name);
        if (before == NULL || !pb_same(&before->base, &new->projects[i]->base)) {
            buf_addf(out, "project %s\n", new->projects[i]->name);
        }
    }
    for (size_t i = 0; i < old->n_projects; i++) {
        if (find_project(new, old->projects[i]->name) == NULL) {
            buf_addf(out, "project %s, no longer declared\n", old->projects[i]->name);
        }
    }
}

/* A new start would take all of them; of the others the latest reload has. */
static void compare(const struct reload *r, const struct options *latest, const struct options *new,
                    struct reload_result *ret)
{
    for (enum option_id i = 0; i < OPTION_COUNT; i++) {
        const struct option_info *info = option_info(i);
        const bool restart = info->change == OPTION_RESTART;
        if (!same_text((restart ? r->started : latest)->said[i], new->said[i])) {
            buf_addf(restart ? &ret->restart : &ret->changed, "%s\n", info->name);
        }
    }
    compare_declared(latest->declared, new->declared, &ret->changed);
    compare_targets(latest->declared, new->declared, &ret->changed);
}

/* All that can be wrong before something is changed; the certificate is NULL where none is given.
 */
static int load(struct reload *r, struct options *ret, struct https_shown **ret_shown,
                struct buf *why)
{
    struct served served = {0};
    struct https_shown *shown = NULL;
    int result = options_load(r->source, ret, why);

    if (result < 0) {
        return result;
    }
    result = served_load(ret, &served, why);
    if (result == 0 && r->https != NULL && served.chain.n > 0) {
        result = https_load(&served, &shown, why);
    }
    if (result < 0) {
        options_release(ret);
    } else {
        *ret_shown = shown;
    }
    served_release(&served);
    return result;
}

static int run(struct reload *r, struct reload_result *ret)
{
    const struct options *latest = r->has_latest ? &r->latest : r->started;
    struct https_shown *shown = NULL;
    struct options new;
    int result = load(r, &new, &shown, &ret->why);

    if (result < 0) {
        return result;
    }
    result = declare(r, &new, &ret->why);
    if (result < 0) {
        https_shown_free(shown);
        options_release(&new);
        return result;
    }
    compare(r, latest, &new, ret);
    if (r->https != NULL && https_show(r->https, shown)) {
        buf_addz(&ret->changed, "certificate of the API\n");
    }
    turn_keep_pipelines(r->turn, new.keep_pipelines_ms);
    log_set_level(new.log_level);
    if (r->has_latest) {
        options_release(&r->latest);
    }
    r->latest = new;
    r->has_latest = true;
    return 0;
}

static void tell(const struct reload_result *ret, int result)
{
    const struct {
        const struct buf *lines;
        enum log_level level;
        const char *text;
    } parts[] = {{&ret->why, LOG_ERROR, "not reloaded: "},
                 {&ret->changed, LOG_INFO, "reloaded: "},
                 {&ret->restart, LOG_WARN, "waits for a restart: "}};

    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        struct str rest = buf_str(parts[i].lines);
        struct str line;
        while (str_split(&rest, '\n', &line)) {
            if (line.n > 0) {
                log_write(parts[i].level, "main: %s" STR_FMT, parts[i].text, STR_ARG(line));
            }
        }
    }
    if (result == 0 && ret->changed.n == 0) {
        log_info("main: reloaded: nothing is another");
    }
}

int reload_check(struct reload *r, struct reload_result *ret)
{
    struct https_shown *shown = NULL;
    struct options new;
    int result = -E_CONFLICT;

    *ret = (struct reload_result){0};
    if (r->source->file == NULL) {
        return result;
    }
    pthread_mutex_lock(&r->lock);
    result = load(r, &new, &shown, &ret->why);
    https_shown_free(shown);
    if (result == 0) {
        compare(r, r->has_latest ? &r->latest : r->started, &new, ret);
        options_release(&new);
    }
    pthread_mutex_unlock(&r->lock);
    return result;
}

int reload_run(struct reload *r, struct reload_result *ret)
{
    int result = -E_CONFLICT;

    *ret = (struct reload_result){0};
    pthread_mutex_lock(&r->lock);
    if (r->source->file == NULL) {
        buf_addz(&ret->why, "this broker was started without --config: there is no file to read\n");
    } else {
        result = run(r, ret);
    }
    pthread_mutex_unlock(&r->lock);
    tell(ret, result);
    return result;
}
