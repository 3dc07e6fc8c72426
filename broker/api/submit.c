/* Submitting and linting: the body's files go through the compiler on a work thread; what comes out
 * is a command, or a list of diagnostics. */
#include "common/base.h"

#include <stdio.h>

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/bundle.h"
#include "broker/api/files.h"
#include "broker/api/handlers.h"
#include "broker/api/object.h"
#include "broker/api/scope.h"
#include "broker/api/server.h"
#include "broker/api/targets.h"
#include "broker/api/variables.h"
#include "broker/api/view.h"
#include "broker/core/query.h"
#include "broker/vault/known.h"
#include "common/log.h"
#include "pipeline/emit.h"
#include "pipeline/explain.h"
#include "pipeline/pipeline.h"

#define LIMIT_TEXT LIMIT_VARIABLE_VALUE
#define LIMIT_PATH 4096u

/* A submit body as it was read; texts point into the body. */
struct submit {
    struct request *rq;
    bool lint;    /* nothing is submitted: it may ask for an explanation */
    bool explain; /* it does */
    const json_t *body;
    struct arena arena; /* lists for the compiler */
    const char *project;
    struct pipeline_facts facts;
    bool closed;  /* to developers */
    bool settled; /* the default branch is, by the project's settings */
    struct files files;
    struct targets targets;
    struct pipeline_input in;
    Pb__Variable **variables;
    size_t variable_count;
    Pb__Source *source; /* NULL: none */
};

static int read_commit(struct submit *s)
{
    const json_t *commit;
    int r = body_object(s->rq, s->body, "commit", &commit);
    if (r < 0 || !commit) {
        return r;
    }
    if ((r = body_fields(s->rq, commit, "commit.", "message author timestamp")) < 0 ||
        (r = body_text(s->rq, commit, "message", LIMIT_TEXT, &s->facts.commit_message)) < 0 ||
        (r = body_text(s->rq, commit, "author", LIMIT_TEXT, &s->facts.commit_author)) < 0) {
        return r;
    }
    return body_text(s->rq, commit, "timestamp", LIMIT_NAME, &s->facts.commit_timestamp);
}

static bool is_commit_hash(const char *sha)
{
    size_t n = strlen(sha);
    return (n == 40 || n == 64) && strspn(sha, "0123456789abcdef") == n;
}

/* The settings of the project say what its default branch is, where they do, and what is protected:
 * whoever submits cannot. To developers a tag of the name of a protected branch is closed, too. */
static int read_settings(struct submit *s)
{
    struct pipeline_facts *f = &s->facts;
    struct tx *tx;
    int r = api_read(s->rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__ProjectRecord *p = s->project ? project_by_name(tx, s->project) : NULL;
    s->settled = p && p->default_branch[0] != '\0';
    if (s->settled) {
        f->default_branch = arena_strdup(&s->arena, str_from(p->default_branch));
    }
    f->ref = f->ref ? f->ref : f->default_branch;
    f->knows_protection = true;
    f->is_protected = project_protects(p, f->default_branch, f->ref, f->tag);
    s->closed = f->is_protected || project_protects(p, f->default_branch, f->ref, false);
    r = tx_error(tx);
    tx_abort(tx);
    return r;
}

static int read_facts(struct submit *s)
{
    struct request *rq = s->rq;
    struct pipeline_facts *f = &s->facts;
    int r;
    f->default_branch = "main";
    f->origin = "api";
    f->config_path = ".gitlab-ci.yml";
    if ((r = body_text(rq, s->body, "project", LIMIT_NAME, &s->project)) < 0 ||
        (r = body_text(rq, s->body, "default_branch", LIMIT_NAME, &f->default_branch)) < 0) {
        return r;
    }
    f->project = s->project;
    if ((r = body_text(rq, s->body, "ref", LIMIT_NAME, &f->ref)) < 0 ||
        (r = body_text(rq, s->body, "sha", LIMIT_NAME, &f->sha)) < 0 ||
        (r = body_text(rq, s->body, "before_sha", LIMIT_NAME, &f->before_sha)) < 0 ||
        (r = body_text(rq, s->body, "origin", LIMIT_NAME, &f->origin)) < 0 ||
        (r = body_text(rq, s->body, "file", LIMIT_PATH, &f->config_path)) < 0 ||
        (r = body_bool(rq, s->body, "tag", &f->tag)) < 0) {
        return r;
    }
    if ((f->sha && !is_commit_hash(f->sha)) || (f->before_sha && !is_commit_hash(f->before_sha))) {
        return request_fail(rq, -E_INVALID, "`sha` and `before_sha` are 40 or 64 hex digits");
    }
    r = read_settings(s);
    return r < 0 ? r : read_commit(s);
}

static int read_snapshot(struct submit *s, const json_t *snapshot, Pb__SnapshotSource *ret)
{
    uint8_t digest[SHA256_BYTES];
    uint64_t claimed = UINT64_MAX;
    uint64_t size;
    int fd;
    int r;
    if ((r = body_fields(s->rq, snapshot, "source.snapshot.", "digest size")) < 0 ||
        (r = body_digest(s->rq, snapshot, "digest", digest)) < 0 ||
        (r = body_u64(s->rq, snapshot, "size", &claimed)) < 0) {
        return r;
    }
    /* Asking makes the blob young: no sweep takes it before the command refers to it. */
    struct blobs *blobs = s->rq->api->config.blobs;
    if (!blob_exists(blobs, digest) || blob_open(blobs, digest, &fd, &size) < 0) {
        return request_fail(s->rq, -E_INVALID, "the snapshot is not here: upload it first");
    }
    close(fd);
    if (claimed != UINT64_MAX && claimed != size) {
        return request_fail(s->rq, -E_INVALID, "the snapshot has %" PRIu64 " bytes", size);
    }
    ret->digest = pb_bytes(&s->arena, str_of(digest, sizeof(digest)));
    ret->size = size;
    return 0;
}

static bool is_git_url(const char *url)
{
    struct str s = str_from(url);
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f) {
            return false;
        }
    }
    return str_starts(s, STR("file:///")) || str_starts(s, STR("http://")) ||
           str_starts(s, STR("https://"));
}

static int read_git(struct submit *s, const json_t *git, Pb__GitSource *ret)
{
    const char *url = NULL;
    const char *sha = NULL;
    const char *ref = "";
    int r;
    if ((r = body_fields(s->rq, git, "source.git.", "url sha ref")) < 0 ||
        (r = body_text(s->rq, git, "url", LIMIT_PATH, &url)) < 0 ||
        (r = body_text(s->rq, git, "sha", LIMIT_NAME, &sha)) < 0 ||
        (r = body_text(s->rq, git, "ref", LIMIT_NAME, &ref)) < 0) {
        return r;
    }
    if (!url || !is_git_url(url)) {
        return request_fail(
            s->rq, -E_INVALID,
            "`source.git.url` starts with file:///, http:// or https://, and has no "
            "blanks");
    }
    if (!sha || !is_commit_hash(sha)) {
        return request_fail(s->rq, -E_INVALID, "`source.git.sha` is 40 or 64 hex digits");
    }
    ret->url = pb_bytes(&s->arena, str_from(url));
    ret->sha = pb_bytes(&s->arena, str_from(sha));
    ret->ref = pb_bytes(&s->arena, str_from(ref));
    return 0;
}

static int read_source(struct submit *s)
{
    const json_t *source, *snapshot = NULL, *git = NULL;
    int r = body_object(s->rq, s->body, "source", &source);
    if (r < 0 || !source) {
        return r;
    }
    if ((r = body_fields(s->rq, source, "source.", "snapshot git")) < 0 ||
        (r = body_object(s->rq, source, "snapshot", &snapshot)) < 0 ||
        (r = body_object(s->rq, source, "git", &git)) < 0) {
        return r;
    }
    if (!snapshot == !git) {
        return request_fail(s->rq, -E_INVALID, "`source` holds either `snapshot` or `git`");
    }
    s->source = arena_alloc(&s->arena, sizeof(*s->source));
    pb__source__init(s->source);
    if (snapshot) {
        s->source->from_case = PB__SOURCE__FROM_SNAPSHOT;
        s->source->snapshot = arena_alloc(&s->arena, sizeof(*s->source->snapshot));
        pb__snapshot_source__init(s->source->snapshot);
        return read_snapshot(s, snapshot, s->source->snapshot);
    }
    s->source->from_case = PB__SOURCE__FROM_GIT;
    s->source->git = arena_alloc(&s->arena, sizeof(*s->source->git));
    pb__git_source__init(s->source->git);
    return read_git(s, git, s->source->git);
}

/* A list of texts; *ret_known says whether the field was there. */
static int read_list(struct submit *s, const char *name, size_t max, const struct str **ret,
                     size_t *ret_count, bool *ret_known)
{
    const json_t *list;
    int r = body_array(s->rq, s->body, name, max, &list);
    if (r < 0 || !list) {
        return r;
    }
    size_t count = json_array_size(list);
    struct str *paths = arena_array(&s->arena, MAX(count, 1u), sizeof(*paths));
    for (size_t i = 0; i < count; i++) {
        const json_t *path = json_array_get(list, i);
        if (!json_is_string(path)) {
            return request_fail(s->rq, -E_INVALID, "field `%s` holds names", name);
        }
        paths[i] = str_of(json_string_value(path), json_string_length(path));
    }
    *ret = paths;
    *ret_count = count;
    *ret_known = true;
    return 0;
}

static int read_files(struct submit *s)
{
    bool known;
    struct included root;
    struct included overlay;
    int r = files_read(s->rq, s->body, &s->arena, &s->files);
    if (r < 0) {
        return r;
    }
    s->in.inputs = s->files.inputs;
    s->in.input_count = s->files.input_count;
    if (!files_find(&s->files, s->facts.config_path, &root)) {
        return request_fail(s->rq, -E_INVALID, "`files` does not hold `%.255s`",
                            s->facts.config_path);
    }
    s->in.text = root.text;
    s->in.overlay_file = PIPELINE_OVERLAY;
    if (strcmp(s->facts.config_path, PIPELINE_OVERLAY) != 0 &&
        files_find(&s->files, PIPELINE_OVERLAY, &overlay)) {
        s->in.overlay = overlay.text;
    }
    if ((r = read_list(s, "paths", LIMIT_HTTP_PATHS, &s->in.paths, &s->in.path_count, &known)) <
            0 ||
        (r = read_list(s, "only", LIMIT_PIPELINE_JOBS, &s->in.only, &s->in.only_count, &known)) <
            0) {
        return r;
    }
    return read_list(s, "changes", LIMIT_HTTP_PATHS, &s->in.changes, &s->in.change_count,
                     &s->in.changes_known);
}

#define SUBMIT_FIELDS                                                                             \
    "project ref tag sha before_sha origin default_branch commit source file files inputs paths " \
    "changes compared only variables"

static int read_submit(struct submit *s)
{
    int r;
    if ((r = body_fields(s->rq, s->body, "", s->lint ? SUBMIT_FIELDS " explain" : SUBMIT_FIELDS)) <
            0 ||
        (s->lint && (r = body_bool(s->rq, s->body, "explain", &s->explain)) < 0) ||
        (r = read_facts(s)) < 0 || (r = read_files(s)) < 0 || (r = read_source(s)) < 0) {
        return r;
    }
    return variables_read(s->rq, s->body, &s->arena, &s->variables, &s->variable_count);
}

/* The variables as the compiler wants them. */
static const struct var *submitted_vars(struct submit *s)
{
    struct var *vars = arena_array(&s->arena, MAX(s->variable_count, 1u), sizeof(*vars));
    for (size_t i = 0; i < s->variable_count; i++) {
        const Pb__Variable *v = s->variables[i];
        vars[i] = (struct var){
            .name = str_from(v->name), .value = pb_str(v->value), .raw = v->raw, .file = v->file};
    }
    return vars;
}

/* Of the project and what is above it; none where no project is named (lint). Who may not submit
 * for a protected ref is not told by lint what its protected variables hold. */
static int read_stored(struct submit *s, const struct vars *predefined)
{
    const struct var *ref = vars_get(predefined, STR("CI_COMMIT_REF_PROTECTED"));
    const bool protected = ref && str_eqz(ref->value, "true") && s->rq->who.role != ROLE_DEVELOPER;
    struct tx *tx;
    if (!s->project) {
        return 0;
    }
    int r = api_read(s->rq->api, &tx);
    if (r < 0) {
        return r;
    }
    buf_clear(&s->rq->why);
    r = vault_known(s->rq->api->config.vault, tx, &s->arena, s->project, protected, &s->in.stored,
                    &s->in.stored_count, &s->rq->why);
    tx_abort(tx);
    return r;
}

/* -E_PIPELINE: the diagnostics tell. */
static int compile(struct submit *s, struct vars *predefined, struct arena *arena,
                   struct diags *diags, Pb__Plan **ret)
{
    char url[64];
    snprintf(url, sizeof(url), "http://%s:%u", s->rq->api->config.host, s->rq->api->port);
    s->facts.server_url = url;
    vars_init(predefined, arena);
    pipeline_predefined(predefined, &s->facts);
    s->in.file = s->facts.config_path;
    s->in.include = files_include;
    s->in.include_ctx = &s->files;
    s->targets = (struct targets){s->rq->api, s->project};
    s->in.rollout = targets_ask;
    s->in.rollout_ctx = &s->targets;
    s->in.compare = files_compare;
    s->in.compare_ctx = &s->files;
    s->in.predefined = predefined->items;
    s->in.predefined_count = predefined->count;
    int r = read_stored(s, predefined);
    if (r < 0) {
        return r;
    }
    s->in.submitted = submitted_vars(s);
    s->in.submitted_count = s->variable_count;
    s->in.ref = s->facts.ref;
    s->in.tag = s->facts.tag;
    s->in.origin = s->facts.origin;
    return pipeline_compile(arena, &s->in, diags, ret);
}

static char *text_or_empty(struct arena *a, const char *s)
{
    return arena_strdup(a, str_from(s ? s : ""));
}

static Pb__Variable **predefined_list(struct arena *a, const struct vars *vars)
{
    Pb__Variable **list = arena_array(a, MAX(vars->count, 1u), sizeof(Pb__Variable *));
    for (size_t i = 0; i < vars->count; i++) {
        list[i] = arena_alloc(a, sizeof(*list[i]));
        pb__variable__init(list[i]);
        list[i]->name = arena_strdup(a, vars->items[i].name);
        list[i]->value = pb_bytes(a, vars->items[i].value);
        list[i]->raw = vars->items[i].raw;
        list[i]->file = vars->items[i].file;
        list[i]->masked = vars->items[i].masked;
    }
    return list;
}

/* Each of them ends with a line's end. */
static void set_reach(const struct principal *who, struct arena *a, Pb__PipelineCreate *create)
{
    struct str rest = str_from(who->projects), name;

    create->reach_some = who->some;
    create->reach = arena_array(a, rest.n + 1, sizeof(*create->reach));
    while (who->some && str_split(&rest, '\n', &name)) {
        if (name.n > 0) {
            create->reach[create->n_reach++] = arena_strdup(a, name);
        }
    }
}

static int fill_command(struct submit *s, struct post *post, const struct vars *predefined,
                        Pb__Plan *plan, struct str key, const uint8_t body_hash[SHA256_BYTES])
{
    struct arena *a = post_arena(post);
    Pb__PipelineCreate create = PB__PIPELINE_CREATE__INIT;
    create.project = text_or_empty(a, s->project);
    create.plan = plan;
    create.source = s->source;
    create.ref = text_or_empty(a, s->facts.ref);
    create.sha = text_or_empty(a, s->facts.sha);
    create.origin = text_or_empty(a, s->facts.origin);
    create.tag = s->facts.tag;
    create.predefined = predefined_list(a, predefined);
    create.n_predefined = predefined->count;
    create.submitted = s->variables;
    create.n_submitted = s->variable_count;
    set_reach(&s->rq->who, a, &create);
    int r = bundle_of_submit(&s->files, &s->in, plan, &create.bundle);
    if (r < 0) {
        return r;
    }
    create.idempotency_key = pb_bytes_ref(key);
    create.body_hash = pb_bytes_ref(str_of(body_hash, SHA256_BYTES));
    size_t size = pb__pipeline_create__get_packed_size(&create);
    if (size > LIMIT_COMMAND) {
        return request_fail(s->rq, -E_TOO_BIG, "the pipeline comes to %zu bytes, %u are allowed",
                            size, LIMIT_COMMAND);
    }
    /* What belongs to the body or to this function is copied; the plan is the post's already. */
    post_command(post)->body_case = PB__COMMAND__BODY_PIPELINE_CREATE;
    post_command(post)->pipeline_create = (Pb__PipelineCreate *)pb_copy(a, &create.base);
    return 0;
}

/* SHA-256 of the token's name and the key; empty without a key. -E_INVALID for a bad key. */
static int idempotency_key(struct request *rq, uint8_t ret[SHA256_BYTES], struct str *ret_key)
{
    const char *key = request_header(rq, "Idempotency-Key");
    *ret_key = STR_NULL;
    if (!key) {
        return 0;
    }
    if (auth_idempotency(rq->who.name, str_from(key), ret) < 0) {
        return request_fail(rq, -E_INVALID, "Idempotency-Key is 1 to %u printable characters",
                            LIMIT_IDEMPOTENCY_KEY);
    }
    *ret_key = str_of(ret, SHA256_BYTES);
    return 0;
}

/* Tokens may share a name, and with it their keys, and be of different projects. */
static bool sees_pipeline(struct request *rq, struct tx *tx, uint64_t id)
{
    const Pb__PipelineRecord *p = pipeline_get(tx, id);
    return !p || scope_sees(rq, tx, p->project_id);
}

/* A key that was used is answered without compiling again. *ret_pipeline 0: it is new, or what it
 * stands for is not for this token, which the project in the body will say. */
static int find_request(struct request *rq, struct str key, const uint8_t body_hash[SHA256_BYTES],
                        uint64_t *ret_pipeline)
{
    struct tx *tx;
    *ret_pipeline = 0;
    if (key.n == 0) {
        return 0;
    }
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    struct key k = key_bytes(key.p, key.n);
    const Pb__RequestRecord *known = (const Pb__RequestRecord *)tx_get_msg(
        tx, T_REQUEST, &k, &pb__request_record__descriptor);
    if (known && !str_eq(pb_str(known->body_hash), str_of(body_hash, SHA256_BYTES))) {
        r = -E_KEY_REUSED;
    } else if (known && sees_pipeline(rq, tx, known->pipeline_id)) {
        *ret_pipeline = known->pipeline_id;
    }
    tx_abort(tx);
    return r;
}

static int build_command(struct submit *s, struct str key, const uint8_t body_hash[SHA256_BYTES])
{
    struct request *rq = s->rq;
    struct diags diags;
    struct vars predefined;
    Pb__Plan *plan;
    rq->post = request_post_new(rq);
    diags_init(&diags);
    int r = compile(s, &predefined, post_arena(rq->post), &diags, &plan);
    if (r == 0) {
        r = fill_command(s, rq->post, &predefined, plan, key, body_hash);
    } else if (r != -E_PIPELINE) {
        log_debug("api: a submit was not compiled: %s", err_text(r)); /* rq->why has a line */
    } else if (fetch_is_stopped(rq->api->config.includes)) {
        r = -E_SHUTDOWN; /* files may be missing for that alone */
    } else {
        rq->extra = json_pack("{s:o}", "diagnostics", view_diags(&diags));
        request_fail(rq, r, "%zu %s in %.255s", diags.errors,
                     diags.errors == 1 ? "error" : "errors", s->facts.config_path);
    }
    diags_release(&diags);
    return r;
}

/* Reads the body into *s and calls `then`. */
static int with_submit(struct request *rq, bool lint, int (*then)(struct submit *s, void *ctx),
                       void *ctx)
{
    struct submit s = {.rq = rq, .lint = lint};
    json_t *body;
    int r = body_parse(rq, false, &body);
    if (r < 0) {
        return r;
    }
    s.body = body;
    arena_init(&s.arena, 0);
    r = read_submit(&s);
    if (r == 0) {
        r = then(&s, ctx);
    }
    files_release(&s.files);
    arena_release(&s.arena);
    json_decref(body);
    return r;
}

struct identity {
    struct str key;
    uint8_t key_bytes[SHA256_BYTES];
    uint8_t body_hash[SHA256_BYTES];
};

/* Whoever submits for a protected ref gets its protected variables, and passes for that ref: in id
 * tokens, and where others need its artifacts. So a developer's own word for the default branch, or
 * that it is a tag, does not make a ref another one. */
static int may_submit_for_ref(struct submit *s)
{
    bool closed = s->closed;
    if (s->rq->who.role != ROLE_DEVELOPER) {
        return 0;
    }
    int r = closed || s->settled ? 0
                                 : scope_was_protected(s->rq, s->project, s->facts.ref, &closed);
    if (r == 0 && closed) {
        r = request_fail(s->rq, -E_FORBIDDEN,
                         "`%.255s` is protected: a developer's token submits for other refs",
                         s->facts.ref);
    }
    return r;
}

static int submit_read(struct submit *s, void *ctx)
{
    const struct identity *id = ctx;
    if (!s->project || s->project[0] == '\0') {
        return request_fail(s->rq, -E_INVALID, "field `project` is missing");
    }
    if (!str_is_project_name(str_from(s->project))) {
        return request_fail(s->rq, -E_INVALID, "`%s` is no name of a project: group/name",
                            s->project);
    }
    int r = scope_project_allowed(s->rq, s->project);
    r = r < 0 ? r : may_submit_for_ref(s);
    return r < 0 ? r : build_command(s, id->key, id->body_hash);
}

/* On a work thread. */
static int submit_work(struct request *rq)
{
    struct identity id;
    uint64_t known = 0;
    crypto_sha256(rq->body.p ? rq->body.p : "", rq->body.n, id.body_hash);
    int r = idempotency_key(rq, id.key_bytes, &id.key);
    if (r == 0) {
        r = find_request(rq, id.key, id.body_hash, &known);
    }
    if (r < 0) {
        return r;
    }
    if (known > 0) {
        rq->reply = (struct reply){.pipeline_id = known, .duplicate = true};
        return 0;
    }
    return with_submit(rq, false, submit_read, &id);
}

static int submit_done(struct request *rq)
{
    if (rq->result < 0) {
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    return answer_pipeline(rq, rq->reply.duplicate ? MHD_HTTP_OK : MHD_HTTP_CREATED,
                           rq->reply.pipeline_id);
}

static int submit_built(struct request *rq)
{
    struct post *post = rq->post;
    if (rq->result < 0 || !post) {
        return submit_done(rq);
    }
    rq->post = NULL;
    return request_post(rq, post, submit_done);
}

int post_pipeline(struct request *rq)
{
    return request_work(rq, submit_work, submit_built);
}

/* --- lint --- */

static json_t *plan_jobs(const Pb__Plan *plan)
{
    json_t *jobs = json_array();
    for (size_t i = 0; plan && i < plan->n_jobs; i++) {
        const Pb__PlanJob *job = plan->jobs[i];
        check(job->stage < plan->n_stages);
        json_array_append_new(jobs, json_pack("{s:o, s:o, s:s}", "name", json_text(job->name),
                                              "stage", json_text(plan->stages[job->stage]), "when",
                                              when_text(job->when)));
    }
    return jobs;
}

/* What rules decided, and the file with everything merged. */
static json_t *explanation(const struct pipeline_input *in, const struct explain *explain,
                           const Pb__Plan *plan)
{
    const struct explain_view view = {.in = in, .explain = explain, .plan = plan};
    struct buf merged;
    json_t *o = explain_json(&view);
    buf_init(&merged, LIMIT_HTTP_BODY); /* a small file may be a big one when it is written out */
    if (explain->merged) {
        emit_yaml(explain->merged, &merged);
    }
    bool there = explain->merged && buf_ok(&merged);
    json_object_set_new(o, "merged", there ? json_stringn(merged.p, merged.n) : json_null());
    buf_release(&merged);
    return o;
}

static int lint_read(struct submit *s, void *ctx)
{
    struct diags diags;
    struct vars predefined;
    struct arena arena;
    struct explain explain = {0};
    Pb__Plan *plan = NULL;
    (void)ctx;
    int allowed = s->project ? scope_project_allowed(s->rq, s->project) : 0;
    if (allowed < 0) {
        return allowed;
    }
    arena_init(&arena, 0);
    diags_init(&diags);
    s->in.explain = s->explain ? &explain : NULL;
    int r = compile(s, &predefined, &arena, &diags, &plan);
    if (r < 0 && r != -E_PIPELINE) {
        diags_release(&diags);
        arena_release(&arena);
        return r;
    }
    s->rq->extra = json_pack("{s:b, s:o, s:o}", "valid", r == 0, "diagnostics", view_diags(&diags),
                             "jobs", plan_jobs(r == 0 ? plan : NULL));
    if (s->explain) {
        json_object_set_new(s->rq->extra, "explain", explanation(&s->in, &explain, plan));
    }
    diags_release(&diags);
    arena_release(&arena);
    return 0;
}

/* On a work thread. */
static int lint_work(struct request *rq)
{
    return with_submit(rq, true, lint_read, NULL);
}

static int lint_done(struct request *rq)
{
    json_t *answer = rq->extra;
    if (rq->result < 0) {
        return rq->result;
    }
    rq->extra = NULL;
    return answer_json(rq, MHD_HTTP_OK, answer);
}

int post_lint(struct request *rq)
{
    return request_work(rq, lint_work, lint_done);
}
