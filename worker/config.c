#include "common/base.h"

#include "worker/config.h"

#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/exec/exec.h"
#include "worker/link.h"

const char worker_usage[] =
    "Usage: davit-worker join URL --token TOKEN --state DIR     once, with a broker elsewhere\n"
    "       davit-worker --state DIR [options]                  afterwards\n"
    "       davit-worker --broker tcp://HOST:PORT --token-file FILE --state DIR [options]\n"
    "       davit-worker version\n"
    "\n"
    "Takes jobs from a Davit broker and runs them on this machine.\n"
    "\n"
    "  --broker URL          where the broker listens for workers: tls://HOST:PORT, or\n"
    "                        tcp://127.0.0.1:7070 (default: where this worker has joined)\n"
    "  --token-file FILE     for tcp://: holds the worker token; read again for every connection\n"
    "  --state DIR           jobs in hand, working trees and caches; one worker process each\n"
    "  --name NAME           shown to people (default: the host's name)\n"
    "  --slots N             jobs at a time (default: 1)\n"
    "  --tags A,B            tags of jobs that this worker may take\n"
    "  --no-untagged         take no jobs without tags\n"
    "  --pool NAME           the pool this worker belongs to\n"
    "  --cpu N, --memory SIZE, --disk SIZE\n"
    "                        what its jobs may ask for together, as 4 or 1500m, 8Gi, 100G "
    "(default:\n"
    "                        the machine's processors and memory, what is free on the disk)\n"
    "  --executors A,B       ways to run jobs (default: shell)\n"
    "  --cancel-grace-ms N   between SIGTERM and SIGKILL of a canceled job (default: 10000)\n"
    "  --min-free-mb N       take no work with less free disk space (default: 500)\n"
    "  --log-level LEVEL     error, warn, info or debug (default: info)\n"
    "  --help                this text\n"
    "\n"
    "SIGTERM or SIGINT: take nothing new, wait for the jobs in hand, leave. A second one: leave "
    "at\n"
    "once; the jobs run on, and the next worker process on the same state folder takes them over.\n"
    "SIGHUP is ignored.\n";

static void list_release(struct name_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->names[i]);
    }
    free(list->names);
    *list = (struct name_list){0};
}

static int parse_list(struct name_list *list, const char *text)
{
    struct str rest = str_from(text);
    struct str part;
    list_release(list);
    while (str_split(&rest, ',', &part)) {
        part = str_trim(part);
        if (part.n == 0 || part.n > LIMIT_NAME || !str_is_utf8(part, NULL) ||
            list->count >= LIMIT_TAGS) {
            return -E_USAGE;
        }
        list->names = xrealloc(list->names, (list->count + 1) * sizeof(char *));
        list->names[list->count++] = str_dup(part);
    }
    return 0;
}

static int parse_text(char **field, const char *text)
{
    if (text[0] == '\0' || !str_is_utf8(str_from(text), NULL)) {
        return -E_USAGE;
    }
    free(*field);
    *field = xstrdup(text);
    return 0;
}

static int parse_cpu(uint32_t *field, const char *text)
{
    return str_to_cpu_millis(str_from(text), field) < 0 || *field == 0 ? -E_USAGE : 0;
}

static int parse_size(uint64_t *field, const char *text)
{
    return str_to_size(str_from(text), field) < 0 || *field == 0 ? -E_USAGE : 0;
}

static int parse_number(uint64_t *field, const char *text)
{
    return str_to_u64(str_from(text), field) < 0 ? -E_USAGE : 0;
}

/* `value` is NULL when the argument is the last one. Sets *ret_taken when it used the value. */
static int parse_option(struct worker_config *c, const char *name, const char *value,
                        bool *ret_taken)
{
    *ret_taken = false;
    if (strcmp(name, "--help") == 0) {
        c->help = true;
        return 0;
    }
    if (strcmp(name, "--no-untagged") == 0) {
        c->run_untagged = false;
        return 0;
    }
    const struct {
        const char *name;
        char **text;
        uint64_t *number;
        uint64_t *size;
        struct name_list *list;
    } options[] = {
        {"--broker", .text = &c->broker},
        {"--token-file", .text = &c->token_file},
        {"--state", .text = &c->state},
        {"--name", .text = &c->name},
        {"--pool", .text = &c->pool},
        {"--slots", .number = &c->slots},
        {"--cancel-grace-ms", .number = &c->cancel_grace_ms},
        {"--min-free-mb", .number = &c->min_free_mb},
        {"--memory", .size = &c->memory_bytes},
        {"--disk", .size = &c->disk_bytes},
        {"--tags", .list = &c->tags},
        {"--executors", .list = &c->executors},
    };
    if (value == NULL) {
        return -E_USAGE;
    }
    *ret_taken = true;
    if (strcmp(name, "--log-level") == 0) {
        return log_level_from(value, &c->log_level) < 0 ? -E_USAGE : 0;
    }
    if (strcmp(name, "--cpu") == 0) {
        return parse_cpu(&c->cpu_millis, value);
    }
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (strcmp(name, options[i].name) == 0) {
            return options[i].text != NULL     ? parse_text(options[i].text, value)
                   : options[i].number != NULL ? parse_number(options[i].number, value)
                   : options[i].size != NULL   ? parse_size(options[i].size, value)
                                               : parse_list(options[i].list, value);
        }
    }
    return -E_USAGE;
}

/* `--name value` or `--name=value`; moves *i past what it used. */
static int parse_argument(struct worker_config *c, int argc, char **argv, int *i)
{
    const char *equals = strchr(argv[*i], '=');
    bool taken;
    if (equals == NULL) {
        int r = parse_option(c, argv[*i], *i + 1 < argc ? argv[*i + 1] : NULL, &taken);
        *i += r == 0 && taken;
        return r;
    }
    char *name = str_dup(str_of(argv[*i], (size_t)(equals - argv[*i])));
    int r = parse_option(c, name, equals + 1, &taken);
    free(name);
    return r == 0 && !taken ? -E_USAGE : r;
}

static int check_executors(const struct name_list *executors, struct buf *why)
{
    for (size_t i = 0; i < executors->count; i++) {
        const struct executor *e = executor_by_name(executors->names[i]);
        if (e == NULL) {
            buf_addf(why, "there is no executor `%s`; there is: shell", executors->names[i]);
            return -E_USAGE;
        }
    }
    return 0;
}

/* What joining has brought, for all but brokers without TLS. */
static int use_identity(struct worker_config *c, struct buf *why)
{
    if (c->state == NULL || (c->broker != NULL && !link_url_tls(c->broker))) {
        return 0;
    }
    struct identity *id = xcalloc(1, sizeof(*id));
    int r = identity_load(c->state, id, why);
    if (r == 0 && c->name != NULL && strcmp(c->name, id->name) != 0) {
        buf_addf(why, "this worker has joined as `%s`: to be called `%s` it must join again",
                 id->name, c->name);
        identity_release(id);
        r = -E_USAGE;
    }
    if (r < 0) {
        free(id);
        return r == -E_NOT_FOUND ? 0 : r;
    }
    c->identity = id;
    free(c->name);
    c->name = xstrdup(id->name);
    if (c->broker == NULL) {
        c->broker = xstrdup(id->fleet_url);
    }
    return 0;
}

static int check_all(const struct worker_config *c, struct buf *why)
{
    if (c->broker != NULL && !link_url_valid(c->broker)) {
        buf_addf(why, "`%s` is neither tls://HOST:PORT nor tcp://HOST:PORT", c->broker);
    } else if (c->broker != NULL && c->identity == NULL && link_url_tls(c->broker)) {
        buf_addf(why, "%s wants a certificate: `davit-worker join` gets one", c->broker);
    } else if (c->state == NULL ||
               (c->identity == NULL && (c->broker == NULL || c->token_file == NULL))) {
        buf_addz(why, "--broker, --token-file and --state are needed, or --state alone after "
                      "`davit-worker join`");
    } else if (c->slots == 0 || c->slots > LIMIT_WORKER_SLOTS) {
        buf_addf(why, "--slots must be between 1 and %u", LIMIT_WORKER_SLOTS);
    } else if (strlen(c->name) > LIMIT_NAME || (c->pool != NULL && strlen(c->pool) > LIMIT_NAME)) {
        buf_addf(why, "names may have at most %u bytes", LIMIT_NAME);
    } else if (c->cancel_grace_ms > LIMIT_TIMEOUT_MS || c->min_free_mb > UINT32_MAX) {
        buf_addz(why, "--cancel-grace-ms or --min-free-mb is far too big");
    } else {
        return check_executors(&c->executors, why);
    }
    return -E_USAGE;
}

int worker_config_parse(struct worker_config *c, int argc, char **argv, struct buf *why)
{
    *c = (struct worker_config){.slots = 1,
                                .cancel_grace_ms = 10000,
                                .min_free_mb = 500,
                                .run_untagged = true,
                                .log_level = LOG_INFO};
    for (int i = 0; i < argc; i++) {
        int r = parse_argument(c, argc, argv, &i);
        if (r < 0) {
            buf_addf(why, "cannot use `%s`; see davit-worker --help", argv[i]);
            return r;
        }
    }
    if (c->help) {
        return 0;
    }
    int r = use_identity(c, why);
    if (r < 0) {
        return r;
    }
    if (c->name == NULL) {
        c->name = os_hostname();
    }
    if (c->executors.count == 0) {
        (void)parse_list(&c->executors, "shell");
    }
    return check_all(c, why);
}

void worker_config_release(struct worker_config *c)
{
    if (c->identity != NULL) {
        identity_release(c->identity);
        free(c->identity);
    }
    free(c->broker);
    free(c->token_file);
    free(c->state);
    free(c->name);
    free(c->pool);
    list_release(&c->tags);
    list_release(&c->executors);
}
