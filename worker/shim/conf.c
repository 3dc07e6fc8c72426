#include "common/base.h"

#include "worker/shim/conf.h"

#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/shim/record.h"

#define CONF_MAX ((size_t)64 * MIB)

static bool parse_kind(const char *text, enum step_kind *ret)
{
    static const char *const names[] = {"main", "after", "always"};
    for (size_t i = 0; text != NULL && i < ARRAY_LEN(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum step_kind)i;
            return true;
        }
    }
    return false;
}

static bool parse_step(struct conf *c, struct str *record)
{
    if (c->step_count == SHIM_STEPS_MAX) {
        return false;
    }
    struct conf_step *s = &c->steps[c->step_count];
    s->name = record_field(record);
    if (s->name == NULL || !parse_kind(record_field(record), &s->kind) ||
        !record_field_u64(record, &s->timeout_ms)) {
        return false;
    }
    s->cwd = record_field(record);
    c->step_count++;
    return s->cwd != NULL;
}

/* Appends the record's fields to a NULL-terminated list with room for `extra` more. */
static bool parse_list(struct str *record, const char ***list, size_t *count, size_t extra)
{
    const char *field;
    while ((field = record_field(record)) != NULL) {
        *list = xrealloc(*list, (*count + 2 + extra) * sizeof(**list));
        (*list)[(*count)++] = field;
        (*list)[*count] = NULL;
    }
    return true;
}

static bool parse_mask(struct conf *c, enum mask_kind kind, struct str *record)
{
    const char *field;
    while ((field = record_field(record)) != NULL) {
        if (mask_add(c->mask, kind, str_from(field)) < 0) {
            return false;
        }
    }
    return true;
}

static bool parse_record(struct conf *c, struct str record)
{
    const char *name = record_field(&record);
    struct conf_step *last = c->step_count > 0 ? &c->steps[c->step_count - 1] : NULL;
    if (name == NULL) {
        return false;
    }
    if (strcmp(name, "limits") == 0) {
        return record_field_u64(&record, &c->head_bytes) &&
               record_field_u64(&record, &c->tail_bytes) && record_field_u64(&record, &c->grace_ms);
    }
    if (strcmp(name, "timeout") == 0) {
        return record_field_u64(&record, &c->timeout_ms);
    }
    if (strcmp(name, "files") == 0) {
        return record_field_u64(&record, &c->open_files) && c->open_files > 0;
    }
    if (strcmp(name, "mask") == 0) {
        return parse_mask(c, MASK_PLAIN, &record);
    }
    if (strcmp(name, "mask_wrapped") == 0) {
        return parse_mask(c, MASK_WRAPPED, &record);
    }
    if (strcmp(name, "step") == 0) {
        return parse_step(c, &record);
    }
    if (strcmp(name, "arg") == 0 && last != NULL) {
        return parse_list(&record, &last->argv, &last->arg_count, 0);
    }
    if (strcmp(name, "env") == 0 && last != NULL) {
        return parse_list(&record, &last->envp, &last->env_count, CONF_ENV_EXTRA);
    }
    return false;
}

/* A step without an `env` record has an empty environment, still with room. */
static bool finish_steps(struct conf *c)
{
    for (size_t i = 0; i < c->step_count; i++) {
        struct conf_step *s = &c->steps[i];
        if (s->envp == NULL) {
            s->envp = xcalloc(1 + CONF_ENV_EXTRA, sizeof(*s->envp));
        }
        if (s->arg_count == 0) {
            return false;
        }
    }
    return c->step_count > 0 && c->timeout_ms > 0;
}

int conf_load(struct conf *c, const char *folder)
{
    char *path = os_path_join(folder, "shim.conf");
    struct str record;
    bool ok = true;
    *c = (struct conf){.mask = mask_new()};
    int r = os_read_file(path, CONF_MAX, &c->text);
    free(path);
    if (r == 0) {
        struct str rest = buf_str(&c->text);
        while (ok && record_next(&rest, &record)) {
            ok = parse_record(c, record);
        }
        r = ok && rest.n == 0 && finish_steps(c) ? 0 : -E_CORRUPT;
    }
    if (r < 0) {
        conf_release(c);
    }
    return r;
}

void conf_release(struct conf *c)
{
    for (size_t i = 0; i < c->step_count; i++) {
        free(c->steps[i].argv);
        free(c->steps[i].envp);
    }
    buf_release(&c->text);
    mask_free(c->mask);
    *c = (struct conf){0};
}
