/* davit enqueue: commands as jobs of their own, without a pipeline file. */
#include "common/base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/action.h"
#include "cli/follow.h"
#include "cli/list.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/os.h"

#define COUNT_MAX      1000000u
#define LINE_MAX_BYTES (64u * KIB)
/* A request stays below LIMIT_ENQUEUE_BYTES: beside its JSON a job has a name and two hashes. */
#define REQUEST_BYTES (LIMIT_ENQUEUE_BYTES - 64u * KIB)
#define JOB_BYTES     200u
/* Behind the key comes where a job stands: "+998976[1023]" at most. */
#define KEY_MAX (LIMIT_IDEMPOTENCY_KEY - 15u)

struct enqueue {
    const char *project;
    const char *file;
    const char *name;
    const char *tags;
    const char *executor;
    const char *pool;
    const char *group;
    const char *not_before;
    const char *delay;
    const char *timeout;
    const char *keep;
    const char *key;
    const char *cpu, *memory, *disk;
    const char *priority;
    const char *lost;
    uint64_t retry;
    uint64_t count;
    bool interruptible;
    bool follow;
    bool quiet;
    struct opt_list variables;
    struct action_options action;
    json_t *wishes; /* what all jobs have in common */
    json_t *jobs;   /* to be sent */
};

/* --- from options to jobs --- */

static int need_text(const struct cli *c, const char *option, const char *text)
{
    return text == NULL || str_is_utf8(str_from(text), NULL)
               ? 0
               : cli_fail(c, -E_USAGE, "--%s is no UTF-8", option);
}

/* Before anything is sent: the broker would refuse a long one only behind the first thousand jobs,
 * and an empty one, as of a shell's unset variable, would tell nothing apart. */
static int check_key(const struct cli *c, const char *key)
{
    size_t n = 0;
    while (key != NULL && key[n] > ' ' && key[n] <= '~') {
        n++;
    }
    return key == NULL || (n > 0 && n <= KEY_MAX && key[n] == '\0')
               ? 0
               : cli_fail(c, -E_USAGE, "--key wants 1 to %u printable characters, no blanks",
                          KEY_MAX);
}

static int read_variables(const struct cli *c, const struct enqueue *e, json_t *list)
{
    for (size_t i = 0; i < e->variables.count; i++) {
        struct str value = str_from(e->variables.items[i]);
        struct str name;
        int r = need_text(c, "var", e->variables.items[i]);
        if (r < 0) {
            return r;
        }
        if (str_chr(value, '=') < 0) {
            return cli_fail(c, -E_USAGE, "--var wants NAME=VALUE, not `%s`", e->variables.items[i]);
        }
        str_split(&value, '=', &name);
        json_t *text = json_stringn(value.p, value.n);
        json_array_append_new(
            list, json_pack("{s:s%, s:o, s:b}", "name", name.p, name.n, "value", text, "raw", 1));
    }
    return 0;
}

/* The broker reads the values: it says what is wrong with them. */
static int read_wishes(const struct cli *c, struct enqueue *e)
{
    const struct {
        const char *option, *field, *text;
    } texts[] = {{"name", "name", e->name},
                 {"executor", "executor", e->executor},
                 {"pool", "pool", e->pool},
                 {"resource-group", "resource_group", e->group},
                 {"timeout", "timeout", e->timeout},
                 {"keep", "keep", e->keep},
                 {"not-before", "not_before", e->not_before},
                 {"delay", "delay", e->delay},
                 {"cpu", "cpu", e->cpu},
                 {"memory", "memory", e->memory},
                 {"disk", "disk", e->disk},
                 {"on-worker-lost", "on_worker_lost", e->lost}};
    int64_t priority;
    e->wishes = json_object();
    int r = need_text(c, "tags", e->tags);
    for (size_t i = 0; i < ARRAY_LEN(texts) && r == 0; i++) {
        r = need_text(c, texts[i].option, texts[i].text);
        if (texts[i].text != NULL) {
            json_object_set_new(e->wishes, texts[i].field, json_string(texts[i].text));
        }
    }
    if (r < 0) {
        return r;
    }
    if (e->priority != NULL) {
        if (str_to_i64(str_from(e->priority), &priority) < 0) {
            return cli_fail(c, -E_USAGE, "--priority wants a number, not `%s`", e->priority);
        }
        json_object_set_new(e->wishes, "priority", json_integer(priority));
    }
    if (e->tags != NULL) {
        json_object_set_new(e->wishes, "tags", list_words(e->tags));
    }
    if (e->retry > 0) {
        json_object_set_new(e->wishes, "retry", json_integer((json_int_t)e->retry));
    }
    if (e->interruptible) {
        json_object_set_new(e->wishes, "interruptible", json_true());
    }
    json_t *variables = json_array();
    json_object_set_new(e->wishes, "variables", variables);
    return read_variables(c, e, variables);
}

/* Copy `index` of `total` knows which it is, as with `parallel:`. */
static void number(json_t *job, uint64_t index, uint64_t total)
{
    json_t *variables = json_deep_copy(json_object_get(job, "variables"));
    const char *name = json_text(job, "name");
    struct buf text = BUF_INIT;
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {{"CI_NODE_INDEX", index}, {"CI_NODE_TOTAL", total}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        buf_clear(&text);
        buf_addf(&text, "%" PRIu64, rows[i].value);
        json_array_append_new(
            variables, json_pack("{s:s, s:s}", "name", rows[i].name, "value", buf_cstr(&text)));
    }
    json_object_set_new(job, "variables", variables);
    if (name[0] != 0) {
        buf_clear(&text);
        buf_addf(&text, "%s %" PRIu64 "/%" PRIu64, name, index, total);
        json_object_set_new(job, "name", json_string(buf_cstr(&text)));
    }
    buf_release(&text);
}

/* Takes `work` over, a script or a command. */
static void add_jobs(struct enqueue *e, const char *field, json_t *work)
{
    for (uint64_t i = 1; i <= e->count; i++) {
        json_t *job = json_copy(e->wishes);
        json_object_set(job, field, work);
        if (e->count > 1) {
            number(job, i, e->count);
        }
        json_array_append_new(e->jobs, job);
    }
    json_decref(work);
}

/* One argument is a line for a shell, several are the words of a command. */
static int from_arguments(const struct cli *c, struct enqueue *e, const char **args, size_t count)
{
    json_t *words = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *word = json_string(args[i]);
        if (word == NULL) {
            json_decref(words);
            return cli_fail(c, -E_USAGE, "argument %zu is no UTF-8", i + 1);
        }
        json_array_append_new(words, word);
    }
    add_jobs(e, count == 1 ? "script" : "command", words);
    return 0;
}

/* A line is a job, unless it is blank or a comment. */
static int from_lines(const struct cli *c, struct enqueue *e, FILE *in, const char *name)
{
    char *line = NULL;
    size_t size = 0;
    size_t number_of = 0;
    int r = 0;
    ssize_t n;
    while (r == 0 && (n = getline(&line, &size, in)) >= 0) {
        struct str text = str_trim(str_of(line, (size_t)n));
        size_t at;
        number_of++;
        if (text.n == 0 || text.p[0] == '#') {
            continue;
        }
        if (text.n > LINE_MAX_BYTES || !str_is_utf8(text, &at)) {
            r = cli_fail(c, -E_INVALID, "%s:%zu: %s", name, number_of,
                         text.n > LINE_MAX_BYTES ? "the line is too long" : "no UTF-8");
        } else if (json_array_size(e->jobs) + e->count > COUNT_MAX) {
            r = cli_fail(c, -E_LIMIT, "%s:%zu: more than %u jobs", name, number_of, COUNT_MAX);
        } else {
            add_jobs(e, "script", json_stringn(text.p, text.n));
        }
    }
    if (r == 0 && ferror(in)) {
        r = cli_fail(c, -E_IO, "cannot read %s", name);
    }
    free(line);
    return r;
}

static int from_file(const struct cli *c, struct enqueue *e, const char *path)
{
    if (strcmp(path, "-") == 0) {
        return from_lines(c, e, stdin, "standard input");
    }
    FILE *in = fopen(path, "re");
    if (in == NULL) {
        return cli_fail(c, -E_NOT_FOUND, "cannot open %s: %s", path, strerror(errno));
    }
    int r = from_lines(c, e, in, path);
    fclose(in);
    return r;
}

/* --- sending --- */

/* How many jobs from `first` on go into one request. */
static size_t chunk(const struct enqueue *e, size_t first)
{
    size_t bytes = 0;
    size_t n = 0;
    while (first + n < json_array_size(e->jobs) && n < LIMIT_ENQUEUE_JOBS) {
        bytes += json_dumpb(json_array_get(e->jobs, first + n), NULL, 0, JSON_COMPACT) + JOB_BYTES;
        if (n > 0 && bytes > REQUEST_BYTES) {
            break;
        }
        n++;
    }
    return n;
}

static int send_chunk(struct cli *c, const struct client *cl, const struct enqueue *e,
                      const char *key, size_t first, size_t n, json_t *made)
{
    struct buf chunk_key = BUF_INIT;
    json_t *jobs = json_array();
    json_t *answer = NULL;
    for (size_t i = 0; i < n; i++) {
        json_array_append(jobs, json_array_get(e->jobs, first + i));
    }
    json_t *body = json_pack("{s:s, s:o}", "project", e->project, "jobs", jobs);
    buf_addf(&chunk_key, first > 0 ? "%s+%zu" : "%s", key, first);
    int r = client_send(c, cl, "/jobs", body, buf_cstr(&chunk_key), &answer);
    if (r == 0) {
        json_array_extend(made, json_object_get(answer, "jobs"));
    }
    json_decref(answer);
    json_decref(body);
    buf_release(&chunk_key);
    return r;
}

/* Each request has a key, so that it can be sent again when the answer was lost. */
static int send_all(struct cli *c, const struct client *cl, const struct enqueue *e, json_t *made)
{
    char *random = crypto_token("");
    const char *key = e->key != NULL ? e->key : random;
    int r = 0;
    for (size_t first = 0; r == 0 && first < json_array_size(e->jobs);) {
        size_t n = chunk(e, first);
        r = send_chunk(c, cl, e, key, first, n, made);
        first += n;
    }
    free(random);
    return r;
}

/* --- afterwards --- */

static void print_made(const json_t *made)
{
    size_t i;
    json_t *job;
    json_array_foreach(made, i, job)
    {
        printf("job %" PRIu64 "%s\n", json_number(job, "id"),
               json_flag(job, "duplicate") ? " (known already)" : "");
    }
}

/* The log of one job, or what becomes of several. 0, or 1 when one of them did not succeed. */
static int follow_made(struct cli *c, const struct client *cl, const struct enqueue *e,
                       json_t *made)
{
    bool one = json_array_size(made) == 1;
    bool good = true;
    size_t i;
    json_t *job;
    json_array_foreach(made, i, job)
    {
        char status[32];
        uint64_t id = json_number(job, "id");
        int r = follow_job(c, cl, id, e->quiet || !one, status, sizeof(status));
        if (r < 0) {
            return r;
        }
        good = good && strcmp(status, "success") == 0;
        json_object_set_new(job, "status", json_string(status));
        if (!c->json) {
            fprintf(one ? stderr : stdout, "job %" PRIu64 " %s\n", id,
                    one ? status : cli_status(c, status));
        }
    }
    return good ? 0 : EXIT_JOB_FAILED;
}

static int enqueue(struct cli *c, const struct client *cl, const struct enqueue *e)
{
    json_t *made = json_array();
    int r = send_all(c, cl, e, made);
    bool told = !c->json && !(e->follow && json_array_size(made) == 1);
    if (told) {
        print_made(made); /* also what was enqueued before an error */
    }
    fflush(stdout);
    if (r == 0 && e->follow) {
        r = follow_made(c, cl, e, made);
    }
    if (c->json) {
        cli_print_json(json_pack("{s:O}", "jobs", made));
    }
    json_decref(made);
    return r;
}

static bool is_no_time(const char *text)
{
    uint64_t ms;
    return text != NULL && str_to_duration_ms(str_from(text), &ms) == 0 && ms == 0;
}

static int collect(const struct cli *c, struct enqueue *e, const char **args, size_t count)
{
    bool from_stdin = count == 1 && strcmp(args[0], "-") == 0;
    json_t *action = NULL;
    int wrong = action_from_options(c, &e->action, &action);
    if (wrong < 0) {
        return wrong;
    }
    if ((e->file != NULL) + (count > 0) + (action != NULL) != 1) {
        json_decref(action);
        return cli_fail(c, -E_USAGE,
                        "which command? CMD..., or --file FILE with one a line, or one of --http, "
                        "--tcp, --wait and --prefork");
    }
    if (e->count == 0 || e->count > COUNT_MAX) {
        json_decref(action);
        return cli_fail(c, -E_USAGE, "--count is 1 to %u", COUNT_MAX);
    }
    if (e->follow && is_no_time(e->keep)) {
        json_decref(action);
        return cli_fail(c, -E_USAGE, "--follow needs a job that is kept: leave out --keep 0");
    }
    int r = check_key(c, e->key);
    r = r < 0 ? r : read_wishes(c, e);
    if (r < 0) {
        json_decref(action);
        return r;
    }
    if (action != NULL) {
        add_jobs(e, "action", action);
        return 0;
    }
    r = e->file != NULL ? from_file(c, e, e->file)
        : from_stdin    ? from_file(c, e, args[0])
                        : from_arguments(c, e, args, count);
    return r == 0 && json_array_size(e->jobs) == 0
               ? cli_fail(c, -E_INVALID, "there is no line with a command")
               : r;
}

int cmd_enqueue(struct cli *c, int argc, char **argv)
{
    struct enqueue e = {.count = 1};
    const char **args;
    size_t count;
    const struct opt opts[] = {
        {"project", 0, OPT_TEXT, &e.project, "NAME", "whose jobs they are (that of this folder)"},
        {"file", 'f', OPT_TEXT, &e.file, "FILE", "one command a line; - is standard input"},
        {"http", 0, OPT_TEXT, &e.action.http, "URL", "no command: a request, without a process"},
        {"method", 0, OPT_TEXT, &e.action.method, "WORD", "of --http (GET, or POST with --body)"},
        {"header", 0, OPT_LIST, &e.action.headers, "NAME: VALUE", "of --http; may be repeated"},
        {"body", 0, OPT_TEXT, &e.action.body, "TEXT", "what --http sends"},
        {"expect", 0, OPT_TEXT, &e.action.expect, "N,N-N", "good statuses of --http (200-299)"},
        {"expect-body", 0, OPT_TEXT, &e.action.expect_body, "/EXPR/", "found in a good answer"},
        {"redirects", 0, OPT_NUMBER, &e.action.redirects, "N", "of --http that are followed (0)"},
        {"tcp", 0, OPT_TEXT, &e.action.tcp, "HOST:PORT", "no command: somebody listens there"},
        {"wait", 0, OPT_TEXT, &e.action.wait, "TIME", "no command: only time goes by"},
        {"prefork", 0, OPT_TEXT, &e.action.prefork, "POOL", "no command: a process that is there"},
        {"input", 0, OPT_TEXT, &e.action.input, "TEXT", "what --prefork gives it"},
        {"name", 0, OPT_TEXT, &e.name, "NAME", "of the job (its command)"},
        {"tags", 0, OPT_TEXT, &e.tags, "TAG,...", "that its worker must have"},
        {"executor", 0, OPT_TEXT, &e.executor, "NAME", "that its worker must have"},
        {"pool", 0, OPT_TEXT, &e.pool, "NAME", "only workers of this pool"},
        {"priority", 0, OPT_TEXT, &e.priority, "N", "-100 to 100, the highest first (0)"},
        {"cpu", 0, OPT_TEXT, &e.cpu, "N", "processors that it takes: 2, 500m"},
        {"memory", 0, OPT_TEXT, &e.memory, "N", "memory that it takes: 512Mi, 2G"},
        {"disk", 0, OPT_TEXT, &e.disk, "N", "disk space that it takes"},
        {"not-before", 0, OPT_TEXT, &e.not_before, "TIME", "start then: 2026-02-03T04:05:06Z"},
        {"delay", 0, OPT_TEXT, &e.delay, "TIME", "start after so long: 10m"},
        {"timeout", 0, OPT_TEXT, &e.timeout, "TIME", "end it after so long (1h)"},
        {"retry", 0, OPT_NUMBER, &e.retry, "N", "run it again so often when it fails (0)"},
        {"on-worker-lost", 0, OPT_TEXT, &e.lost, "WHAT", "requeue, fail or wait (requeue)"},
        {"keep", 0, OPT_TEXT, &e.keep, "TIME", "remember its success so long (1 day)"},
        {"key", 0, OPT_TEXT, &e.key, "KEY", "what has this key is enqueued once a day"},
        {"resource-group", 0, OPT_TEXT, &e.group, "NAME", "one job of this group at a time"},
        {"interruptible", 0, OPT_FLAG, &e.interruptible, NULL, "may be displaced"},
        {"var", 'v', OPT_LIST, &e.variables, "NAME=VALUE", "a variable; may be repeated"},
        {"count", 0, OPT_NUMBER, &e.count, "N", "so many of them, with CI_NODE_INDEX from 1 on"},
        {"follow", 0, OPT_FLAG, &e.follow, NULL, "show its log until it ends"},
        {"quiet", 'q', OPT_FLAG, &e.quiet, NULL, "with --follow: no log"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct client cl;
    int r = cli_options(c, opts, argc, argv, 0, SIZE_MAX, &args, &count);
    if (r < 0) {
        return r;
    }
    e.jobs = json_array();
    r = collect(c, &e, args, count);
    char *project = r == 0 ? list_project(c, e.project) : NULL;
    e.project = project;
    r = r == 0 && project == NULL ? -E_NOT_FOUND : r;
    r = r < 0 ? r : need_text(c, "project", project);
    r = r < 0 ? r : client_open(c, &cl);
    if (r == 0) {
        r = enqueue(c, &cl, &e);
        client_release(&cl);
    }
    json_decref(e.jobs);
    json_decref(e.wishes);
    free(e.variables.items);
    free(e.action.headers.items);
    free(project);
    free(args);
    return r;
}
