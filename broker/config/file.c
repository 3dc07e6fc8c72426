/* The configuration file: YAML into options and declarations. */
#include "common/base.h"

#include "broker/config/file.h"

#include "common/limits.h"
#include "pipeline/yaml.h"

void file_wrong(struct file *f, const struct node *at, const char *code, const char *hint,
                const char *fmt, ...)
{
    struct buf text = BUF_INIT;
    va_list ap;

    va_start(ap, fmt);
    buf_vaddf(&text, fmt, ap);
    va_end(ap);
    diag_add(f->diags, DIAG_ERROR, code, node_at(at), hint, "%s", buf_cstr(&text));
    buf_release(&text);
}

void file_unknown(struct file *f, const struct node *key, const char *where,
                  const char *const *names, size_t count)
{
    const char *nearest = diag_nearest(key->text, names, count);
    const char *hint = nearest != NULL ? arena_printf(&f->o->arena, "did you mean `%s`?", nearest)
                                       : NULL;

    file_wrong(f, key, "unknown-key", hint, "there is no `" STR_FMT "` %s", STR_ARG(key->text),
               where);
}

bool file_mapping(struct file *f, const struct node *n, const char *what)
{
    if (node_is_null(n)) {
        return false;
    }
    if (n->kind != NODE_MAPPING) {
        file_wrong(f, n, "wrong-kind", NULL, "%s is a mapping, not %s", what, node_what(n));
        return false;
    }
    return true;
}

/* The text of a value, as the command line would have it. */
static const char *value_text(struct file *f, const struct node *n)
{
    if (n->kind != NODE_SCALAR || n->type == SCALAR_NULL) {
        return NULL;
    }
    return n->type == SCALAR_BOOL ? (n->truth ? "true" : "false")
                                  : arena_strdup(&f->o->arena, n->text);
}

static void take(struct file *f, enum option_id which, const struct node *at, const char *text)
{
    if (text == NULL || strlen(text) != strnlen(text, LIMIT_INCLUDE_NAME) ||
        !options_set(f->o, which, text)) {
        file_wrong(f, at, "wrong-value", NULL, "`%s` is %s", f->names[which],
                   option_expected(which));
    }
}

/* NAME: URL, one a project. */
static void take_projects(struct file *f, const struct node *n)
{
    if (!file_mapping(f, n, "`include_project`")) {
        return;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        const char *url = value_text(f, n->pairs[i].value);
        take(f, OPTION_projects, n->pairs[i].value,
             url == NULL
                 ? NULL
                 : arena_printf(&f->o->arena, STR_FMT "=%s", STR_ARG(n->pairs[i].key->text), url));
    }
}

static void take_pair(struct file *f, const struct pair *p)
{
    if (str_eqz(p->key->text, "pools")) {
        file_pools(f, p->value);
        return;
    }
    if (str_eqz(p->key->text, "projects")) {
        file_projects(f, p->value);
        return;
    }
    if (str_eqz(p->key->text, "targets")) {
        file_targets(f, p->value);
        return;
    }
    for (enum option_id i = 0; i < OPTION_COUNT; i++) {
        if (!str_eqz(p->key->text, f->names[i])) {
            continue;
        }
        if (i == OPTION_projects) {
            take_projects(f, p->value);
        } else if (!node_is_null(p->value)) {
            take(f, i, p->value, value_text(f, p->value));
        }
        return;
    }
    file_unknown(f, p->key, "in the configuration", f->names, ARRAY_LEN(f->names));
}

/* "keep-pipelines" of the command line is keep_pipelines here. */
static void name_options(struct file *f)
{
    for (enum option_id i = 0; i < OPTION_COUNT; i++) {
        char *name = arena_strdup(&f->o->arena, str_from(option_info(i)->name));
        for (char *p = name; *p != '\0'; p++) {
            *p = *p == '-' ? '_' : *p;
        }
        f->names[i] = name;
    }
    f->names[OPTION_COUNT] = "pools";
    f->names[OPTION_COUNT + 1] = "projects";
    f->names[OPTION_COUNT + 2] = "targets";
}

int options_read(struct options *o, const char *file, struct str text, struct diags *diags)
{
    struct file f = {.o = o, .diags = diags};
    struct yaml_file yaml;

    name_options(&f);
    if (yaml_read(&o->arena, file, text, diags, &yaml) < 0) {
        return -E_INVALID;
    }
    if (yaml.header != NULL) {
        file_wrong(&f, yaml.header, "yaml-documents", NULL, "one document is enough");
    }
    if (file_mapping(&f, yaml.body, "the configuration")) {
        for (uint32_t i = 0; i < yaml.body->count; i++) {
            take_pair(&f, &yaml.body->pairs[i]);
        }
    }
    /* What the reader of pipelines warns of, as a key that stands there twice, is a mistake here.
     */
    for (size_t i = 0; i < diags->count; i++) {
        diags->items[i].level = DIAG_ERROR;
    }
    return diags->count > 0 ? -E_INVALID : 0;
}
