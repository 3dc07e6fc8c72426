#include "common/base.h"

#include <inttypes.h>
#include <stdio.h>

#include "client/state.h"

/* A job as the caller says it, as the wire wants it. */

static ProtobufCBinaryData text_bytes(struct arena *arena, const char *text)
{
    return pb_bytes(arena, str_from(text));
}

static char *text_or_empty(struct arena *arena, const char *text)
{
    return arena_strdup(arena, str_from(text != NULL ? text : ""));
}

/* One word of a POSIX shell. */
static void quote(const char *word, struct buf *out)
{
    buf_add_char(out, '\'');
    for (; *word != '\0'; word++) {
        if (*word == '\'') {
            buf_addz(out, "'\\''");
        } else {
            buf_add_char(out, *word);
        }
    }
    buf_add_char(out, '\'');
}

static void fill_script(const struct davit_job *job, struct arena *arena, Pb__PlanJob *plan)
{
    struct buf line = BUF_INIT;

    for (const char *const *word = job->command; word != NULL && *word != NULL; word++) {
        buf_addz(&line, word == job->command ? "" : " ");
        quote(*word, &line);
    }
    plan->script = arena_array(arena, 1, sizeof(*plan->script));
    plan->n_script = 1;
    plan->script[0] = job->script != NULL ? text_bytes(arena, job->script)
                                          : pb_bytes(arena, buf_str(&line));
    buf_release(&line);
}

static void fill_variables(const struct davit_job *job, struct arena *arena, Pb__PlanJob *plan)
{
    plan->variables = arena_array(arena, job->variable_count + 1, sizeof(*plan->variables));
    for (size_t i = 0; i < job->variable_count; i++) {
        Pb__Variable *v = arena_alloc(arena, sizeof(*v));
        pb__variable__init(v);
        v->name = text_or_empty(arena, job->variables[i].name);
        v->value = text_bytes(arena, job->variables[i].value);
        plan->variables[plan->n_variables++] = v;
    }
}

/* Sorted and each once, as plans have them. */
static void fill_tags(const struct davit_job *job, struct arena *arena, Pb__PlanJob *plan)
{
    size_t count = 0;

    while (job->tags != NULL && job->tags[count] != NULL) {
        count++;
    }
    plan->tags = arena_array(arena, count + 1, sizeof(*plan->tags));
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        while (at < plan->n_tags && strcmp(plan->tags[at], job->tags[i]) < 0) {
            at++;
        }
        if (at < plan->n_tags && strcmp(plan->tags[at], job->tags[i]) == 0) {
            continue;
        }
        memmove(&plan->tags[at + 1], &plan->tags[at], (plan->n_tags - at) * sizeof(*plan->tags));
        plan->tags[at] = text_or_empty(arena, job->tags[i]);
        plan->n_tags++;
    }
}

static void fill_key(struct davit *d, const struct davit_job *job, unsigned flags,
                     struct arena *arena, Pb__EnqueueJob *ret)
{
    char uid[2 * sizeof(d->uid) + 1];

    if (job->idempotency_key != NULL) {
        ret->idempotency_key = text_bytes(arena, job->idempotency_key);
    } else if ((flags & DAVIT_ONCE) == 0) {
        str_to_hex(d->uid, sizeof(d->uid), uid);
        pthread_mutex_lock(&d->lock);
        uint64_t number = ++d->next_key;
        pthread_mutex_unlock(&d->lock);
        ret->idempotency_key = text_bytes(arena, arena_printf(arena, "%s-%" PRIu64, uid, number));
    }
}

static const char *fault_of(const struct davit_job *job)
{
    if ((job->script != NULL) == (job->command != NULL)) {
        return ": a job has a script or a command";
    }
    if (job->command != NULL && job->command[0] == NULL) {
        return ": a command has at least the name of a program";
    }
    if (job->idempotency_key != NULL &&
        (job->idempotency_key[0] == '\0' || strlen(job->idempotency_key) > 255)) {
        return ".idempotency_key: it has 1 to 255 characters";
    }
    for (size_t i = 0; i < job->variable_count; i++) {
        if (job->variables[i].name == NULL || job->variables[i].value == NULL) {
            return ".variables: each has a name and a value";
        }
    }
    return NULL;
}

bool job_text_ok(const char *text)
{
    return text == NULL || str_is_utf8(str_from(text), NULL);
}

/* What is text on the wire: with other bytes in it no broker would read the message, in any
 * session. Scripts, values of variables and keys are bytes. */
static const char *fault_of_text(const struct davit_job *job)
{
    const struct {
        const char *text, *fault;
    } table[] = {
        {job->name, ".name: no UTF-8"},
        {job->executor, ".executor: no UTF-8"},
        {job->pool, ".pool: no UTF-8"},
        {job->resource_group, ".resource_group: no UTF-8"},
    };

    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (!job_text_ok(table[i].text)) {
            return table[i].fault;
        }
    }
    for (size_t i = 0; i < job->variable_count; i++) {
        if (!job_text_ok(job->variables[i].name)) {
            return ".variables: a name is no UTF-8";
        }
    }
    for (const char *const *tag = job->tags; tag != NULL && *tag != NULL; tag++) {
        if (!job_text_ok(*tag)) {
            return ".tags: no UTF-8";
        }
    }
    return NULL;
}

int job_check(const struct davit_job *job, size_t index, struct davit_error *error)
{
    const char *fault = fault_of(job);
    char text[sizeof(error->text)];

    fault = fault != NULL ? fault : fault_of_text(job);
    if (fault == NULL) {
        return 0;
    }
    snprintf(text, sizeof(text), "jobs[%zu]%s", index, fault);
    return davit_fail(error, DAVIT_E_INVALID, text);
}

void job_fill(struct davit *d, const struct davit_job *job, unsigned flags, struct arena *arena,
              Pb__EnqueueJob *ret)
{
    Pb__PlanJob *plan = arena_alloc(arena, sizeof(*plan));
    pb__enqueue_job__init(ret);
    pb__plan_job__init(plan);
    ret->plan = plan;
    plan->name = text_or_empty(arena, job->name != NULL ? job->name : "job");
    fill_script(job, arena, plan);
    fill_variables(job, arena, plan);
    fill_tags(job, arena, plan);
    plan->executor = text_or_empty(arena, job->executor);
    plan->pool = text_or_empty(arena, job->pool);
    plan->resource_group = text_or_empty(arena, job->resource_group);
    plan->priority = job->priority;
    plan->timeout_ms = job->timeout_ms;
    plan->retry_max = job->retry;
    plan->interruptible = job->interruptible;
    plan->cpu_millis = job->cpu_millis;
    plan->memory_bytes = job->memory_bytes;
    plan->disk_bytes = job->disk_bytes;
    ret->not_before_ms = job->not_before_ms;
    ret->keep_ms = job->keep_ms;
    fill_key(d, job, flags, arena, ret);
}
