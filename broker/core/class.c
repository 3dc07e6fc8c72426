#include "common/base.h"

#include "broker/core/apply.h"
#include "common/crypto.h"
#include "common/limits.h"

#include <stdlib.h>

/* Lengths before the texts keep different requirements apart. */
static void class_hash(const Pb__ClassRecord *class, uint8_t ret[SHA256_BYTES])
{
    struct buf b = BUF_INIT;

    buf_addf(&b, "%zu:%s", strlen(class->executor), class->executor);
    for (size_t i = 0; i < class->n_tags; i++) {
        buf_addf(&b, "%zu:%s", strlen(class->tags[i]), class->tags[i]);
    }
    buf_addf(&b, ";%zu:%s;%d;%u;%" PRIu64 ";%" PRIu64, strlen(class->pool), class->pool,
             class->protected_, class->cpu_millis, class->memory_bytes, class->disk_bytes);
    crypto_sha256(b.p, b.n, ret);
    buf_release(&b);
}

/* Containers are the docker executor's; a job that names another one all the same is told by it. */
static char *executor_of(struct core *c, const Pb__PlanJob *plan)
{
    static char docker[] = "docker";
    const bool contained = plan->image != NULL || plan->n_services > 0;

    if (plan->action != NULL) {
        return action_executor(c->arena, plan->action);
    }
    return plan->executor[0] == '\0' && contained ? docker : plan->executor;
}

static Pb__ClassRecord class_of_plan(struct core *c, const Pb__PlanJob *plan, bool protected)
{
    Pb__ClassRecord class = PB__CLASS_RECORD__INIT;

    class.executor = executor_of(c, plan);
    class.tags = plan->tags;
    class.n_tags = plan->n_tags;
    class.pool = plan->pool;
    class.protected_ = protected;
    class.cpu_millis = plan->cpu_millis;
    class.memory_bytes = plan->memory_bytes;
    class.disk_bytes = plan->disk_bytes;
    return class;
}

struct class_hash {
    uint8_t bytes[SHA256_BYTES];
};

static int by_hash(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct class_hash));
}

/* Whether some job names the class of that hash already. */
static bool is_in_use(struct core *c, const struct class_hash *h)
{
    const struct key k = key_bytes(h->bytes, sizeof(h->bytes));
    const Pb__ClassRecord *class;
    struct str id;

    if (!tx_get(c->tx, T_CLASS_HASH, &k, &id)) {
        return false;
    }
    class = class_get(c->tx, key_read_u64(id, 0));
    return class != NULL && class->jobs > 0;
}

/* Those that are idle count as free: they go when there is need. */
int classes_check(struct core *c, Pb__PlanJob *const *jobs, size_t count, bool protected)
{
    const uint64_t used = tx_count(c->tx, T_CLASS) - tx_count(c->tx, T_CLASS_IDLE);
    struct class_hash *hashes;
    uint64_t more = 0;
    size_t n = 0;

    if (used + count <= LIMIT_CLASSES) {
        return 0;
    }
    hashes = arena_array(c->arena, count, sizeof(*hashes));
    for (size_t i = 0; i < count; i++) {
        const Pb__ClassRecord class = class_of_plan(c, jobs[i], protected);
        if (jobs[i]->trigger == NULL && jobs[i]->rollout == NULL) {
            class_hash(&class, hashes[n++].bytes);
        }
    }
    qsort(hashes, n, sizeof(*hashes), by_hash);
    for (size_t i = 0; i < n; i++) {
        more += (i == 0 || by_hash(&hashes[i - 1], &hashes[i]) != 0) && !is_in_use(c, &hashes[i]);
    }
    if (used + more > LIMIT_CLASSES) {
        return reject(c, -E_LIMIT,
                      "jobs ask for more than %u different sets of executor, tags, pool, cpu, "
                      "memory and disk",
                      LIMIT_CLASSES);
    }
    return tx_error(c->tx);
}

static struct key idle_key(const Pb__ClassRecord *class)
{
    return key_u64_u64(class->idle_ms, class->id);
}

static void forget(struct core *c, const Pb__ClassRecord *class)
{
    const struct key id = key_u64(class->id), idle = idle_key(class);
    uint8_t hash[SHA256_BYTES];
    struct key k;

    check(class->jobs == 0 || !tx_ok(c->tx));
    class_hash(class, hash);
    k = key_bytes(hash, sizeof(hash));
    tx_del(c->tx, T_CLASS_HASH, &k);
    tx_del(c->tx, T_CLASS_IDLE, &idle);
    tx_del(c->tx, T_CLASS, &id);
}

/* NULL: every class is named by some job. */
static const Pb__ClassRecord *oldest_idle(struct core *c)
{
    struct key k;

    if (!tx_first_key(c->tx, T_CLASS_IDLE, STR_NULL, &k)) {
        return NULL;
    }
    k = key_u64(key_read_u64(key_str(&k), sizeof(uint64_t)));
    return (const Pb__ClassRecord *)core_row(c, T_CLASS, &k, &pb__class_record__descriptor);
}

bool class_expire(struct core *c)
{
    const Pb__ClassRecord *class = oldest_idle(c);

    if (class == NULL || !tx_ok(c->tx) || class->idle_ms + CORE_KEEP_CLASS_MS > c->now_ms) {
        return false;
    }
    forget(c, class);
    return true;
}

static void make_room(struct core *c)
{
    while (tx_ok(c->tx) && tx_count(c->tx, T_CLASS) >= LIMIT_CLASSES) {
        const Pb__ClassRecord *class = oldest_idle(c);
        check(class != NULL || !tx_ok(c->tx)); /* classes_check has seen that there is room */
        if (class != NULL) {
            forget(c, class);
        }
    }
}

static Pb__ClassRecord *use(struct core *c, Pb__ClassRecord *row)
{
    struct class_use *u = arena_alloc(c->arena, sizeof(*u));

    u->row = row;
    u->next = c->classes[row->id % CLASS_USE_BUCKETS];
    c->classes[row->id % CLASS_USE_BUCKETS] = u;
    return row;
}

/* Its row as this command has counted so far. */
static Pb__ClassRecord *used(struct core *c, uint64_t class_id)
{
    const struct key k = key_u64(class_id);
    const struct class_use *u = c->classes[class_id % CLASS_USE_BUCKETS];

    while (u != NULL && u->row->id != class_id) {
        u = u->next;
    }
    return u != NULL
               ? u->row
               : use(c, (Pb__ClassRecord *)core_row(c, T_CLASS, &k, &pb__class_record__descriptor));
}

static void put(struct core *c, const Pb__ClassRecord *class)
{
    const struct key k = key_u64(class->id);

    tx_put_msg(c->tx, T_CLASS, &k, &class->base);
}

/* The job that it is opened for counts it next. */
uint64_t class_open(struct core *c, const Pb__PlanJob *plan, bool protected)
{
    Pb__ClassRecord *class = arena_alloc(c->arena, sizeof(*class));
    uint8_t hash[SHA256_BYTES];
    struct key by_hash, id;
    struct str found;

    *class = class_of_plan(c, plan, protected);
    class_hash(class, hash);
    by_hash = key_bytes(hash, sizeof(hash));
    if (tx_get(c->tx, T_CLASS_HASH, &by_hash, &found)) {
        return key_read_u64(found, 0);
    }
    make_room(c);
    class->id = core_new_id(c);
    id = key_u64(class->id);
    put(c, class);
    tx_put(c->tx, T_CLASS_HASH, &by_hash, key_str(&id));
    use(c, class);
    return class->id;
}

void class_count(struct core *c, uint64_t class_id, int jobs, int unfinished)
{
    Pb__ClassRecord *class;

    if (class_id == 0) {
        return;
    }
    class = used(c, class_id);
    if (class->idle_ms != 0 && jobs > 0) { /* at once: nobody may find it idle now */
        const struct key idle = idle_key(class);
        tx_del(c->tx, T_CLASS_IDLE, &idle);
        class->idle_ms = 0;
    }
    class->jobs += (uint64_t)(int64_t)jobs;
    class->unfinished += (uint64_t)(int64_t)unfinished;
    check(class->unfinished <= class->jobs || !tx_ok(c->tx));
}

void classes_close(struct core *c)
{
    for (size_t i = 0; i < CLASS_USE_BUCKETS; i++) {
        for (const struct class_use *u = c->classes[i]; u != NULL; u = u->next) {
            Pb__ClassRecord *class = u->row;
            if (class->jobs == 0 && class->idle_ms == 0) {
                struct key idle;
                class->idle_ms = c->now_ms;
                idle = idle_key(class);
                tx_put(c->tx, T_CLASS_IDLE, &idle, STR_NULL);
            }
            put(c, class);
        }
        c->classes[i] = NULL;
    }
}

static bool has(char *const *list, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], word) == 0) {
            return true;
        }
    }
    return false;
}

bool worker_serves(const Pb__WorkerRecord *w, const Pb__ClassRecord *class)
{
    if (class->executor[0] == '\0' ? !worker_runs_processes(w)
                                   : !has(w->executors, w->n_executors, class->executor)) {
        return false;
    }
    for (size_t i = 0; i < class->n_tags; i++) {
        if (!has(w->tags, w->n_tags, class->tags[i])) {
            return false;
        }
    }
    return class->n_tags > 0 || w->run_untagged;
}
