/* davit variables: what is kept for jobs to come. Values come from a file, standard input or the
 * terminal, never from the command line, which others on the machine can read. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "cli/dotenv_file.h"
#include "cli/list.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/os.h"

#define FILE_LIMIT (4u * MIB)

struct variable_options {
    const char *project;
    const char *group;
    bool instance;
    const char *environment;
    const char *from;
    const char *description;
    const char *file;
    const char *masked;
    const char *hidden;
    const char *protected;
    const char *raw;
};

/* "?project=..." of whose variables these are; `more` follows it. Heap. */
static char *query_of(struct cli *c, const struct variable_options *o, const char *more)
{
    struct buf query = BUF_INIT;
    if ((o->project != NULL) + (o->group != NULL) + o->instance > 1) {
        cli_fail(c, -E_USAGE, "one of --project, --group and --instance");
        return NULL;
    }
    if (o->instance) {
        buf_addf(&query, "%s%s", more[0] != '\0' ? "?" : "", more);
        buf_cstr(&query);
        return buf_take(&query);
    }
    char *project = o->group != NULL ? NULL : list_project(c, o->project);
    if (o->group == NULL && project == NULL) {
        return NULL;
    }
    buf_addz(&query, o->group != NULL ? "?group=" : "?project=");
    list_escape(&query, o->group != NULL ? o->group : project);
    buf_addf(&query, "%s%s", more[0] != '\0' ? "&" : "", more);
    free(project);
    return buf_take(&query);
}

/* A call on /variables or one of them. */
static int call(struct cli *c, const struct client *cl, const struct variable_options *o,
                const char *method, const char *name, const json_t *body, json_t **ret)
{
    struct buf path = BUF_INIT;
    struct buf scope = BUF_INIT;
    if (name != NULL && o->environment != NULL) {
        buf_addz(&scope, "environment_scope=");
        list_escape(&scope, o->environment);
    }
    char *query = query_of(c, o, buf_cstr(&scope));
    int r = query != NULL ? 0 : -E_USAGE;
    if (r == 0) {
        buf_addz(&path, "/variables");
        if (name != NULL) {
            buf_add_char(&path, '/');
            list_escape(&path, name);
        }
        buf_addz(&path, query);
        r = client_call(c, cl, method, buf_cstr(&path), body, NULL, ret);
    }
    free(query);
    buf_release(&scope);
    buf_release(&path);
    return r;
}

/* --- list, get --- */

static void print_variable(const json_t *v)
{
    printf("%-32s %-20s%s%s%s%s%s", json_text(v, "name"), json_text(v, "environment_scope"),
           json_flag(v, "protected") ? " protected" : "", json_flag(v, "masked") ? " masked" : "",
           json_flag(v, "hidden") ? " hidden" : "", json_flag(v, "file") ? " file" : "",
           json_flag(v, "raw") ? " raw" : "");
    printf("%s%s\n", json_text(v, "description")[0] != '\0' ? "  " : "",
           json_text(v, "description"));
}

static int fetch_all(struct cli *c, const struct client *cl, const struct variable_options *o,
                     json_t **ret)
{
    json_t *answer = NULL;
    int r = call(c, cl, o, "GET", NULL, NULL, &answer);
    if (r == 0) {
        *ret = json_incref(json_object_get(answer, "items"));
        json_decref(answer);
    }
    return r;
}

static int list(struct cli *c, const struct client *cl, const struct variable_options *o)
{
    json_t *items = NULL;
    json_t *v;
    size_t i;
    int r = fetch_all(c, cl, o, &items);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(json_pack("{s:o}", "items", items));
        return 0;
    }
    if (json_array_size(items) > 0) {
        printf("%-32s %-20s %s\n", "VARIABLE", "ENVIRONMENT", "FLAGS");
    }
    json_array_foreach(items, i, v)
    {
        print_variable(v);
    }
    json_decref(items);
    return 0;
}

static int get(struct cli *c, const struct client *cl, const struct variable_options *o,
               const char *name)
{
    json_t *v = NULL;
    int r = call(c, cl, o, "GET", name, NULL, &v);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(v);
        return 0;
    }
    if (json_is_null(json_object_get(v, "value"))) {
        json_decref(v);
        return cli_fail(c, -E_FORBIDDEN, "`%s` is hidden: only jobs get its value", name);
    }
    fputs(json_text(v, "value"), stdout);
    if (isatty(STDOUT_FILENO)) {
        putchar('\n');
    }
    json_decref(v);
    return 0;
}

/* --- set, import --- */

static int read_terminal(const struct cli *c, const char *name, struct buf *out)
{
    struct termios before;
    struct termios silent;
    char chunk[4096];
    if (tcgetattr(STDIN_FILENO, &before) < 0) {
        return cli_fail(c, -E_IO, "cannot read from the terminal");
    }
    silent = before;
    silent.c_lflag &= ~(tcflag_t)ECHO;
    fprintf(stderr, "value of %s (is not shown): ", name);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
    const char *line = fgets(chunk, sizeof(chunk), stdin);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    fputc('\n', stderr);
    if (line == NULL) {
        return cli_fail(c, -E_CANCELED, "no value was given");
    }
    buf_addz(out, line);
    crypto_wipe(chunk, sizeof(chunk));
    return 0;
}

static int read_file(const struct cli *c, const char *path, size_t limit, struct buf *out)
{
    int r = os_read_file(strcmp(path, "-") == 0 ? "/dev/stdin" : path, limit, out);
    return r < 0 ? cli_fail(c, r, "cannot read %s: %s", path, err_text(r)) : 0;
}

/* The line end that editors and echo put behind a value is none of it; in a file it may be. */
static int read_value(const struct cli *c, const struct variable_options *o, const char *name,
                      struct buf *out)
{
    int r;
    if (o->from == NULL && isatty(STDIN_FILENO)) {
        r = read_terminal(c, name, out);
    } else {
        r = read_file(c, o->from != NULL ? o->from : "-", LIMIT_VARIABLE_VALUE + 1, out);
    }
    if (r < 0) {
        return r;
    }
    bool file = o->file != NULL && strcmp(o->file, "yes") == 0;
    if (!file && out->n > 0 && out->p[out->n - 1] == '\n') {
        buf_truncate(out, out->n - 1);
    }
    if (!str_is_utf8(buf_str(out), NULL)) {
        return cli_fail(c, -E_INVALID, "the value is not UTF-8 text; encode it, in base64 say");
    }
    return 0;
}

static int add_flag(const struct cli *c, json_t *item, const char *field, const char *text)
{
    if (text == NULL) {
        return 0;
    }
    bool yes = strcmp(text, "yes") == 0;
    if (!yes && strcmp(text, "no") != 0) {
        return cli_fail(c, -E_USAGE, "--%s is yes or no, not `%s`", field, text);
    }
    json_object_set_new(item, field, json_boolean(yes));
    return 0;
}

static int add_options(const struct cli *c, const struct variable_options *o, json_t *item)
{
    int r;
    if ((r = add_flag(c, item, "file", o->file)) < 0 ||
        (r = add_flag(c, item, "masked", o->masked)) < 0 ||
        (r = add_flag(c, item, "hidden", o->hidden)) < 0 ||
        (r = add_flag(c, item, "protected", o->protected)) < 0 ||
        (r = add_flag(c, item, "raw", o->raw)) < 0) {
        return r;
    }
    if (o->environment != NULL) {
        json_object_set_new(item, "environment_scope", json_string(o->environment));
    }
    if (o->description != NULL) {
        json_object_set_new(item, "description", json_string(o->description));
    }
    return 0;
}

static bool has_flags(const struct variable_options *o)
{
    return o->file != NULL || o->masked != NULL || o->hidden != NULL || o->protected != NULL ||
           o->raw != NULL || o->description != NULL;
}

/* With flags alone, and nothing on standard input, the value stays. */
static int set(struct cli *c, const struct client *cl, const struct variable_options *o,
               const char *name, bool keep)
{
    struct buf value = BUF_INIT;
    json_t *item = json_pack("{s:s}", "name", name);
    json_t *body = json_pack("{s:[o]}", "variables", item);
    int r = add_options(c, o, item);
    if (r == 0 && keep && !has_flags(o)) {
        r = cli_fail(c, -E_USAGE, "--keep is for changing flags: there are none");
    }
    if (r == 0 && !keep) {
        r = read_value(c, o, name, &value);
        json_object_set_new(item, "value", json_stringn(buf_cstr(&value), value.n));
    }
    r = r < 0 ? r : call(c, cl, o, "PUT", NULL, body, NULL);
    crypto_wipe(value.p, value.n);
    buf_release(&value);
    json_decref(body);
    if (r == 0 && c->json) {
        cli_print_json(json_pack("{s:s}", "set", name));
    } else if (r == 0) {
        printf("%s is set\n", name);
    }
    return r;
}

static int add_all(const struct cli *c, const struct variable_options *o, const struct vars *vars,
                   json_t *list_of)
{
    int r = 0;
    for (size_t i = 0; i < vars->count && r == 0; i++) {
        const struct var *var = &vars->items[i];
        json_t *item = json_object();
        json_object_set_new(item, "name", json_stringn(var->name.p, var->name.n));
        json_object_set_new(item, "value",
                            json_stringn(var->value.p != NULL ? var->value.p : "", var->value.n));
        r = add_options(c, o, item);
        json_array_append_new(list_of, item);
    }
    return r;
}

static int import(struct cli *c, const struct client *cl, struct variable_options *o,
                  const char *path)
{
    struct buf text = BUF_INIT;
    struct arena arena;
    struct vars vars;
    const char *why = "";
    uint32_t line = 0;
    char *scope = o->environment == NULL ? dotenv_file_scope(path) : NULL;
    json_t *items = json_array();
    json_t *body = json_pack("{s:o}", "variables", items);
    o->environment = scope != NULL ? scope : o->environment;
    arena_init(&arena, 0);
    vars_init(&vars, &arena);
    int r = read_file(c, path, FILE_LIMIT, &text);
    if (r == 0 && dotenv_file_read(buf_str(&text), &vars, &line, &why) < 0) {
        r = cli_fail(c, -E_INVALID, "%s:%u: %s", path, line, why);
    }
    r = r < 0 ? r : add_all(c, o, &vars, items);
    if (r == 0 && vars.count == 0) {
        r = cli_fail(c, -E_INVALID, "%s holds no variables", path);
    }
    r = r < 0 ? r : call(c, cl, o, "PUT", NULL, body, NULL);
    if (r == 0 && c->json) {
        cli_print_json(json_pack("{s:I, s:s}", "imported", (json_int_t)vars.count,
                                 "environment_scope", o->environment ? o->environment : "*"));
    } else if (r == 0) {
        printf("%zu variables for environment %s\n", vars.count,
               o->environment != NULL ? o->environment : "*");
    }
    json_decref(body);
    crypto_wipe(text.p, text.n);
    buf_release(&text);
    arena_release(&arena);
    free(scope);
    return r;
}

/* --- export, delete --- */

static int export_one(struct cli *c, const struct client *cl, const struct variable_options *o,
                      const char *name, struct buf *out)
{
    json_t *v = NULL;
    int r = call(c, cl, o, "GET", name, NULL, &v);
    if (r < 0) {
        return r;
    }
    const json_t *value = json_object_get(v, "value");
    if (json_is_string(value)) {
        dotenv_file_add(out, str_from(name),
                        str_of(json_string_value(value), json_string_length(value)));
    } else {
        buf_addf(out, "# %s is hidden\n", name);
    }
    json_decref(v);
    return 0;
}

/* Those of one environment scope, as `import` reads them. */
static int export_all(struct cli *c, const struct client *cl, const struct variable_options *o)
{
    const char *scope = o->environment != NULL ? o->environment : "*";
    struct buf out = BUF_INIT;
    json_t *items = NULL;
    json_t *v;
    size_t i;
    int r = fetch_all(c, cl, o, &items);
    json_array_foreach(items, i, v)
    {
        if (r == 0 && strcmp(json_text(v, "environment_scope"), scope) == 0) {
            r = export_one(c, cl, o, json_text(v, "name"), &out);
        }
    }
    if (r == 0) {
        fputs(buf_cstr(&out), stdout);
    }
    json_decref(items);
    crypto_wipe(out.p, out.n);
    buf_release(&out);
    return r;
}

static int delete (struct cli *c, const struct client *cl, const struct variable_options *o,
                   const char *name)
{
    int r = call(c, cl, o, "DELETE", name, NULL, NULL);
    if (r == 0 && c->json) {
        cli_print_json(json_pack("{s:s}", "deleted", name));
    } else if (r == 0) {
        printf("%s is deleted\n", name);
    }
    return r;
}

/* --- master keys --- */

static int show_keys(struct cli *c, const struct client *cl, bool rotate)
{
    json_t *answer = NULL;
    json_t *key;
    size_t i;
    json_t *body = rotate ? json_object() : NULL;
    int r = client_call(c, cl, rotate ? "POST" : "GET",
                        rotate ? "/master-keys/rotate" : "/master-keys", body, NULL, &answer);
    json_decref(body);
    if (r < 0) {
        return r;
    }
    if (c->json) {
        cli_print_json(answer);
        return 0;
    }
    printf("%-18s %-10s %s\n", "MASTER KEY", "VARIABLES", "");
    json_array_foreach(json_object_get(answer, "items"), i, key)
    {
        printf("%-18s %-10" PRIu64 " %s\n", json_text(key, "id"), json_number(key, "variables"),
               json_flag(key, "current") ? "current" : "old");
    }
    if (json_number(answer, "unknown") > 0) {
        printf("%" PRIu64 " variables need a master key that the broker does not have\n",
               json_number(answer, "unknown"));
    }
    json_decref(answer);
    return 0;
}

/* --- the command --- */

static const struct {
    const char *name;
    size_t arguments;
} verbs[] = {
    {"list", 0},   {"get", 1},    {"set", 1},  {"delete", 1},
    {"import", 1}, {"export", 0}, {"keys", 0}, {"rotate-key", 0},
};

static int run(struct cli *c, const struct client *cl, struct variable_options *o, const char *verb,
               const char *name, bool keep)
{
    switch (verb[0]) {
    case 'g':
        return get(c, cl, o, name);
    case 's':
        return set(c, cl, o, name, keep);
    case 'd':
        return delete (c, cl, o, name);
    case 'i':
        return import(c, cl, o, name);
    case 'e':
        return export_all(c, cl, o);
    case 'k':
    case 'r':
        return show_keys(c, cl, verb[0] == 'r');
    default:
        return list(c, cl, o);
    }
}

static int check_words(const struct cli *c, const char **args, size_t count)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (count == 0 || strcmp(verbs[i].name, args[0]) == 0) {
            return count == 0 || count - 1 == verbs[i].arguments
                       ? 0
                       : cli_fail(c, -E_USAGE, "davit variables %s takes %zu argument%s",
                                  verbs[i].name, verbs[i].arguments,
                                  verbs[i].arguments == 1 ? "" : "s");
        }
    }
    return cli_fail(c, -E_USAGE,
                    "davit variables [list | get NAME | set NAME | delete NAME | import FILE | "
                    "export | keys | rotate-key]");
}

int cmd_variables(struct cli *c, int argc, char **argv)
{
    struct variable_options o = {0};
    bool keep = false;
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"project", 0, OPT_TEXT, &o.project, "NAME", "of this project (that of this folder)"},
        {"group", 0, OPT_TEXT, &o.group, "NAME", "of all projects of this group"},
        {"instance", 0, OPT_FLAG, &o.instance, NULL, "of all projects"},
        {"environment", 'e', OPT_TEXT, &o.environment, "SCOPE", "name or pattern (*); any: *"},
        {"from", 0, OPT_TEXT, &o.from, "FILE", "where the value is (standard input: -)"},
        {"keep", 0, OPT_FLAG, &keep, NULL, "change flags, keep the value"},
        {"masked", 0, OPT_TEXT, &o.masked, "yes|no", "hide it in logs"},
        {"hidden", 0, OPT_TEXT, &o.hidden, "yes|no", "masked, and nobody can read it back"},
        {"protected", 0, OPT_TEXT, &o.protected, "yes|no", "only for protected refs"},
        {"file", 0, OPT_TEXT, &o.file, "yes|no", "jobs get a file, and its path"},
        {"raw", 0, OPT_TEXT, &o.raw, "yes|no", "$ in its value is only a $"},
        {"description", 0, OPT_TEXT, &o.description, "TEXT", "for people"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, 2, &args, &count);
    if (r < 0) {
        return r;
    }
    r = check_words(c, args, count);
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = run(c, &cl, &o, count > 0 ? args[0] : "list", count > 1 ? args[1] : NULL, keep);
        client_release(&cl);
    }
    free(args);
    return r;
}
