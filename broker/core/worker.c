#include "common/base.h"

#include "broker/core/apply.h"
#include "common/limits.h"

#include <stdlib.h>

#define WORKER_UID_BYTES 16u

static bool names_ok(char *const *names, size_t n, size_t limit)
{
    if (n > limit) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!name_ok(names[i])) {
            return false;
        }
    }
    return true;
}

static int hello_check(struct core *c, const Pb__WorkerHello *cmd)
{
    if (cmd->uid.len != WORKER_UID_BYTES) {
        return reject(c, -E_INVALID, "a worker's uid has %u bytes", WORKER_UID_BYTES);
    }
    if (!name_ok(cmd->name) || !text_ok(cmd->pool, LIMIT_NAME) ||
        !text_ok(cmd->version, LIMIT_NAME) || !text_ok(cmd->host, LIMIT_NAME)) {
        return reject(c, -E_INVALID, "bad name, pool, version or host of the worker");
    }
    if (cmd->n_executors == 0 || !names_ok(cmd->executors, cmd->n_executors, LIMIT_TAGS) ||
        !names_ok(cmd->tags, cmd->n_tags, LIMIT_TAGS)) {
        return reject(c, -E_INVALID, "bad executors or tags of the worker");
    }
    if (cmd->slots == 0 || cmd->slots > LIMIT_WORKER_SLOTS) {
        return reject(c, -E_INVALID, "a worker has 1 to %u slots", LIMIT_WORKER_SLOTS);
    }
    if (cmd->actions > LIMIT_WORKER_ACTIONS) {
        return reject(c, -E_INVALID, "a worker has at most %u actions", LIMIT_WORKER_ACTIONS);
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A sorted copy without repeats. */
static char **sorted(struct core *c, char *const *names, size_t n, size_t *ret_n)
{
    char **copy = arena_array(c->arena, n + 1, sizeof(*copy));
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        copy[i] = names[i];
    }
    qsort(copy, n, sizeof(*copy), compare);
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || strcmp(copy[kept - 1], copy[i]) != 0) {
            copy[kept++] = copy[i];
        }
    }
    *ret_n = kept;
    return copy;
}

static void worker_event(struct core *c, const Pb__WorkerRecord *w, const char *to)
{
    event_add(c,
              &(struct event){.kind = EVENT_WORKER, .worker_id = w->id, .to = to, .name = w->name});
}

static void worker_put(struct core *c, const Pb__WorkerRecord *w)
{
    const struct key k = key_u64(w->id);

    tx_put_msg(c->tx, T_WORKER, &k, &w->base);
}

/* The worker of that uid, or a new one. */
static Pb__WorkerRecord *worker_open(struct core *c, struct str uid)
{
    const struct key by_uid = key_bytes(uid.p, uid.n);
    Pb__WorkerRecord *w;
    struct str found;
    struct key id;

    if (tx_get(c->tx, T_WORKER_UID, &by_uid, &found)) {
        const struct key k = key_u64(key_read_u64(found, 0));
        return (Pb__WorkerRecord *)core_row(c, T_WORKER, &k, &pb__worker_record__descriptor);
    }
    w = arena_alloc(c->arena, sizeof(*w));
    pb__worker_record__init(w);
    w->id = core_new_id(c);
    w->uid = pb_bytes(c->arena, uid);
    w->first_seen_ms = c->now_ms;
    id = key_u64(w->id);
    tx_put(c->tx, T_WORKER_UID, &by_uid, key_str(&id));
    return w;
}

/* A worker says who it is and what it can. The session's number ends every older session of it. */
int apply_worker_hello(struct core *c, const Pb__WorkerHello *cmd)
{
    Pb__WorkerRecord *w;
    Pb__WorkerHello hello = *cmd; /* a certificate may add to it */
    uint64_t until_ms = 0;
    int r = hello_check(c, cmd);

    if (r == 0 && cmd->serial.len > 0) {
        r = member_admit(c, &hello, &until_ms);
        cmd = &hello;
    }
    if (r < 0) {
        return r;
    }
    w = worker_open(c, pb_str(cmd->uid));
    w->name = cmd->name;
    w->pool = cmd->pool;
    w->executors = sorted(c, cmd->executors, cmd->n_executors, &w->n_executors);
    w->tags = sorted(c, cmd->tags, cmd->n_tags, &w->n_tags);
    w->slots = cmd->slots;
    w->actions = cmd->actions;
    w->run_untagged = cmd->run_untagged;
    w->version = cmd->version;
    w->host = cmd->host;
    w->cpu_millis = cmd->cpu_millis;
    w->memory_bytes = cmd->memory_bytes;
    w->disk_bytes = cmd->disk_bytes;
    w->certified_until_ms = until_ms;
    w->revoked = false;
    w->session = c->meta->next_session++;
    w->last_hello_ms = c->now_ms;
    worker_put(c, w);
    worker_event(c, w, "connected");
    c->reply->worker_id = w->id;
    c->reply->session = w->session;
    return 0;
}

int apply_worker_set(struct core *c, const Pb__WorkerSet *cmd)
{
    Pb__WorkerRecord *w = (Pb__WorkerRecord *)worker_get(c->tx, cmd->worker_id);

    if (w == NULL) {
        return reject(c, -E_NOT_FOUND, "no worker %" PRIu64, cmd->worker_id);
    }
    if (cmd->drain_for_ms > LIMIT_TIMEOUT_MS) {
        return reject(c, -E_LIMIT, "the time for draining is too long");
    }
    if (cmd->has_paused && cmd->paused != w->paused) {
        w->paused = cmd->paused;
        worker_event(c, w, w->paused ? "paused" : "resumed");
    }
    if (cmd->has_draining && cmd->draining != w->draining) {
        w->draining = cmd->draining;
        worker_event(c, w, w->draining ? "draining" : "undrained");
    }
    if (cmd->has_draining) { /* said again it may have another time, or none */
        w->leave = w->draining && cmd->leave;
        worker_drain_timer_clear(c, w);
        if (w->draining && cmd->drain_for_ms > 0) {
            worker_drain_timer_set(c, w, c->now_ms + cmd->drain_for_ms);
        }
    }
    worker_put(c, w);
    effect_add(c->fx, (struct effect){.kind = EFFECT_WORKER, .worker_id = w->id});
    c->reply->worker_id = w->id;
    return 0;
}
