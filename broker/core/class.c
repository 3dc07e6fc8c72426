#include "common/base.h"

#include "broker/core/apply.h"
#include "common/crypto.h"

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

uint64_t class_open(struct core *c, const Pb__PlanJob *plan, bool protected)
{
    Pb__ClassRecord class = PB__CLASS_RECORD__INIT;
    uint8_t hash[SHA256_BYTES];
    struct key by_hash, k, id;
    struct str found;

    class.executor = plan->executor;
    class.tags = plan->tags;
    class.n_tags = plan->n_tags;
    class.pool = plan->pool;
    class.protected_ = protected;
    class.cpu_millis = plan->cpu_millis;
    class.memory_bytes = plan->memory_bytes;
    class.disk_bytes = plan->disk_bytes;
    class_hash(&class, hash);
    by_hash = key_bytes(hash, sizeof(hash));
    if (tx_get(c->tx, T_CLASS_HASH, &by_hash, &found)) {
        return key_read_u64(found, 0);
    }
    class.id = core_new_id(c);
    k = id = key_u64(class.id);
    tx_put_msg(c->tx, T_CLASS, &k, &class.base);
    tx_put(c->tx, T_CLASS_HASH, &by_hash, key_str(&id));
    return class.id;
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
    if (class->executor[0] != '\0' && !has(w->executors, w->n_executors, class->executor)) {
        return false;
    }
    for (size_t i = 0; i < class->n_tags; i++) {
        if (!has(w->tags, w->n_tags, class->tags[i])) {
            return false;
        }
    }
    return class->n_tags > 0 || w->run_untagged;
}
