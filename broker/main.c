#include "common/base.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/address.h"
#include "broker/config/served.h"
#include "broker/inspect.h"
#include "broker/serve.h"
#include "common/log.h"
#include "common/str.h"

/* davitd: reads the command line, hands over. */

#define HELP_COLUMN 22
#define FLAGS_MAX   1024u

/* getopt's numbers of what is no line of options.def */
enum { CONFIG_FLAG = OPTION_COUNT, CHECK_FLAG, HELP_FLAG, FLAG_COUNT };

static const char usage_head[] =
    "usage: davitd --data DIR [options]          serve\n"
    "       davitd --config FILE [options]       serve, with the options of a file\n"
    "       davitd --check-config FILE           say what is wrong with one, and do nothing else\n"
    "       davitd backup TARGET --data DIR      copy the store, beside a running broker too\n"
    "       davitd fsck --data DIR               check the store, print what is broken\n"
    "       davitd version\n"
    "\n"
    "options:\n"
    "  --config FILE       YAML: these options with underlines for dashes, pools and projects.\n"
    "                      What stands on the command line counts more. SIGHUP, or davit reload,\n"
    "                      reads it again\n";

static const char usage_tail[] =
    "  --help              this text\n"
    "\n"
    "DIR/endpoints.json says where it serves; DIR/admin.token, DIR/user.token and\n"
    "DIR/worker.token are made at the first start, and the authority in DIR/tls.\n";

struct arguments {
    struct options_source source;
    struct options_flag flags[FLAGS_MAX];
    struct options options; /* what the flags say: to check them */
    const char *check_file;
    bool help;
    const char *words[2]; /* a command and its argument */
    int word_count;
};

static void print_option(FILE *out, const struct option_info *info)
{
    struct str rest = str_from(info->help);
    struct str line;
    int used = fprintf(out, "  --%s%s%s", info->name, info->argument != NULL ? " " : "",
                       info->argument != NULL ? info->argument : "");

    while (str_split(&rest, '\n', &line)) {
        if (used >= HELP_COLUMN) {
            fprintf(out, " " STR_FMT "\n", STR_ARG(line));
        } else {
            fprintf(out, "%*s" STR_FMT "\n", HELP_COLUMN - used, "", STR_ARG(line));
        }
        used = 0;
    }
}

static void print_usage(FILE *out)
{
    fputs(usage_head, out);
    for (enum option_id i = 0; i < OPTION_COUNT; i++) {
        print_option(out, option_info(i));
    }
    fputs(usage_tail, out);
}

static bool take_option(struct arguments *a, int which, const char *text)
{
    struct options_source *s = &a->source;

    if (which == CONFIG_FLAG) {
        s->file = text;
        return true;
    }
    if (which == CHECK_FLAG) {
        a->check_file = text;
        return true;
    }
    if (which == HELP_FLAG) {
        a->help = true;
        return true;
    }
    if (s->flag_count == FLAGS_MAX || !options_set(&a->options, (enum option_id)which, text)) {
        fprintf(stderr, "davitd: --%s: bad value: %s: it is %s\n",
                option_info((enum option_id)which)->name, text,
                option_expected((enum option_id)which));
        return false;
    }
    a->flags[s->flag_count++] = (struct options_flag){.which = (enum option_id)which, .text = text};
    return true;
}

static bool read_arguments(struct arguments *a, int argc, char **argv)
{
    struct option longs[FLAG_COUNT + 1] = {
        [CONFIG_FLAG] = {"config", required_argument, NULL, 0},
        [CHECK_FLAG] = {"check-config", required_argument, NULL, 0},
        [HELP_FLAG] = {"help", no_argument, NULL, 0},
    };
    int which = 0;
    int got;

    for (enum option_id i = 0; i < OPTION_COUNT; i++) {
        longs[i].name = option_info(i)->name;
        longs[i].has_arg = option_info(i)->argument != NULL ? required_argument : no_argument;
    }
    while ((got = getopt_long(argc, argv, "", longs, &which)) != -1) {
        if (got != 0 || !take_option(a, which, optarg != NULL ? optarg : "true")) {
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

/* All that can be said without a start. */
static int load_checked(const struct options_source *source, struct options *ret, struct buf *why)
{
    struct address address;
    struct served served = {0};
    int r = options_load(source, ret, why);

    if (r < 0) {
        return r;
    }
    r = address_parse(ret->fleet_url, &address_fleet, ret->plain_anywhere, &address, why);
    r = r < 0 ? r : address_parse(ret->http, &address_http, ret->plain_anywhere, &address, why);
    r = r < 0 ? r : served_load(ret, &served, why);
    if (r < 0) {
        options_release(ret);
    }
    served_release(&served);
    return r;
}

static int check_config(const char *file)
{
    struct options_source source = {.file = file};
    struct options options;
    struct buf why = BUF_INIT;
    int r = load_checked(&source, &options, &why);

    fprintf(stderr, "%s%s", buf_cstr(&why), why.n > 0 && why.p[why.n - 1] != '\n' ? "\n" : "");
    buf_release(&why);
    if (r == 0) {
        printf("%s: %zu pools, %zu projects and %zu targets declared; no mistakes\n", file,
               options.declared->n_pools, options.declared->n_projects,
               options.declared->n_targets);
        options_release(&options);
    }
    return r;
}

static int run_command(const struct arguments *a, const struct options *o)
{
    struct str command = str_from(a->words[0]);

    if (o->data == NULL) {
        fputs("davitd: --data DIR is missing\n", stderr);
        return -E_USAGE;
    }
    if (a->word_count == 0) {
        return serve(&a->source, o);
    }
    if (str_eqz(command, "backup") && a->word_count == 2) {
        return inspect_backup(o->data, a->words[1]);
    }
    if (str_eqz(command, "fsck") && a->word_count == 1) {
        return inspect_fsck(o->data);
    }
    print_usage(stderr);
    return -E_USAGE;
}

static int run(const struct arguments *a)
{
    struct options options;
    struct buf why = BUF_INIT;

    if (a->word_count == 1 && strcmp(a->words[0], "version") == 0) {
        puts("davitd " DAVIT_VERSION);
        return 0;
    }
    if (a->check_file != NULL) {
        return check_config(a->check_file);
    }
    int r = options_load(&a->source, &options, &why);
    fputs(buf_cstr(&why), stderr);
    buf_release(&why);
    if (r < 0) {
        return r;
    }
    log_init("davitd", options.log_level);
    r = run_command(a, &options);
    options_release(&options);
    return r;
}

int main(int argc, char **argv)
{
    static struct arguments a;
    int r = 0;

    a.source.flags = a.flags;
    options_init(&a.options);
    if (!read_arguments(&a, argc, argv)) {
        fputs("see davitd --help\n", stderr);
        r = -E_USAGE;
    } else if (a.help) {
        print_usage(stdout);
    } else {
        r = run(&a);
    }
    options_release(&a.options);
    return err_exit_code(r);
}
