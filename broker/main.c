#include "common/base.h"

#include <getopt.h>
#include <stdio.h>

#include "broker/inspect.h"
#include "broker/serve.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/str.h"
#include "pipeline/fetch/fetch.h"

#define PROJECTS_MAX      256
#define RELAXED_MAX_MS    60000u /* the store commits before that anyway, as a rule */
#define KEEP_PIPELINES_MS (90ull * 24 * 3600 * 1000)

/* davitd: reads the command line, hands over. */

static const char usage[] =
    "usage: davitd --data DIR [options]          serve\n"
    "       davitd backup TARGET --data DIR      copy the store, beside a running broker too\n"
    "       davitd fsck --data DIR               check the store, print what is broken\n"
    "       davitd version\n"
    "\n"
    "options:\n"
    "  --data DIR          the folder of all that lasts; made if needed\n"
    "  --listen URL        where workers connect (tcp://127.0.0.1:7070); port 0: any\n"
    "  --http ADDRESS      where the API is (127.0.0.1:7080); port 0: any\n"
    "  --heartbeat-ms N    how often workers are to be heard (3000)\n"
    "  --lease-ms N        how long a silent worker keeps its jobs (10000)\n"
    "  --durability HOW    full (default): what is acknowledged is on the disk; relaxed:MS: it is\n"
    "                      written, and on the disk at most MS milliseconds later\n"
    "  --keep-pipelines T  how long pipelines stay after their end: 30d, 12h (90d); 0: for ever\n"
    "  --fetch-includes    fetch included files that a submit does not bring along: URLs, and of\n"
    "                      projects and components those that --include-project names\n"
    "  --fetch-private     from addresses of this machine and of private networks, too\n"
    "  --include-project NAME=URL  where git finds a project; may be repeated\n"
    "  --templates DIR     the templates (DAVIT_TEMPLATES, else those installed)\n"
    "  --log-level LEVEL   error, warn, info (default) or debug\n"
    "  --help              this text\n"
    "\n"
    "Only loopback addresses are served. DIR/endpoints.json says where; DIR/admin.token,\n"
    "DIR/user.token and DIR/worker.token are made at the first start.\n";

struct arguments {
    struct serve_options serve;
    struct fetch_project projects[PROJECTS_MAX];
    enum log_level level;
    bool help;
    const char *words[2]; /* a command and its argument */
    int word_count;
};

static bool read_ms(const char *text, uint32_t *ret)
{
    uint64_t number;

    if (str_to_u64(str_from(text), &number) < 0 || number < 10 || number > 24u * 3600 * 1000) {
        return false;
    }
    *ret = (uint32_t)number;
    return true;
}

static bool read_durability(const char *text, uint32_t *ret_relaxed_ms)
{
    static const char relaxed[] = "relaxed:";
    const struct str word = str_from(text);
    uint64_t ms = 0;

    if (!str_eqz(word, "full") && (!str_starts(word, str_from(relaxed)) ||
                                   str_to_u64(str_sub(word, strlen(relaxed), word.n), &ms) < 0 ||
                                   ms == 0 || ms > RELAXED_MAX_MS)) {
        return false;
    }
    *ret_relaxed_ms = (uint32_t)ms;
    return true;
}

/* "0" is the one duration that means something else. */
static bool read_keep(const char *text, uint64_t *ret_ms)
{
    uint64_t ms;

    if (strcmp(text, "0") == 0) {
        *ret_ms = 0;
        return true;
    }
    if (str_to_duration_ms(str_from(text), &ms) < 0 || ms < 1000 || ms > LIMIT_EXPIRE_MS) {
        return false;
    }
    *ret_ms = ms;
    return true;
}

static bool take_option(struct arguments *a, int option)
{
    switch (option) {
    case 'd':
        a->serve.data = optarg;
        return true;
    case 'l':
        a->serve.fleet_url = optarg;
        return true;
    case 'w':
        a->serve.http = optarg;
        return true;
    case 'b':
        return read_ms(optarg, &a->serve.heartbeat_ms);
    case 'e':
        return read_ms(optarg, &a->serve.lease_ms);
    case 'r':
        return read_durability(optarg, &a->serve.relaxed_ms);
    case 'k':
        return read_keep(optarg, &a->serve.keep_pipelines_ms);
    case 'f':
        a->serve.fetch_includes = true;
        return true;
    case 'p':
        a->serve.fetch_private = true;
        return true;
    case 'i':
        return a->serve.project_count < PROJECTS_MAX &&
               fetch_project_parse(optarg, &a->projects[a->serve.project_count++]);
    case 't':
        a->serve.templates = optarg;
        return true;
    case 'v':
        return log_level_from(optarg, &a->level) == 0;
    case 'h':
        a->help = true;
        return true;
    default:
        return false;
    }
}

static bool read_arguments(struct arguments *a, int argc, char **argv)
{
    static const struct option options[] = {
        {"data", required_argument, NULL, 'd'},
        {"listen", required_argument, NULL, 'l'},
        {"http", required_argument, NULL, 'w'},
        {"heartbeat-ms", required_argument, NULL, 'b'},
        {"lease-ms", required_argument, NULL, 'e'},
        {"durability", required_argument, NULL, 'r'},
        {"keep-pipelines", required_argument, NULL, 'k'},
        {"log-level", required_argument, NULL, 'v'},
        {"fetch-includes", no_argument, NULL, 'f'},
        {"fetch-private", no_argument, NULL, 'p'},
        {"include-project", required_argument, NULL, 'i'},
        {"templates", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int index = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
        if (!take_option(a, option)) {
            if (option != '?') {
                fprintf(stderr, "davitd: --%s: bad value: %s\n", options[index].name, optarg);
            }
            return false;
        }
    }
    for (int i = optind; i < argc; i++) {
        if (a->word_count == (int)ARRAY_LEN(a->words)) {
            fprintf(stderr, "davitd: one argument too many: %s\n", argv[i]);
            return false;
        }
        a->words[a->word_count++] = argv[i];
    }
    return true;
}

static int run_command(const struct arguments *a)
{
    struct str command = str_from(a->words[0]);

    if (str_eqz(command, "version") && a->word_count == 1) {
        puts("davitd " DAVIT_VERSION);
        return 0;
    }
    if (a->serve.data == NULL) {
        fputs("davitd: --data DIR is missing\n", stderr);
        return -E_USAGE;
    }
    if (a->word_count == 0) {
        return serve(&a->serve);
    }
    if (str_eqz(command, "backup") && a->word_count == 2) {
        return inspect_backup(a->serve.data, a->words[1]);
    }
    if (str_eqz(command, "fsck") && a->word_count == 1) {
        return inspect_fsck(a->serve.data);
    }
    fputs(usage, stderr);
    return -E_USAGE;
}

int main(int argc, char **argv)
{
    struct arguments a = {
        .serve = {.fleet_url = "tcp://127.0.0.1:7070",
                  .http = "127.0.0.1:7080",
                  .keep_pipelines_ms = KEEP_PIPELINES_MS},
        .level = LOG_INFO,
    };

    a.serve.projects = a.projects;
    if (!read_arguments(&a, argc, argv)) {
        fputs(usage, stderr);
        return err_exit_code(-E_USAGE);
    }
    if (a.help) {
        fputs(usage, stdout);
        return 0;
    }
    log_init("davitd", a.level);
    return err_exit_code(run_command(&a));
}
