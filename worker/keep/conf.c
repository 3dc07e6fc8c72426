#include "common/base.h"

#include "worker/keep/conf.h"

#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/shim/record.h"

#define CONF_MAX ((size_t)64 * MIB)

static void add_env(struct keep_conf *c, const char *entry)
{
    c->envp = xrealloc(c->envp, (c->env_count + 2) * sizeof(*c->envp));
    c->envp[c->env_count++] = entry;
    c->envp[c->env_count] = NULL;
}

static bool parse_mask(struct keep_conf *c, enum mask_kind kind, struct str *record)
{
    const char *field;

    while ((field = record_field(record)) != NULL) {
        if (mask_add(c->mask, kind, str_from(field)) < 0) {
            return false;
        }
    }
    return true;
}

static bool parse_text(struct str *record, const char **ret)
{
    *ret = record_field(record);
    return *ret != NULL;
}

static bool parse_record(struct keep_conf *c, struct str record)
{
    const char *name = record_field(&record);
    const char *entry;

    if (name == NULL) {
        return false;
    }
    if (strcmp(name, "grace") == 0) {
        return record_field_u64(&record, &c->grace_ms);
    }
    if (strcmp(name, "log") == 0) {
        return record_field_u64(&record, &c->log_bytes);
    }
    if (strcmp(name, "cwd") == 0) {
        return parse_text(&record, &c->cwd);
    }
    if (strcmp(name, "command") == 0) {
        return parse_text(&record, &c->command);
    }
    if (strcmp(name, "mask") == 0) {
        return parse_mask(c, MASK_PLAIN, &record);
    }
    if (strcmp(name, "mask_wrapped") == 0) {
        return parse_mask(c, MASK_WRAPPED, &record);
    }
    if (strcmp(name, "env") != 0 || !parse_text(&record, &entry)) {
        return false;
    }
    add_env(c, entry);
    return true;
}

int keep_conf_load(struct keep_conf *c, const char *folder)
{
    char *path = os_path_join(folder, "keep.conf");
    struct buf mark = BUF_INIT;
    struct str record;
    bool ok = true;

    *c = (struct keep_conf){.mask = mask_new()};
    buf_addf(&mark, "DAVIT_JOB_FOLDER=%s", folder);
    c->mark = buf_take(&mark);
    add_env(c, c->mark);
    int r = os_read_file(path, CONF_MAX, &c->text);
    free(path);
    if (r == 0) {
        struct str rest = buf_str(&c->text);
        while (ok && record_next(&rest, &record)) {
            ok = parse_record(c, record);
        }
        ok = ok && rest.n == 0 && c->cwd != NULL && c->command != NULL && c->log_bytes > 0;
        r = ok ? 0 : -E_CORRUPT;
    }
    if (r < 0) {
        keep_conf_release(c);
    }
    return r;
}

void keep_conf_release(struct keep_conf *c)
{
    free(c->envp);
    free(c->mark);
    buf_release(&c->text);
    mask_free(c->mask);
    *c = (struct keep_conf){0};
}
