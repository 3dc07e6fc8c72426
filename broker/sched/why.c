#include "common/base.h"

#include "broker/core/query.h"
#include "broker/sched/sched.h"

static bool listed(char *const *list, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], word) == 0) {
            return true;
        }
    }
    return false;
}

static const char *mismatch(struct arena *a, const Pb__WorkerRecord *w,
                            const Pb__ClassRecord *class)
{
    struct buf b = BUF_INIT;
    const char *text;

    if (class->executor[0] != '\0' && !listed(w->executors, w->n_executors, class->executor)) {
        return arena_printf(a, "no executor %s", class->executor);
    }
    if (class->n_tags == 0) {
        return "runs no untagged jobs";
    }
    buf_addz(&b, "missing tags: ");
    for (size_t i = 0, n = 0; i < class->n_tags; i++) {
        if (!listed(w->tags, w->n_tags, class->tags[i])) {
            buf_addf(&b, "%s%s", n++ > 0 ? ", " : "", class->tags[i]);
        }
    }
    text = arena_strdup(a, buf_str(&b));
    buf_release(&b);
    return text;
}

static const char *reason(struct tx *tx, const Pb__WorkerRecord *w, const Pb__ClassRecord *class,
                          bool online)
{
    if (!worker_serves(w, class)) {
        return mismatch(tx_arena(tx), w, class);
    }
    if (!online) {
        return "offline";
    }
    if (w->paused) {
        return "paused";
    }
    if (w->draining) {
        return "draining";
    }
    return worker_job_count(tx, w->id) >= w->slots ? "no free slot" : "can take it";
}

/* Its place among the ready jobs of its class: a count from the front of the line. */
static uint64_t position(struct tx *tx, const Pb__JobRecord *job)
{
    const struct key prefix = key_u64(job->class_id);
    struct cursor cur;
    uint64_t n = 0, found = 0;

    if (job->state != JOB_PENDING) {
        return 0;
    }
    for (tx_seek(&cur, tx, T_READY, key_str(&prefix), NULL); cur.valid && found == 0;
         tx_next(&cur)) {
        n++;
        if (key_read_u64(cur.key, cur.key.n - sizeof(uint64_t)) == job->id) {
            found = n;
        }
    }
    cursor_end(&cur);
    return found;
}

size_t sched_why(struct tx *tx, const Pb__JobRecord *job,
                 bool (*online)(void *ctx, uint64_t worker_id), void *ctx, struct sched_why *ret,
                 size_t max, uint64_t *ret_position, bool *ret_never)
{
    const Pb__ClassRecord *class = class_get(tx, job->class_id);
    struct cursor cur;
    size_t n = 0;
    bool never = true;

    for (tx_seek(&cur, tx, T_WORKER, STR_NULL, NULL); cur.valid && class != NULL; tx_next(&cur)) {
        const uint64_t id = key_read_u64(cur.key, 0);
        const Pb__WorkerRecord *w = worker_get(tx, id);
        if (w == NULL) {
            break; /* the tx failed */
        }
        never = never && !worker_serves(w, class);
        if (n < max) {
            ret[n++] = (struct sched_why){
                .worker_id = id,
                .worker = w->name,
                .reason = reason(tx, w, class, online(ctx, id)),
            };
        }
    }
    cursor_end(&cur);
    *ret_position = position(tx, job);
    *ret_never = never;
    return n;
}
