#include "common/base.h"

#include "broker/core/run.h"
#include "common/crypto.h"
#include "common/expand.h"
#include "common/limits.h"

/* What a job brings besides its artifacts: variables for later jobs, a release, pages. */

#define PAGES_KEEP_MAX_MS (100ull * 365 * 24 * 3600 * 1000)

static int dotenv_check(struct core *c, const Pb__Outcome *o)
{
    if (o->n_dotenv > LIMIT_DOTENV_VARIABLES) {
        return reject(c, -E_LIMIT, "more than %u dotenv variables", LIMIT_DOTENV_VARIABLES);
    }
    for (size_t i = 0; i < o->n_dotenv; i++) {
        const char *name = o->dotenv[i]->name;
        if (strnlen(name, LIMIT_NAME + 1) > LIMIT_NAME || !var_name_valid(str_from(name))) {
            return reject(c, -E_INVALID, "dotenv variable %zu has a bad name", i);
        }
    }
    if (variables_size(o->dotenv, o->n_dotenv) > LIMIT_DOTENV_BYTES) {
        return reject(c, -E_LIMIT, "the dotenv variables have more than %u bytes",
                      LIMIT_DOTENV_BYTES);
    }
    return 0;
}

static const Pb__ArtifactOut *pages_artifact(const Pb__Outcome *o)
{
    for (size_t i = 0; i < o->n_artifacts; i++) {
        if (strcmp(o->artifacts[i]->type, "pages") == 0) {
            return o->artifacts[i];
        }
    }
    return NULL;
}

int outcome_check(struct core *c, const Pb__Outcome *o)
{
    const int r = dotenv_check(c, o);

    if (r < 0) {
        return r;
    }
    if (o->action != NULL && !action_result_ok(o->action)) {
        return reject(c, -E_LIMIT, "the result of the action is too large");
    }
    if (o->environment_url.len > LIMIT_URL) {
        return reject(c, -E_LIMIT, "the environment's URL has more than %u bytes", LIMIT_URL);
    }
    if (o->release != NULL &&
        (o->release->tag_name.len == 0 || o->release->tag_name.len > LIMIT_NAME ||
         pb__release_spec__get_packed_size(o->release) > LIMIT_RELEASE_BYTES)) {
        return reject(c, -E_INVALID, "a release without a tag, or of more than %u bytes",
                      LIMIT_RELEASE_BYTES);
    }
    if (o->pages != NULL && (pages_artifact(o) == NULL || o->pages->path_prefix.len > LIMIT_NAME ||
                             o->pages->expire_in_ms > PAGES_KEEP_MAX_MS)) {
        return reject(c, -E_INVALID, "pages without an artifact, or with a bad prefix or end");
    }
    return 0;
}

/* Later jobs get the variables of all jobs before them in one message: the pipeline's sum is
 * bounded. */
bool outcome_keep_dotenv(struct run *run, const Pb__JobRecord *job, const Pb__Outcome *o)
{
    struct core *c = run->core;
    Pb__PipelineRecord *p = run->pipeline;
    const struct key k = key_u64(job->id);
    const Pb__DotenvRecord *old = dotenv_get(c->tx, job->id);
    const uint64_t gone = old != NULL ? variables_size(old->variables, old->n_variables) : 0;
    const uint64_t size = variables_size(o->dotenv, o->n_dotenv);
    Pb__DotenvRecord row = PB__DOTENV_RECORD__INIT;

    if (old == NULL && o->n_dotenv == 0) {
        return true;
    }
    run->dirty = true;
    p->dotenv_bytes -= MIN(gone, p->dotenv_bytes);
    if (o->n_dotenv == 0 || p->dotenv_bytes + size > LIMIT_PIPELINE_DOTENV) {
        tx_del(c->tx, T_JOB_DOTENV, &k);
        return o->n_dotenv == 0;
    }
    p->dotenv_bytes += size;
    row.attempt = job->attempt;
    row.n_variables = o->n_dotenv;
    row.variables = o->dotenv;
    tx_put_msg(c->tx, T_JOB_DOTENV, &k, &row.base);
    return true;
}

static void tell(struct run *run, const Pb__JobRecord *job, enum event_kind kind, const char *to,
                 struct str name)
{
    event_add(run->core, &(struct event){.kind = kind,
                                         .project_id = job->project_id,
                                         .pipeline_id = job->pipeline_id,
                                         .job_id = job->id,
                                         .attempt = job->attempt,
                                         .to = to,
                                         .name = job->name,
                                         .detail = arena_strdup(run->core->arena, name)});
}

static void publish_release(struct run *run, const Pb__JobRecord *job, Pb__ReleaseSpec *release)
{
    struct core *c = run->core;
    const struct key by_tag = project_hash_key(job->project_id, pb_str(release->tag_name));
    const Pb__ReleaseRecord *old = release_by_tag(c->tx, job->project_id,
                                                  pb_str(release->tag_name));
    Pb__ReleaseRecord row = PB__RELEASE_RECORD__INIT;
    struct key k, id;

    if (old != NULL) {
        k = key_u64_u64(old->project_id, old->id);
        tx_del(c->tx, T_RELEASE, &k);
    }
    row.id = core_new_id(c);
    row.project_id = job->project_id;
    row.job_id = job->id;
    row.release = release;
    row.sha = run->pipeline->sha;
    row.created_ms = c->now_ms;
    k = key_u64_u64(row.project_id, row.id);
    id = key_u64(row.id);
    tx_put_msg(c->tx, T_RELEASE, &k, &row.base);
    tx_put(c->tx, T_RELEASE_TAG, &by_tag, key_str(&id));
    tell(run, job, EVENT_RELEASE, old != NULL ? "replaced" : "published",
         pb_str(release->tag_name));
}

/* Takes the row with its blob and timer away. */
static void pages_drop(struct core *c, const struct key *k, const Pb__PagesRecord *p)
{
    blob_ref_del(c, pb_str(p->digest), BLOB_PAGES, p->id);
    if (p->timer_id != 0) {
        timer_del(c, p->expires_ms, p->timer_id);
    }
    tx_del(c->tx, T_PAGES, k);
}

static void pages_set_expiry(struct core *c, Pb__PagesRecord *p, const struct key *k)
{
    Pb__PagesTimer what = PB__PAGES_TIMER__INIT;
    Pb__TimerRecord t = PB__TIMER_RECORD__INIT;

    what.project_id = p->project_id;
    what.prefix_hash = pb_bytes_ref(str_sub(key_str(k), sizeof(uint64_t), SHA256_BYTES));
    t.what_case = PB__TIMER_RECORD__WHAT_PAGES;
    t.pages = &what;
    p->timer_id = timer_add(c, p->expires_ms, &t);
}

bool outcome_pages_fit(struct run *run, const Pb__JobRecord *job, const Pb__Outcome *o)
{
    const struct key of_project = key_u64(job->project_id);
    struct cursor cur;
    uint32_t count = 0;

    if (o->pages == NULL ||
        pages_get(run->core->tx, job->project_id, pb_str(o->pages->path_prefix)) != NULL) {
        return true;
    }
    for (tx_seek(&cur, run->core->tx, T_PAGES, key_str(&of_project), NULL);
         cur.valid && count < LIMIT_PROJECT_PAGES; tx_next(&cur)) {
        count++;
    }
    cursor_end(&cur);
    return count < LIMIT_PROJECT_PAGES;
}

static void publish_pages(struct run *run, const Pb__JobRecord *job, const Pb__Outcome *o)
{
    struct core *c = run->core;
    const struct str prefix = pb_str(o->pages->path_prefix);
    const struct key k = project_hash_key(job->project_id, prefix);
    const Pb__PagesRecord *old = pages_get(c->tx, job->project_id, prefix);
    const Pb__ArtifactOut *artifact = pages_artifact(o);
    Pb__PagesRecord row = PB__PAGES_RECORD__INIT;

    if (old != NULL && old->pipeline_id > job->pipeline_id) { /* what is newer stays */
        tell(run, job, EVENT_PAGES, "outdated", prefix);
        return;
    }
    if (old != NULL) {
        pages_drop(c, &k, old);
    }
    row.id = core_new_id(c);
    row.project_id = job->project_id;
    row.path_prefix = o->pages->path_prefix;
    row.job_id = job->id;
    row.pipeline_id = job->pipeline_id;
    row.digest = artifact->digest;
    row.size = artifact->size;
    row.created_ms = c->now_ms;
    if (o->pages->expire_in_ms != 0) {
        row.expires_ms = c->now_ms + o->pages->expire_in_ms;
        pages_set_expiry(c, &row, &k);
    }
    tx_put_msg(c->tx, T_PAGES, &k, &row.base);
    blob_ref_add(c, pb_str(row.digest), BLOB_PAGES, row.id);
    tell(run, job, EVENT_PAGES, old != NULL ? "replaced" : "published", prefix);
}

void outcome_publish(struct run *run, const Pb__JobRecord *job, const Pb__Outcome *o)
{
    if (o->release != NULL) {
        publish_release(run, job, o->release);
    }
    if (o->pages != NULL) {
        publish_pages(run, job, o);
    }
}

/* Its timer's row is gone already. */
void pages_expire(struct core *c, const Pb__PagesTimer *t)
{
    struct key k = key_u64(t->project_id);
    Pb__PagesRecord *p;

    key_add_bytes(&k, t->prefix_hash.data, t->prefix_hash.len);
    p = (Pb__PagesRecord *)core_row(c, T_PAGES, &k, &pb__pages_record__descriptor);
    p->timer_id = 0;
    pages_drop(c, &k, p);
    event_add(c, &(struct event){.kind = EVENT_PAGES,
                                 .project_id = p->project_id,
                                 .from = "published",
                                 .to = "expired",
                                 .detail = arena_strdup(c->arena, pb_str(p->path_prefix))});
}
