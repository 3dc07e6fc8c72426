#include "common/base.h"

#include "broker/core/audit.h"
#include "common/crypto.h"
#include "common/limits.h"

#include <stdarg.h>
#include <stdlib.h>

void breach(struct audit *a, const char *fmt, ...)
{
    struct buf b = BUF_INIT;
    va_list ap;

    va_start(ap, fmt);
    buf_vaddf(&b, fmt, ap);
    va_end(ap);
    a->breaches++;
    a->fn(a->ctx, buf_cstr(&b));
    buf_release(&b);
}

ProtobufCMessage *audit_row(struct audit *a, enum table t, const struct key *k,
                            const ProtobufCMessageDescriptor *desc, bool count)
{
    ProtobufCMessage *m;
    struct str v;

    a->expected[t] += count;
    if (!tx_get(a->tx, t, k, &v) || pb_unpack(&a->scratch, desc, v.p, v.n, LIMIT_COMMAND, &m) < 0) {
        breach(a, "%s: a row is missing or damaged", table_name(t));
        return NULL;
    }
    return m;
}

void audit_index(struct audit *a, enum table t, const struct key *k, bool wanted, uint64_t owner)
{
    a->expected[t] += wanted;
    if (tx_has(a->tx, t, k) != wanted) {
        breach(a, "%s: %s row of %" PRIu64, table_name(t), wanted ? "no" : "a needless", owner);
    }
}

void audit_id(struct audit *a, uint64_t id, const char *what)
{
    if (id == 0 || id >= a->meta->next_id) {
        breach(a, "%s %" PRIu64 " is not below next_id %" PRIu64, what, id, a->meta->next_id);
    }
}

void audit_timer(struct audit *a, uint64_t due_ms, uint64_t timer_id, const Pb__TimerRecord *want)
{
    const struct key k = timer_key(due_ms, timer_id);
    const ProtobufCMessage *m = audit_row(a, T_TIMER, &k, &pb__timer_record__descriptor, true);
    struct buf have = BUF_INIT, wanted = BUF_INIT;

    audit_id(a, timer_id, "timer");
    if (m != NULL) {
        pb_pack(m, &have);
        PB_PACK(want, &wanted);
        if (!str_eq(buf_str(&have), buf_str(&wanted))) {
            breach(a, "timer %" PRIu64 " is not the one that its owner wants", timer_id);
        }
    }
    buf_release(&have);
    buf_release(&wanted);
}

/* A row that holds the id of another: the way from a name back to its record. */
static void audit_name(struct audit *a, enum table t, struct str name, uint64_t id)
{
    const struct key k = key_bytes(name.p, name.n);
    struct str v;

    a->expected[t]++;
    if (!tx_get(a->tx, t, &k, &v) || v.n != sizeof(uint64_t) || key_read_u64(v, 0) != id) {
        breach(a, "%s: no row leads to %" PRIu64, table_name(t), id);
    }
}

typedef void (*audit_each_fn)(struct audit *a, struct str key);

/* Calls fn for every key of a table; nothing is written meanwhile, so the cursor stays valid. */
static void each(struct audit *a, enum table t, audit_each_fn fn)
{
    struct cursor cur;

    for (tx_seek(&cur, a->tx, t, STR_NULL, NULL); cur.valid; tx_next(&cur)) {
        fn(a, cur.key);
    }
}

static void audit_project(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    const Pb__ProjectRecord *p = (const Pb__ProjectRecord *)audit_row(
        a, T_PROJECT, &k, &pb__project_record__descriptor, true);

    if (p != NULL) {
        audit_id(a, p->id, "project");
        audit_name(a, T_PROJECT_NAME, str_from(p->name), p->id);
        audit_caches(a, p);
    }
}

static void audit_worker(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    const Pb__WorkerRecord *w = (const Pb__WorkerRecord *)audit_row(
        a, T_WORKER, &k, &pb__worker_record__descriptor, true);

    if (w == NULL) {
        return;
    }
    audit_id(a, w->id, "worker");
    audit_name(a, T_WORKER_UID, pb_str(w->uid), w->id);
    if (w->session == 0 || w->session >= a->meta->next_session) {
        breach(a, "worker %" PRIu64 ": session %" PRIu64 " was never given", w->id, w->session);
    }
    if (w->drain_timer_id != 0) {
        Pb__WorkerTimer what = PB__WORKER_TIMER__INIT;
        Pb__TimerRecord t = PB__TIMER_RECORD__INIT;
        what.worker_id = w->id;
        t.what_case = PB__TIMER_RECORD__WHAT_WORKER;
        t.worker = &what;
        audit_timer(a, w->drain_until_ms, w->drain_timer_id, &t);
    }
    if (w->leave && !w->draining) {
        breach(a, "worker %" PRIu64 " is to leave and does not drain", w->id);
    }
    if ((w->drain_timer_id != 0 && !w->draining) ||
        (w->drain_timer_id != 0) != (w->drain_until_ms != 0)) {
        breach(a, "worker %" PRIu64 " has time for a drain that is none", w->id);
    }
}

static void note_class(struct audit *a, struct str key)
{
    a->classes[a->class_count++].id = key_read_u64(key, 0);
}

static int class_order(const void *key, const void *item)
{
    const uint64_t id = *(const uint64_t *)key;
    const struct audit_class *class = item;

    return id == class->id ? 0 : id < class->id ? -1 : 1;
}

static struct audit_class *find_class(const struct audit *a, uint64_t id)
{
    return a->class_count == 0
               ? NULL
               : bsearch(&id, a->classes, a->class_count, sizeof(*a->classes), class_order);
}

void audit_count(struct audit *a, const Pb__JobRecord *job)
{
    struct audit_class *class = find_class(a, job->class_id);

    a->jobs[job->state]++;
    if (job_is_alone(job)) {
        return;
    }
    if (class == NULL) {
        breach(a, "job %" PRIu64 ": there is no class %" PRIu64, job->id, job->class_id);
        return;
    }
    class->jobs++;
    class->unfinished += !job_state_terminal(job->state);
}

static void audit_job_counts(struct audit *a)
{
    for (size_t i = 0; i < JOB_STATE_COUNT; i++) {
        if (i >= a->meta->n_job_counts || a->meta->job_counts[i] != a->jobs[i]) {
            breach(a, "there are %" PRIu64 " jobs that are %s: the counts say otherwise",
                   a->jobs[i], job_state_text((Pb__JobState)i));
        }
    }
}

/* After all jobs. */
static void audit_class(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    const Pb__ClassRecord *row = (const Pb__ClassRecord *)audit_row(
        a, T_CLASS, &k, &pb__class_record__descriptor, true);
    const struct audit_class *found = find_class(a, key_read_u64(key, 0));
    struct key idle;

    a->expected[T_CLASS_HASH]++;
    if (row == NULL || found == NULL) {
        return;
    }
    audit_id(a, row->id, "class");
    if (row->id != found->id || row->jobs != found->jobs || row->unfinished != found->unfinished ||
        (row->idle_ms != 0) != (row->jobs == 0)) {
        breach(a, "class %" PRIu64 " counts %" PRIu64 " jobs, %" PRIu64 " unfinished", found->id,
               row->jobs, row->unfinished);
    }
    idle = key_u64_u64(row->idle_ms, row->id);
    audit_index(a, T_CLASS_IDLE, &idle, row->jobs == 0, row->id);
    arena_release(&a->scratch);
}

static void audit_class_hash(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    struct str v;

    if (tx_get(a->tx, T_CLASS_HASH, &k, &v)) {
        const struct key id = key_bytes(v.p, v.n);
        audit_row(a, T_CLASS, &id, &pb__class_record__descriptor, false);
    }
}

static void audit_request(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    const Pb__RequestRecord *r = (const Pb__RequestRecord *)audit_row(
        a, T_REQUEST, &k, &pb__request_record__descriptor, true);
    Pb__RequestTimer what = PB__REQUEST_TIMER__INIT;
    Pb__TimerRecord t = PB__TIMER_RECORD__INIT;

    if (r != NULL) { /* it may outlive what it made */
        what.key_hash = pb_bytes_ref(key);
        t.what_case = PB__TIMER_RECORD__WHAT_REQUEST;
        t.request = &what;
        audit_timer(a, r->expires_ms, r->timer_id, &t);
        if ((r->pipeline_id == 0) == (r->job_id == 0)) {
            breach(a, "a request made no job and no pipeline, or both");
        }
        audit_id(a, r->pipeline_id != 0 ? r->pipeline_id : r->job_id, "what a request made");
    }
}

static void audit_pool(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    const Pb__PoolRecord *p = (const Pb__PoolRecord *)audit_row(a, T_POOL, &k,
                                                                &pb__pool_record__descriptor, true);

    if (p != NULL) {
        audit_id(a, p->id, "pool");
        if (!str_eqz(key, p->name)) {
            breach(a, "pool %" PRIu64 " stands at another place", p->id);
        }
    }
}

static void audit_group(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    const Pb__ResourceGroupRecord *r = (const Pb__ResourceGroupRecord *)audit_row(
        a, T_RESOURCE_GROUP, &k, &pb__resource_group_record__descriptor, true);

    if (r != NULL &&
        (r->mode == PB__PROCESS_MODE__PROCESS_UNORDERED || r->project_id != key_read_u64(key, 0))) {
        breach(a, "resource group %s of project %" PRIu64 " is odd", r->name, r->project_id);
    }
}

static void audit_stored(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    const Pb__StoredVariableRecord *r = (const Pb__StoredVariableRecord *)audit_row(
        a, T_STORED_VARIABLE, &k, &pb__stored_variable_record__descriptor, true);
    const Pb__SealedVariable *v = r != NULL ? r->variable : NULL;

    if (r != NULL && v == NULL) {
        breach(a, "a stored variable is empty");
    } else if (r != NULL) {
        const struct key own = stored_key(v->level, v->owner, v->name, v->environment_scope);
        if (!str_eq(key, key_str(&own)) || v->sealed.len == 0 || v->wrapped_key.len == 0) {
            breach(a, "stored variable %s of %s stands at another place, or has no value", v->name,
                   v->owner);
        }
    }
}

static void audit_trail(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    const Pb__TrailRecord *r = (const Pb__TrailRecord *)audit_row(
        a, T_TRAIL, &k, &pb__trail_record__descriptor, true);

    if (r != NULL && r->seq != key_read_u64(key, 0)) {
        breach(a, "row %" PRIu64 " of the audit trail stands at another place", r->seq);
    }
}

static void audit_token(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);

    audit_row(a, T_TOKEN, &k, &pb__token_record__descriptor, true);
    if (key.n != SHA256_BYTES) {
        breach(a, "token: a key of %zu bytes", key.n);
    }
}

static void audit_job_vars(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);

    audit_row(a, T_JOB_VARS, &k, &pb__job_variables_record__descriptor, true);
    audit_row(a, T_JOB, &k, &pb__job_record__descriptor, false);
}

/* A group has one holder; it comes twice in a row when it has two. */
static void audit_locks(struct audit *a)
{
    struct cursor cur;
    uint8_t last[CORE_LOCK_KEY_BYTES] = {0};

    for (tx_seek(&cur, a->tx, T_RESOURCE_HOLD, STR_NULL, NULL); cur.valid; tx_next(&cur)) {
        if (str_eq(str_sub(cur.key, 0, sizeof(last)), str_of(last, sizeof(last)))) {
            breach(a, "a resource group has two holders");
        }
        memcpy(last, cur.key.p, MIN(cur.key.n, sizeof(last)));
    }
    for (tx_seek(&cur, a->tx, T_RESOURCE_WAIT, STR_NULL, NULL); cur.valid; tx_next(&cur)) {
        if (lock_heir(a->tx, str_sub(cur.key, 0, sizeof(last))) != 0) {
            breach(a, "a job waits for a resource group that it could have");
        }
    }
}

static void audit_event(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    const Pb__EventRecord *e = (const Pb__EventRecord *)audit_row(
        a, T_EVENT, &k, &pb__event_record__descriptor, true);

    if (e != NULL && (e->seq != key_read_u64(key, 0) || e->seq >= a->meta->next_event ||
                      e->seq + LIMIT_EVENTS < a->meta->next_event)) {
        breach(a, "event %" PRIu64 " stands at another place, or is too old", e->seq);
    }
    if (e != NULL && e->pipeline_id != 0) {
        const struct key of_pipeline = key_u64_u64(e->pipeline_id, e->seq);
        audit_index(a, T_PIPELINE_EVENT, &of_pipeline, true, e->seq);
    }
    arena_release(&a->scratch);
}

static void audit_events(struct audit *a)
{
    each(a, T_EVENT, audit_event);
    if (a->expected[T_EVENT] != a->meta->event_count) {
        breach(a, "%" PRIu64 " events instead of %" PRIu64, a->expected[T_EVENT],
               a->meta->event_count);
    }
}

static void audit_one_lone(struct audit *a, struct str key)
{
    audit_lone(a, key_read_u64(key, 0));
    arena_release(&a->scratch);
}

static void audit_one_pipeline(struct audit *a, struct str key)
{
    audit_pipeline(a, key_read_u64(key, 0));
    arena_release(&a->scratch);
}

static void audit_one_hidden(struct audit *a, struct str key)
{
    audit_hidden(a, key);
    arena_release(&a->scratch);
}

static void audit_counts(struct audit *a)
{
    for (unsigned t = 0; t < TABLE_COUNT; t++) {
        const uint64_t rows = tx_count(a->tx, (enum table)t);
        if (t != T_META && rows != a->expected[t]) {
            breach(a, "%s: %" PRIu64 " rows, but %" PRIu64 " are accounted for",
                   table_name((enum table)t), rows, a->expected[t]);
        }
    }
}

uint64_t core_audit(struct tx *tx, core_audit_fn fn, void *ctx)
{
    struct audit a = {.tx = tx, .fn = fn, .ctx = ctx, .meta = meta_get(tx)};

    arena_init(&a.scratch, 0);
    if (a.meta != NULL) {
        if (a.meta->schema_version != STORE_SCHEMA_VERSION) {
            breach(&a, "schema version %u", a.meta->schema_version);
        }
        each(&a, T_PROJECT, audit_project);
        each(&a, T_WORKER, audit_worker);
        a.classes = xcalloc(tx_count(tx, T_CLASS) + 1, sizeof(*a.classes));
        each(&a, T_CLASS, note_class);
        each(&a, T_CLASS_HASH, audit_class_hash);
        each(&a, T_REQUEST, audit_request);
        each(&a, T_TOKEN, audit_token);
        each(&a, T_TRAIL, audit_trail);
        each(&a, T_STORED_VARIABLE, audit_stored);
        each(&a, T_JOIN_TOKEN, audit_join_token);
        each(&a, T_MEMBER, audit_member);
        each(&a, T_CERTIFICATE, audit_certificate);
        each(&a, T_POOL, audit_pool);
        each(&a, T_RESOURCE_GROUP, audit_group);
        each(&a, T_JOB_VARS, audit_job_vars);
        each(&a, T_PIPELINE, audit_one_pipeline);
        each(&a, T_JOB_PLAN, audit_one_lone);
        each(&a, T_ENVIRONMENT, audit_environment);
        each(&a, T_DEPLOYMENT, audit_deployment);
        each(&a, T_RELEASE, audit_release);
        each(&a, T_PAGES, audit_pages);
        each(&a, T_ROLLOUT, audit_rollout);
        each(&a, T_SERVICE, audit_service);
        each(&a, T_SNAPSHOT, audit_snapshot);
        each(&a, T_TARGET, audit_target);
        audit_locks(&a);
        audit_events(&a);
        each(&a, T_PIPELINE_GONE, audit_one_hidden);
        each(&a, T_CLASS, audit_class);
        if (a.class_count > LIMIT_CLASSES) {
            breach(&a, "%zu classes", a.class_count);
        }
        free(a.classes);
        audit_job_counts(&a);
    }
    audit_counts(&a);
    if (!tx_ok(tx)) {
        breach(&a, "reading failed: %s", err_text(tx_error(tx)));
    }
    arena_release(&a.scratch);
    return a.breaches;
}
