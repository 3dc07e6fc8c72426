#include "common/base.h"

#include "worker/shim/conf.h"

#include <stdlib.h>
#include <unistd.h>

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

/* Its place among the arguments is kept by the last one, which complains best when it is run. */
static bool parse_either(struct str *record, struct conf_step *s)
{
    struct str fields = *record;
    if (s->either != NULL || !parse_list(record, &s->either, &s->either_count, 0) ||
        s->either_count == 0) {
        return false;
    }
    s->either_at = s->arg_count;
    while (fields.n > 0) {
        const char *last = record_field(&fields);
        if (fields.n == 0) {
            struct str one = str_of(last, strlen(last) + 1);
            return parse_list(&one, &s->argv, &s->arg_count, 0);
        }
    }
    return false;
}

static bool parse_of_step(struct conf_step *s, const char *name, struct str record)
{
    if (strcmp(name, "arg") == 0) {
        return parse_list(&record, &s->argv, &s->arg_count, 0);
    }
    if (strcmp(name, "either") == 0) {
        return parse_either(&record, s);
    }
    if (strcmp(name, "env") == 0) {
        return parse_list(&record, &s->envp, &s->env_count, CONF_ENV_EXTRA);
    }
    s->quiet = strcmp(name, "quiet") == 0;
    return s->quiet;
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
    if (strcmp(name, "inherit") == 0) {
        c->inherit = true;
        return true;
    }
    return last != NULL && parse_of_step(last, name, record);
}

static bool names_same(const char *a, const char *b)
{
    size_t n = strcspn(a, "=");
    return strncmp(a, b, n) == 0 && b[n] == '=';
}

/* What the step's own environment does not name of ours goes behind it. */
static void inherit(struct conf_step *s)
{
    size_t own = s->env_count;
    size_t more = 0;
    while (environ[more] != NULL) {
        more++;
    }
    s->envp = xrealloc(s->envp, (own + more + 1 + CONF_ENV_EXTRA) * sizeof(*s->envp));
    for (size_t i = 0; i < more; i++) {
        bool named = false;
        for (size_t k = 0; k < own && !named; k++) {
            named = names_same(s->envp[k], environ[i]);
        }
        if (!named) {
            s->envp[s->env_count++] = environ[i];
        }
    }
    s->envp[s->env_count] = NULL;
}

/* A step without an `env` record has an empty environment, still with room. */
static bool finish_steps(struct conf *c)
{
    for (size_t i = 0; i < c->step_count; i++) {
        struct conf_step *s = &c->steps[i];
        if (s->envp == NULL) {
            s->envp = xcalloc(1 + CONF_ENV_EXTRA, sizeof(*s->envp));
        }
        if (c->inherit) {
            inherit(s);
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
        free(c->steps[i].either);
        free(c->steps[i].envp);
    }
    buf_release(&c->text);
    mask_free(c->mask);
    *c = (struct conf){0};
}
