/* Jobs without a pipeline: a list of them becomes one command. Whatever is wrong is answered with
 * its place: jobs[3].tags[0]. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/api/action.h"
#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/scope.h"
#include "broker/api/server.h"
#include "broker/api/variables.h"
#include "broker/core/core.h"
#include "broker/core/query.h"
#include "common/os.h"

/* A body of this size is read on the connection's own thread: going elsewhere costs more. */
#define SMALL_BODY_BYTES (32u * KIB)
/* People want to look at what has run; programs that do not say so. */
#define DEFAULT_KEEP_MS  (24ull * 3600 * 1000)
#define SHOWN_NAME_BYTES 60u

/* One job while it is read; texts point into the body or the arena. */
struct reading {
    struct request *rq;
    const json_t *item;
    struct arena *arena; /* the post's */
    uint64_t now_ms;
    size_t index;
    const char *project;
    const char *header_key; /* Idempotency-Key of the whole request; NULL: none */
    uint64_t delay_ms;      /* of the job, as was asked for */
    Pb__PlanJob *plan;
    Pb__EnqueueJob *job;
};

/* Texts of the body go with it; the post's live on. */
static char *keep(const struct reading *in, const char *text)
{
    return arena_strdup(in->arena, str_from(text));
}

/* A list of texts. *ret_count 0: it is absent or empty. */
static int read_texts(struct reading *in, const char *name, size_t max, const char *what,
                      const json_t **ret, size_t *ret_count)
{
    int r = body_array(in->rq, in->item, name, max, ret);
    *ret_count = r == 0 && *ret ? json_array_size(*ret) : 0;
    for (size_t i = 0; i < *ret_count; i++) {
        if (!json_is_string(json_array_get(*ret, i))) {
            return request_fail(in->rq, -E_INVALID, "`%s%s[%zu]` must be %s", in->rq->where, name,
                                i, what);
        }
    }
    return r;
}

/* As a POSIX shell reads it: quoted, unless there is nothing to quote. */
static void add_word(struct buf *line, struct str word)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "@%+=:,./-_";
    size_t safe = 0;
    while (safe < word.n && memchr(plain, word.p[safe], sizeof(plain) - 1)) {
        safe++;
    }
    if (word.n > 0 && safe == word.n) {
        buf_add(line, word.p, word.n);
        return;
    }
    buf_addz(line, "'");
    for (size_t i = 0; i < word.n; i++) {
        if (word.p[i] == '\'') {
            buf_addz(line, "'\\''");
        } else {
            buf_add(line, &word.p[i], 1);
        }
    }
    buf_addz(line, "'");
}

static int read_command(struct reading *in, const json_t *words, size_t count)
{
    struct buf line = BUF_INIT;
    for (size_t i = 0; i < count; i++) {
        const json_t *word = json_array_get(words, i);
        buf_addz(&line, i > 0 ? " " : "");
        add_word(&line, str_of(json_string_value(word), json_string_length(word)));
    }
    in->plan->script = arena_array(in->arena, 1, sizeof(*in->plan->script));
    in->plan->script[in->plan->n_script++] = pb_bytes(in->arena, buf_str(&line));
    buf_release(&line);
    return 0;
}

/* Either `command`, the words of one, or `script`, lines of a shell; or an action was read. */
static int read_script(struct reading *in)
{
    const json_t *words, *lines;
    size_t word_count, line_count;
    const char *text = NULL;
    int r;
    if ((r = read_texts(in, "command", LIMIT_ENQUEUE_LINES, "a word", &words, &word_count)) < 0) {
        return r;
    }
    if (json_is_string(json_object_get(in->item, "script"))) {
        r = body_text(in->rq, in->item, "script", LIMIT_ENQUEUE_BYTES, &text);
        line_count = text && text[0] != '\0';
    } else {
        r = read_texts(in, "script", LIMIT_ENQUEUE_LINES, "a line", &lines, &line_count);
    }
    if (r < 0) {
        return r;
    }
    if ((word_count > 0) + (line_count > 0) + (in->plan->action != NULL) != 1) {
        return request_fail(in->rq, -E_INVALID,
                            "jobs[%zu] needs either `script` or `command` or `action`", in->index);
    }
    if (in->plan->action != NULL) {
        return 0;
    }
    if (word_count > 0) {
        return read_command(in, words, word_count);
    }
    in->plan->script = arena_array(in->arena, line_count, sizeof(*in->plan->script));
    for (; in->plan->n_script < line_count; in->plan->n_script++) {
        const json_t *line = text ? NULL : json_array_get(lines, in->plan->n_script);
        in->plan->script[in->plan->n_script] = pb_bytes(
            in->arena,
            text ? str_from(text) : str_of(json_string_value(line), json_string_length(line)));
    }
    return 0;
}

/* The first line of what it runs, as far as that makes a name. */
static char *default_name(const struct reading *in)
{
    if (in->plan->action != NULL) {
        return action_name(in->arena, in->plan->action);
    }
    struct str line = pb_str(in->plan->script[0]);
    size_t n = 0;
    while (n < line.n && (unsigned char)line.p[n] >= ' ' && line.p[n] != 0x7f) {
        size_t step = str_char_length(str_sub(line, n, line.n));
        if (n + step > SHOWN_NAME_BYTES) {
            break;
        }
        n += step;
    }
    struct str name = str_trim(str_sub(line, 0, n));
    return arena_strdup(in->arena, name.n > 0 ? name : STR("job"));
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, each once, as the core wants them. */
static int read_tags(struct reading *in)
{
    const json_t *list;
    size_t count;
    int r = read_texts(in, "tags", LIMIT_TAGS, "a name", &list, &count);
    if (r < 0 || count == 0) {
        return r;
    }
    char **tags = arena_array(in->arena, count, sizeof(*tags));
    for (size_t i = 0; i < count; i++) {
        const char *tag = json_string_value(json_array_get(list, i));
        if (!body_is_name(tag) || strlen(tag) > LIMIT_NAME) {
            return request_fail(in->rq, -E_INVALID, "`jobs[%zu].tags[%zu]` is no name of a tag",
                                in->index, i);
        }
        tags[i] = keep(in, tag);
    }
    qsort(tags, count, sizeof(*tags), compare_texts);
    in->plan->tags = tags;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(tags[i], tags[in->plan->n_tags - 1]) != 0) {
            tags[in->plan->n_tags++] = tags[i];
        }
    }
    return 0;
}

static int read_names(struct reading *in)
{
    const char *name = NULL, *executor = "", *pool = "", *group = "";
    int r;
    if ((r = body_name(in->rq, in->item, "name", &name)) < 0 ||
        (r = body_name(in->rq, in->item, "executor", &executor)) < 0 ||
        (r = body_name(in->rq, in->item, "pool", &pool)) < 0 ||
        (r = body_name(in->rq, in->item, "resource_group", &group)) < 0) {
        return r;
    }
    in->plan->name = name ? keep(in, name) : default_name(in);
    in->plan->executor = keep(in, executor);
    in->plan->pool = keep(in, pool);
    in->plan->resource_group = keep(in, group);
    return 0;
}

static int read_wishes(struct reading *in)
{
    struct request *rq = in->rq;
    Pb__PlanJob *plan = in->plan;
    int64_t priority = 0;
    uint64_t timeout_ms = 0;
    bool interruptible = false;
    int r;
    if ((r = body_i64(rq, in->item, "priority", -LIMIT_PRIORITY, LIMIT_PRIORITY_ADMIN, &priority)) <
            0 ||
        (r = body_duration(rq, in->item, "timeout", LIMIT_TIMEOUT_MS, &timeout_ms)) < 0 ||
        (r = body_bool(rq, in->item, "interruptible", &interruptible)) < 0 ||
        (r = body_cpu(rq, in->item, "cpu", &plan->cpu_millis)) < 0 ||
        (r = body_size(rq, in->item, "memory", &plan->memory_bytes)) < 0 ||
        (r = body_size(rq, in->item, "disk", &plan->disk_bytes)) < 0) {
        return r;
    }
    if (priority > LIMIT_PRIORITY && rq->who.role != ROLE_ADMIN) {
        return request_fail(rq, -E_FORBIDDEN,
                            "`jobs[%zu].priority`: above %d is for administrators", in->index,
                            LIMIT_PRIORITY);
    }
    plan->priority = (int32_t)priority;
    plan->timeout_ms = timeout_ms;
    plan->interruptible = interruptible;
    return 0;
}

/* What becomes of it when its worker is lost. */
static int read_policy(struct reading *in)
{
    const char *text = NULL;
    int r = body_text(in->rq, in->item, "on_worker_lost", LIMIT_NAME, &text);
    if (r == 0 && (!text || worker_loss_from_text(text, &in->plan->on_worker_lost))) {
        /* of a job the word counts more than its pool's */
        if (text && in->plan->on_worker_lost == PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE) {
            in->plan->on_worker_lost = PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE_ALWAYS;
        }
        return 0;
    }
    return r < 0 ? r
                 : request_fail(in->rq, -E_INVALID,
                                "`jobs[%zu].on_worker_lost` is `requeue`, `fail` or `wait`",
                                in->index);
}

/* When: at once, not before a time, or after a delay from now. */
static int read_start(struct reading *in)
{
    const char *time = NULL;
    uint64_t delay_ms = UINT64_MAX;
    uint64_t at_ms = 0;
    int r;
    if ((r = body_text(in->rq, in->item, "not_before", LIMIT_NAME, &time)) < 0 ||
        (r = body_duration(in->rq, in->item, "delay", LIMIT_NOT_BEFORE_MS, &delay_ms)) < 0) {
        return r;
    }
    if (time && delay_ms != UINT64_MAX) {
        return request_fail(in->rq, -E_INVALID, "jobs[%zu] has both `not_before` and `delay`",
                            in->index);
    }
    if (time &&
        (str_to_time_ms(str_from(time), &at_ms) < 0 || at_ms > in->now_ms + LIMIT_NOT_BEFORE_MS)) {
        return request_fail(in->rq, -E_INVALID,
                            "`jobs[%zu].not_before` must be a time like 2026-02-03T04:05:06Z, "
                            "within a year",
                            in->index);
    }
    if (!time && delay_ms != UINT64_MAX && delay_ms > 0) {
        at_ms = in->now_ms + delay_ms;
    }
    in->job->not_before_ms = at_ms;
    in->delay_ms = time || delay_ms == UINT64_MAX ? 0 : delay_ms;
    return 0;
}

/* The job's own key, or one made of the request's, once all else is read: a repeated `delay` is the
 * same wish, if not the same time. */
static int read_key(struct reading *in)
{
    const char *key = NULL;
    uint8_t hash[SHA256_BYTES];
    struct buf text = BUF_INIT;
    int r = body_text(in->rq, in->item, "idempotency_key", LIMIT_IDEMPOTENCY_KEY, &key);
    if (r < 0 || (!key && !in->header_key)) {
        return r;
    }
    if (key) {
        buf_addz(&text, key);
    } else {
        buf_addf(&text, "%s[%zu]", in->header_key, in->index);
    }
    r = auth_idempotency(in->rq->who.name, buf_str(&text), hash);
    buf_release(&text);
    if (r < 0) {
        return request_fail(in->rq, r, "`%s%s` must be 1 to %u printable characters",
                            key ? in->rq->where : "", key ? "idempotency_key" : "Idempotency-Key",
                            LIMIT_IDEMPOTENCY_KEY);
    }
    in->job->idempotency_key = pb_bytes(in->arena, str_of(hash, sizeof(hash)));
    core_enqueue_hash(in->project, in->job, in->delay_ms, hash);
    in->job->body_hash = pb_bytes(in->arena, str_of(hash, sizeof(hash)));
    return 0;
}

#define JOB_FIELDS                                                                               \
    "name script command action variables tags executor pool priority not_before delay timeout " \
    "retry "                                                                                     \
    "keep resource_group interruptible on_worker_lost cpu memory disk idempotency_key"

static int read_job(struct reading *in)
{
    uint64_t keep_ms = DEFAULT_KEEP_MS;
    int64_t retry = 0;
    int r;
    if (!json_is_object(in->item)) {
        return request_fail(in->rq, -E_INVALID, "`jobs[%zu]` must be an object", in->index);
    }
    body_at(in->rq, "jobs[%zu].", in->index);
    if ((r = body_fields(in->rq, in->item, "", JOB_FIELDS)) < 0 ||
        (r = action_read(in->rq, in->item, in->index, in->arena, &in->plan->action)) < 0 ||
        (r = read_script(in)) < 0 || (r = read_names(in)) < 0 || (r = read_tags(in)) < 0 ||
        (r = read_wishes(in)) < 0 || (r = read_policy(in)) < 0 || (r = read_start(in)) < 0 ||
        (r = body_duration(in->rq, in->item, "keep", LIMIT_EXPIRE_MS, &keep_ms)) < 0 ||
        (r = body_i64(in->rq, in->item, "retry", 0, LIMIT_RETRIES, &retry)) < 0) {
        return r;
    }
    in->plan->retry_max = (uint32_t)retry;
    in->job->keep_ms = keep_ms;
    r = variables_read(in->rq, in->item, in->arena, &in->plan->variables, &in->plan->n_variables);
    body_at(in->rq, "jobs[%zu].", in->index);
    return r < 0 ? r : read_key(in);
}

static int read_jobs(struct request *rq, const json_t *list, struct post *post,
                     Pb__JobsEnqueue *command)
{
    size_t count = json_array_size(list);
    struct reading in = {.rq = rq,
                         .arena = post_arena(post),
                         .now_ms = os_realtime_ms(),
                         .project = command->project,
                         .header_key = request_header(rq, "Idempotency-Key")};
    command->jobs = arena_array(in.arena, count, sizeof(Pb__EnqueueJob *));
    for (; in.index < count; in.index++) {
        in.plan = arena_alloc(in.arena, sizeof(*in.plan));
        in.job = arena_alloc(in.arena, sizeof(*in.job));
        pb__plan_job__init(in.plan);
        pb__enqueue_job__init(in.job);
        in.item = json_array_get(list, in.index);
        in.job->plan = in.plan;
        int r = read_job(&in);
        if (r < 0) {
            return r;
        }
        command->jobs[command->n_jobs++] = in.job;
    }
    size_t size = pb__jobs_enqueue__get_packed_size(command);
    return size <= LIMIT_ENQUEUE_BYTES
               ? 0
               : request_fail(rq, -E_TOO_BIG,
                              "the jobs come to %zu bytes, %u are allowed: send fewer at a time",
                              size, LIMIT_ENQUEUE_BYTES);
}

static int read_body(struct request *rq, const json_t *body, struct post *post)
{
    Pb__JobsEnqueue *command = arena_alloc(post_arena(post), sizeof(*command));
    const json_t *list = NULL;
    const char *project = NULL;
    int r;
    pb__jobs_enqueue__init(command);
    if ((r = body_fields(rq, body, "", "project jobs")) < 0 ||
        (r = body_text(rq, body, "project", LIMIT_NAME, &project)) < 0 ||
        (r = body_array(rq, body, "jobs", LIMIT_ENQUEUE_JOBS, &list)) < 0) {
        return r;
    }
    if (!project || !str_is_project_name(str_from(project))) {
        return request_fail(rq, -E_INVALID, "field `project` must name a project: group/name");
    }
    if ((r = scope_project_allowed(rq, project)) < 0) {
        return r;
    }
    if (!list || json_array_size(list) == 0) {
        return request_fail(rq, -E_INVALID, "field `jobs` is missing or empty");
    }
    command->project = arena_strdup(post_arena(post), str_from(project));
    post_command(post)->body_case = PB__COMMAND__BODY_JOBS_ENQUEUE;
    post_command(post)->jobs_enqueue = command;
    return read_jobs(rq, list, post, command);
}

/* Makes the command of the body. */
static int enqueue_read(struct request *rq)
{
    json_t *body;
    int r = body_parse(rq, false, &body);
    if (r < 0) {
        return r;
    }
    rq->post = request_post_new(rq);
    r = read_body(rq, body, rq->post);
    json_decref(body);
    return r;
}

static int enqueue_done(struct request *rq)
{
    bool made = false;
    if (rq->result < 0) {
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    json_t *jobs = json_array();
    for (size_t i = 0; i < rq->reply.job_count; i++) {
        const struct reply_job *job = &rq->reply.jobs[i];
        made |= !job->duplicate;
        json_array_append_new(jobs, json_pack("{s:I, s:b}", "id", (json_int_t)job->job_id,
                                              "duplicate", (int)job->duplicate));
    }
    return answer_json(rq, made ? MHD_HTTP_CREATED : MHD_HTTP_OK, json_pack("{s:o}", "jobs", jobs));
}

static int enqueue_built(struct request *rq)
{
    struct post *post = rq->post;
    if (rq->result < 0) {
        return rq->result;
    }
    rq->post = NULL;
    return request_post(rq, post, enqueue_done);
}

int post_jobs(struct request *rq)
{
    if (rq->body.n > SMALL_BODY_BYTES) {
        return request_work(rq, enqueue_read, enqueue_built);
    }
    rq->result = enqueue_read(rq);
    return enqueue_built(rq);
}
