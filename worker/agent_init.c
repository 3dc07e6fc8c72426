/* The state folder: taken, and the jobs in it with it. */
#include "common/base.h"

#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#include "common/os.h"
#include "common/tls_engine.h"
#include "worker/agent.h"
#include "worker/driver/driver.h"
#include "worker/exec/prepared.h"

struct names {
    char **items;
    size_t count;
};

static void add_name(void *ctx, const char *name)
{
    struct names *names = ctx;
    names->items = xrealloc(names->items, (names->count + 1) * sizeof(char *));
    names->items[names->count++] = xstrdup(name);
}

static int adopt_jobs(struct agent *a)
{
    struct names names = {0};
    int r = os_list_dir(a->jobs_dir, add_name, &names);
    for (size_t i = 0; i < names.count; i++) {
        held_adopt(a, names.items[i]);
        free(names.items[i]);
    }
    free(names.items);
    return r;
}

static void refer(const struct name_list *list, char ***ret, size_t *ret_count)
{
    *ret = list->names;
    *ret_count = list->count;
}

/* What the programs need that ask the Docker Engine, in STATE/engine.pb for the sweep. */
static int set_engine(struct agent *a, const char *state)
{
    const struct docker_config *d = &a->config->docker;
    char hex[2 * UID_BYTES + 1];
    if (!worker_config_has_executor(a->config, "docker")) {
        return 0;
    }
    Pb__EngineSettings *e = arena_alloc(&a->arena, sizeof(*e));
    pb__engine_settings__init(e);
    str_to_hex(a->uid, UID_BYTES, hex);
    e->socket = d->socket;
    e->worker = arena_strdup(&a->arena, str_from(hex));
    e->jobs_dir = a->jobs_dir;
    e->shim_program = a->static_shim;
    e->default_image = d->image != NULL ? d->image : e->default_image;
    e->auth_file = d->auth != NULL ? d->auth : e->auth_file;
    refer(&d->pull, &e->pull_policies, &e->n_pull_policies);
    refer(&d->allow_pull, &e->allowed_pull_policies, &e->n_allowed_pull_policies);
    refer(&d->allow_images, &e->allowed_images, &e->n_allowed_images);
    refer(&d->allow_services, &e->allowed_services, &e->n_allowed_services);
    refer(&d->volumes, &e->volumes, &e->n_volumes);
    e->privileged = d->privileged;
    e->cpu_millis = d->cpu_millis;
    e->memory_bytes = d->memory_bytes;
    e->pids = d->pids;
    e->service_wait_ms = d->service_wait_s * 1000;
    e->cancel_grace_ms = a->config->cancel_grace_ms;
    a->engine = e;
    return prepared_write_file(state, "engine.pb", &e->base);
}

static int take_state(struct agent *a, struct buf *why)
{
    const char *wanted = a->config->state;
    int r = os_mkdir_p(wanted, 0700);
    char *state = r == 0 ? os_absolute_path(wanted) : NULL;
    if (state == NULL) {
        buf_addf(why, "cannot make the state folder %s: %s", wanted, err_text(r));
        return r < 0 ? r : -E_IO;
    }
    a->sandbox.state = arena_strdup(&a->arena, str_from(state));
    a->state_dir = xstrdup(state);
    a->jobs_dir = os_path_join(state, "jobs");
    a->builds_dir = os_path_join(state, "builds");
    a->cache_dir = os_path_join(state, "cache");
    r = uid_lock(state, &a->lock_fd, why);
    r = r < 0 ? r : uid_load(state, a->uid, why);
    if (r == 0) {
        if ((r = os_mkdir_p(a->jobs_dir, 0700)) < 0 || (r = os_mkdir_p(a->builds_dir, 0700)) < 0 ||
            (r = os_mkdir_p(a->cache_dir, 0700)) < 0 || (r = set_engine(a, state)) < 0) {
            buf_addf(why, "cannot use the state folder %s: %s", state, err_text(r));
        }
    }
    free(state);
    return r;
}

static void set_sandbox(struct agent *a)
{
    const struct sandbox_config *c = &a->config->sandbox;
    a->sandbox = (struct sandbox_settings){
        .network = c->network,
        .hidden = {a->config->token_file, a->config->docker.auth},
    };
    refer(&c->read, &a->sandbox.read, &a->sandbox.n_read);
    refer(&c->write, &a->sandbox.write, &a->sandbox.n_write);
}

static int find_programs(struct agent *a, struct buf *why)
{
    a->shim_program = os_find_program("davit-shim");
    a->step_program = os_find_program("davit-worker");
    /* Under a sanitizer the shim is not static, and has a sister that is. */
    a->static_shim = os_find_program("davit-shim-static");
    if (a->static_shim == NULL) {
        a->static_shim = os_find_program("davit-shim");
    }
    if (a->shim_program == NULL || a->step_program == NULL) {
        buf_addz(why, "davit-shim or davit-worker is not where this program is; set DAVIT_BIN_DIR");
        return -E_NOT_FOUND;
    }
    return 0;
}

static int check_executors(const struct agent *a, struct buf *why)
{
    struct exec_context cx = {.engine = a->engine, .sandbox = &a->sandbox};
    for (size_t i = 0; i < a->config->executors.count; i++) {
        const char *name = a->config->executors.names[i];
        size_t start = why->n;
        if (action_is_executor(name)) {
            continue; /* it needs nothing */
        }
        buf_addf(why, "executor `%s` cannot be used here: ", name);
        if (!executor_by_name(name)->usable(&cx, why)) {
            return -E_UNSUPPORTED;
        }
        buf_truncate(why, start);
    }
    return 0;
}

/* What it does without processes, and by which drivers. */
static void set_actions(struct agent *a)
{
    const struct name_list *names = &a->config->executors;
    size_t count;
    const struct driver *const *drivers = driver_list(&count);
    const bool drives = worker_config_has_executor(a->config, "action");
    if (!drives && a->config->prefork_count == 0) {
        return;
    }
    a->actions = actions_new(a->loop, &a->config->reach, a->state_dir);
    a->executors = arena_array(&a->arena, names->count + count + a->config->prefork_count,
                               sizeof(char *));
    for (size_t i = 0; i < names->count; i++) {
        a->executors[a->executor_count++] = names->names[i];
    }
    for (size_t i = 0; i < count && drives; i++) {
        a->executors[a->executor_count++] = arena_printf(&a->arena, "action/%s", drivers[i]->name);
    }
    prefork_sweep(a->state_dir);
    for (size_t i = 0; i < a->config->prefork_count; i++) {
        const struct prefork_config *pool = &a->config->preforks[i];
        actions_add_pool(a->actions, pool, a->config->prefork_jobs);
        a->executors[a->executor_count++] = arena_printf(&a->arena, "prefork/%s", pool->name);
    }
}

static char *join_names(const struct name_list *list)
{
    struct buf text = BUF_INIT;
    for (size_t i = 0; i < list->count; i++) {
        buf_addf(&text, "%s%s", i > 0 ? ", " : "", list->names[i]);
    }
    (void)buf_cstr(&text);
    return buf_take(&text);
}

/* What was not said is what the machine has. */
static void set_resources(struct agent *a)
{
    uint32_t processors;
    uint64_t memory_bytes, free_bytes = 0, total_bytes;
    os_machine(&processors, &memory_bytes);
    (void)os_disk_free(a->jobs_dir, &free_bytes, &total_bytes);
    const struct worker_config *c = a->config;
    a->cpu_millis = c->cpu_millis != 0 ? c->cpu_millis : processors * 1000u;
    a->memory_bytes = c->memory_bytes != 0 ? c->memory_bytes : memory_bytes;
    a->disk_bytes = c->disk_bytes != 0 ? c->disk_bytes : free_bytes;
}

static int set_tls(struct agent *a, struct buf *why)
{
    const struct worker_config *c = a->config;
    if (!link_url_tls(c->broker)) {
        return 0;
    }
    a->tls_host = link_url_host(c->broker);
    struct tls_config tls = identity_tls(c->identity, a->tls_host);
    int r = tls_engine_start(why);
    r = r < 0 ? r : tls_new(&tls, &a->tls, why);
    a->session.tls = a->tls;
    return r;
}

int agent_init(struct agent *a, const struct worker_config *config, struct buf *why)
{
    *a = (struct agent){.config = config, .lock_fd = -1, .was_taking_work = true};
    (void)os_raise_open_files(&a->open_files); /* a job takes several; 1,024 are soon gone */
    arena_init(&a->arena, 0);
    a->host = os_hostname();
    a->tags_text = join_names(&config->tags);
    a->loop = agent_loop_new(a);
    if (a->loop == NULL) {
        buf_addz(why, "cannot make an event loop");
        return -E_IO;
    }
    int r = find_programs(a, why);
    set_sandbox(a);
    r = r < 0 ? r : set_tls(a, why);
    r = r < 0 ? r : take_state(a, why);
    if (r == 0) {
        set_resources(a);
        set_actions(a);
        r = adopt_jobs(a);
        if (r < 0) {
            buf_addf(why, "cannot read %s: %s", a->jobs_dir, err_text(r));
        }
    }
    if (r == 0 && a->jobs == NULL) {
        /* With jobs in hand it starts in any case, and at once: they are lost to a broker that does
         * not hear of them, and a Docker Engine may take its time to answer. */
        r = check_executors(a, why);
    }
    return r;
}

void agent_release(struct agent *a)
{
    struct held *h, *next;
    if (a->loop != NULL) {
        session_release(&a->session);
        HASH_CLEAR(hh, a->actions_by_job);
        DL_FOREACH_SAFE (a->jobs, h, next) {
            held_free(h);
        }
        DL_FOREACH_SAFE (a->quiet, h, next) {
            held_free(h);
        }
        actions_free(a->actions);
        loop_free(a->loop);
    }
    tls_free(a->tls);
    renewal_drop(&a->renewal);
    free(a->tls_host);
    if (a->lock_fd >= 0) {
        close(a->lock_fd);
    }
    buf_release(&a->chunk);
    arena_release(&a->arena);
    free(a->static_shim);
    free(a->host);
    free(a->tags_text);
    free(a->state_dir);
    free(a->jobs_dir);
    free(a->builds_dir);
    free(a->cache_dir);
    free(a->shim_program);
    free(a->step_program);
}
