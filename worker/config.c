#include "common/base.h"

#include "worker/config.h"

#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/engine/image_name.h"
#include "worker/exec/exec.h"
#include "worker/link.h"

#define NOT_SAID UINT64_MAX
#define ACTIONS  256u
#define AT_HAND  4u /* jobs a process */

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
    "  --cache-size SIZE     of its own copies of caches; what was not used for longest goes "
    "first\n"
    "                        (default: 8Gi; never more than a quarter of the disk's room)\n"
    "  --executors A,B       ways to run jobs, of which the first one that takes a job does: "
    "shell,\n"
    "                        sandbox, docker, action (default: shell)\n"
    "  --allow-local-git     jobs may have their sources from repositories on this machine "
    "(file://)\n"
    "  --actions N           of the executor action, and jobs of prefork: how many at a time\n"
    "                        (default: 256; with prefork alone 4 a process)\n"
    "  --action-allow ADDRESS[/BITS][:PORT]\n"
    "                        where actions may connect to; may be given again (default: all but\n"
    "                        link-local and multicast addresses)\n"
    "  --prefork NAME[:N]=COMMAND\n"
    "                        N processes (default: one a processor) of the command, started now, "
    "for\n"
    "                        the jobs of prefork/NAME; may be given again\n"
    "  --prefork-jobs N      after which a process is replaced (default: 0, never)\n"
    "  --cancel-grace-ms N   between SIGTERM and SIGKILL of a canceled job (default: 10000)\n"
    "  --min-free-mb N       take no work with less free disk space (default: 500)\n"
    "  --log-level LEVEL     error, warn, info or debug (default: info)\n"
    "  --help                this text\n"
    "\n"
    "Of the executor docker, which takes the jobs with `image` or `services`:\n"
    "  --docker-socket PATH  of the Docker Engine, or Podman (default: /var/run/docker.sock)\n"
    "  --docker-image NAME   for jobs that name no image (default: they are for other executors)\n"
    "  --docker-pull A,B     of always, if-not-present and never, what is tried in turn for jobs "
    "that\n"
    "                        say nothing (default: always)\n"
    "  --docker-allow-pull A,B  which of them jobs may ask for (default: as --docker-pull)\n"
    "  --docker-auth FILE    config.json with credentials of registries\n"
    "  --docker-allow-image, --docker-allow-service PATTERN\n"
    "                        which images may be used; may be given again (default: all)\n"
    "  --docker-volume SOURCE:TARGET[:ro]\n"
    "                        in the container of each job: a folder or a named volume; may be "
    "given\n"
    "                        again\n"
    "  --docker-cpu N, --docker-memory SIZE, --docker-pids N\n"
    "                        limits of each container (default: none)\n"
    "  --docker-privileged   containers have all rights on this machine\n"
    "  --docker-service-wait S  how long services are waited for (default: 30)\n"
    "\n"
    "Of the executor sandbox, which runs jobs in namespaces, by bubblewrap:\n"
    "  --sandbox-no-network  they reach no network\n"
    "  --sandbox-read PATH, --sandbox-write PATH\n"
    "                        what they see besides the system; may be given again\n"
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

/* One more, as it is: a pattern may hold commas. */
static int parse_more(struct name_list *list, const char *text)
{
    if (text[0] == '\0' || strlen(text) > LIMIT_ENGINE_TEXT || !str_is_utf8(str_from(text), NULL) ||
        list->count >= LIMIT_ENGINE_OPTIONS) {
        return -E_USAGE;
    }
    list->names = xrealloc(list->names, (list->count + 1) * sizeof(char *));
    list->names[list->count++] = xstrdup(text);
    return 0;
}

/* What an option sets: one of these. */
struct option {
    const char *name;
    char **text;
    uint64_t *number;
    uint64_t *size;
    uint32_t *cpu;
    struct name_list *list;
    struct name_list *more;
    struct reach *reach;
    struct worker_config *prefork;
    bool *flag; /* takes no value */
    bool flag_value;
};

static int parse_reach(struct reach *reach, const char *text)
{
    return reach->count < LIMIT_ENGINE_OPTIONS ? reach_add(reach, text) : -E_USAGE;
}

static int parse_prefork(struct worker_config *c, const char *text)
{
    struct prefork_config one;
    if (c->prefork_count >= LIMIT_PREFORK_POOLS || prefork_parse(text, &one) < 0) {
        return -E_USAGE;
    }
    for (size_t i = 0; i < c->prefork_count; i++) {
        if (strcmp(c->preforks[i].name, one.name) == 0) {
            prefork_config_release(&one);
            return -E_USAGE;
        }
    }
    c->preforks = xrealloc(c->preforks, (c->prefork_count + 1) * sizeof(one));
    c->preforks[c->prefork_count++] = one;
    return 0;
}

static int set_option(const struct option *o, const char *value)
{
    return o->text != NULL      ? parse_text(o->text, value)
           : o->number != NULL  ? parse_number(o->number, value)
           : o->size != NULL    ? parse_size(o->size, value)
           : o->cpu != NULL     ? parse_cpu(o->cpu, value)
           : o->list != NULL    ? parse_list(o->list, value)
           : o->reach != NULL   ? parse_reach(o->reach, value)
           : o->prefork != NULL ? parse_prefork(o->prefork, value)
                                : parse_more(o->more, value);
}

/* `value` is NULL when the argument is the last one. Sets *ret_taken when it used the value. */
static int parse_option(struct worker_config *c, const char *name, const char *value,
                        bool *ret_taken)
{
    struct docker_config *d = &c->docker;
    const struct option options[] = {
        {"--help", .flag = &c->help, .flag_value = true},
        {"--no-untagged", .flag = &c->run_untagged, .flag_value = false},
        {"--allow-local-git", .flag = &c->local_git, .flag_value = true},
        {"--broker", .text = &c->broker},
        {"--token-file", .text = &c->token_file},
        {"--state", .text = &c->state},
        {"--name", .text = &c->name},
        {"--pool", .text = &c->pool},
        {"--slots", .number = &c->slots},
        {"--actions", .number = &c->actions},
        {"--action-allow", .reach = &c->reach},
        {"--prefork", .prefork = c},
        {"--prefork-jobs", .number = &c->prefork_jobs},
        {"--cancel-grace-ms", .number = &c->cancel_grace_ms},
        {"--min-free-mb", .number = &c->min_free_mb},
        {"--cpu", .cpu = &c->cpu_millis},
        {"--memory", .size = &c->memory_bytes},
        {"--disk", .size = &c->disk_bytes},
        {"--cache-size", .size = &c->cache_bytes},
        {"--tags", .list = &c->tags},
        {"--executors", .list = &c->executors},
        {"--docker-socket", .text = &d->socket},
        {"--docker-image", .text = &d->image},
        {"--docker-auth", .text = &d->auth},
        {"--docker-pull", .list = &d->pull},
        {"--docker-allow-pull", .list = &d->allow_pull},
        {"--docker-allow-image", .more = &d->allow_images},
        {"--docker-allow-service", .more = &d->allow_services},
        {"--docker-volume", .more = &d->volumes},
        {"--docker-privileged", .flag = &d->privileged, .flag_value = true},
        {"--docker-cpu", .cpu = &d->cpu_millis},
        {"--docker-memory", .size = &d->memory_bytes},
        {"--docker-pids", .number = &d->pids},
        {"--docker-service-wait", .number = &d->service_wait_s},
        {"--sandbox-no-network", .flag = &c->sandbox.network, .flag_value = false},
        {"--sandbox-read", .more = &c->sandbox.read},
        {"--sandbox-write", .more = &c->sandbox.write},
    };
    *ret_taken = false;
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        const struct option *o = &options[i];
        if (strcmp(name, o->name) != 0) {
            continue;
        }
        if (o->flag != NULL) {
            *o->flag = o->flag_value;
            return 0;
        }
        *ret_taken = value != NULL;
        return value != NULL ? set_option(o, value) : -E_USAGE;
    }
    *ret_taken = value != NULL;
    if (value == NULL || strcmp(name, "--log-level") != 0) {
        return -E_USAGE;
    }
    return log_level_from(value, &c->log_level) < 0 ? -E_USAGE : 0;
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
        if (e == NULL && strcmp(executors->names[i], "action") != 0) {
            buf_addf(why, "there is no executor `%s`; there is: ", executors->names[i]);
            executor_names(why);
            buf_addz(why, ", action");
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

static bool policies_valid(const struct name_list *list)
{
    static const char *const known[] = {"always", "if-not-present", "never"};
    for (size_t i = 0; i < list->count; i++) {
        bool found = false;
        for (size_t k = 0; k < ARRAY_LEN(known); k++) {
            found = found || strcmp(known[k], list->names[i]) == 0;
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

/* SOURCE:TARGET[:ro] */
static bool volume_valid(const char *text)
{
    struct str rest = str_from(text);
    struct str source;
    struct str target;
    return str_split(&rest, ':', &source) && source.n > 0 && str_split(&rest, ':', &target) &&
           target.n > 1 && target.p[0] == '/' && (rest.n == 0 || str_eqz(rest, "ro"));
}

/* Those that are there: a typing mistake would fail every job. */
static int check_paths(const struct name_list *paths, struct buf *why)
{
    for (size_t i = 0; i < paths->count; i++) {
        if (paths->names[i][0] != '/' || !os_exists(paths->names[i])) {
            buf_addf(why, "`%s` for the sandbox is not there, or no absolute path",
                     paths->names[i]);
            return -E_USAGE;
        }
    }
    return 0;
}

static int check_docker(const struct worker_config *c, struct buf *why)
{
    const struct docker_config *d = &c->docker;
    struct image_name name;
    bool alone = c->executors.count == 1 && worker_config_has_executor(c, "docker");
    if (d->socket[0] != '/' || (d->auth != NULL && d->auth[0] != '/')) {
        buf_addz(why, "--docker-socket and --docker-auth want absolute paths");
        return -E_USAGE;
    }
    if (!policies_valid(&d->pull) || !policies_valid(&d->allow_pull)) {
        buf_addz(why, "pull policies are always, if-not-present and never");
        return -E_USAGE;
    }
    if (d->image != NULL && image_name_parse(str_from(d->image), &name) < 0) {
        buf_addf(why, "`%s` is no name of an image", d->image);
        return -E_USAGE;
    }
    if (alone && d->image == NULL) {
        buf_addz(why, "a worker with the executor docker alone needs --docker-image: what jobs run "
                      "in that name no image");
        return -E_USAGE;
    }
    for (size_t i = 0; i < d->volumes.count; i++) {
        if (!volume_valid(d->volumes.names[i])) {
            buf_addf(why, "`%s` is no SOURCE:TARGET or SOURCE:TARGET:ro with an absolute TARGET",
                     d->volumes.names[i]);
            return -E_USAGE;
        }
    }
    if (d->service_wait_s > LIMIT_TIMEOUT_MS / 1000 || d->pids > INT32_MAX ||
        d->memory_bytes > INT64_MAX) {
        buf_addz(why, "--docker-service-wait, --docker-pids or --docker-memory is far too big");
        return -E_USAGE;
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
    } else if (c->actions == 0 || c->actions > LIMIT_WORKER_ACTIONS) {
        buf_addf(why, "--actions must be between 1 and %u", LIMIT_WORKER_ACTIONS);
    } else if (strlen(c->name) > LIMIT_NAME || (c->pool != NULL && strlen(c->pool) > LIMIT_NAME)) {
        buf_addf(why, "names may have at most %u bytes", LIMIT_NAME);
    } else if (c->cancel_grace_ms > LIMIT_TIMEOUT_MS || c->min_free_mb > UINT32_MAX) {
        buf_addz(why, "--cancel-grace-ms or --min-free-mb is far too big");
    } else {
        int r = check_executors(&c->executors, why);
        r = r < 0 ? r : check_paths(&c->sandbox.read, why);
        r = r < 0 ? r : check_paths(&c->sandbox.write, why);
        return r < 0 ? r : check_docker(c, why);
    }
    return -E_USAGE;
}

static void usual_list(struct name_list *list, const char *text)
{
    if (list->count == 0) {
        (void)parse_list(list, text);
    }
}

/* Jobs of pools are to be at hand when a process is free, and no more: others could have them. */
static uint64_t usual_actions(const struct worker_config *c)
{
    uint64_t processes = 0;
    for (size_t i = 0; i < c->prefork_count; i++) {
        processes += c->preforks[i].processes;
    }
    return worker_config_has_executor(c, "action") || processes == 0 ? ACTIONS
                                                                     : processes * AT_HAND;
}

/* What was not said. */
static void set_usual(struct worker_config *c)
{
    struct docker_config *d = &c->docker;
    c->actions = c->actions == NOT_SAID ? usual_actions(c) : c->actions;
    usual_list(&c->executors, "shell");
    usual_list(&d->pull, "always");
    bool said = d->allow_pull.count > 0;
    for (size_t i = 0; !said && i < d->pull.count; i++) {
        (void)parse_more(&d->allow_pull, d->pull.names[i]);
    }
    if (d->socket == NULL) {
        d->socket = xstrdup("/var/run/docker.sock");
    }
}

int worker_config_parse(struct worker_config *c, int argc, char **argv, struct buf *why)
{
    *c = (struct worker_config){.slots = 1,
                                .actions = NOT_SAID,
                                .cancel_grace_ms = 10000,
                                .min_free_mb = 500,
                                .docker.service_wait_s = 30,
                                .sandbox.network = true,
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
    set_usual(c);
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
    reach_release(&c->reach);
    for (size_t i = 0; i < c->prefork_count; i++) {
        prefork_config_release(&c->preforks[i]);
    }
    free(c->preforks);
    free(c->docker.socket);
    free(c->docker.image);
    free(c->docker.auth);
    list_release(&c->docker.pull);
    list_release(&c->docker.allow_pull);
    list_release(&c->docker.allow_images);
    list_release(&c->docker.allow_services);
    list_release(&c->docker.volumes);
    list_release(&c->sandbox.read);
    list_release(&c->sandbox.write);
}

bool worker_config_has_executor(const struct worker_config *c, const char *name)
{
    for (size_t i = 0; i < c->executors.count; i++) {
        if (strcmp(c->executors.names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

const char *worker_config_choose(const struct worker_config *c, const char *named, bool contained)
{
    if (named[0] != '\0' || contained) {
        return named[0] != '\0' ? named : "docker";
    }
    for (size_t i = 0; i < c->executors.count; i++) {
        const char *name = c->executors.names[i];
        bool docker = strcmp(name, "docker") == 0;
        bool action = strcmp(name, "action") == 0;
        if (!action && (!docker || c->docker.image != NULL)) {
            return name;
        }
    }
    return "";
}
