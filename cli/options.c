#include "common/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "common/str.h"

static void print_opts(const struct opt *opts)
{
    for (const struct opt *o = opts; o->name != NULL; o++) {
        char left[64];
        snprintf(left, sizeof(left), "%c%c%s--%s%s%s", o->letter != 0 ? '-' : ' ',
                 o->letter != 0 ? o->letter : ' ', o->letter != 0 ? ", " : "  ", o->name,
                 o->kind != OPT_FLAG ? " " : "", o->kind != OPT_FLAG ? o->value : "");
        printf("  %-30s %s\n", left, o->help);
    }
}

static void print_help(const struct cli *c, const struct opt *opts, const struct opt *common)
{
    printf("usage: davit %s [OPTION...] %s\n\n%s\n\n", c->command, c->arguments, c->summary);
    print_opts(opts);
    print_opts(common);
}

static const struct opt *opt_find(const struct opt *opts, struct str name, char letter)
{
    for (const struct opt *o = opts; o->name != NULL; o++) {
        if (letter != 0 ? o->letter == letter : str_eqz(name, o->name)) {
            return o;
        }
    }
    return NULL;
}

void opt_list_add(struct opt_list *l, const char *item)
{
    l->items = xrealloc(l->items, (l->count + 1) * sizeof(*l->items));
    l->items[l->count++] = item;
}

static int opt_set(const struct cli *c, const struct opt *o, const char *value)
{
    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)o->target = true;
        return 0;
    case OPT_TEXT:
        *(const char **)o->target = value;
        return 0;
    case OPT_NUMBER:
        if (str_to_u64(str_from(value), o->target) < 0) {
            return cli_fail(c, -E_USAGE, "--%s wants a number, not `%s`", o->name, value);
        }
        return 0;
    case OPT_LIST:
        opt_list_add(o->target, value);
        return 0;
    default:
        check(false);
    }
}

/* Takes argv[*at], an option, and its value. */
static int take_option(struct cli *c, const struct opt *opts, const struct opt *common, int argc,
                       char **argv, int *at)
{
    const char *arg = argv[*at];
    struct str name = str_from(arg[1] == '-' ? arg + 2 : arg + 1);
    ptrdiff_t eq = arg[1] == '-' ? str_chr(name, '=') : -1;
    const char *value = eq >= 0 ? name.p + eq + 1 : NULL;
    char letter = arg[1] == '-' ? 0 : arg[1];
    if (eq >= 0) {
        name = str_sub(name, 0, (size_t)eq);
    }
    if (letter != 0 && arg[2] != 0) {
        value = arg + 2; /* -n5 */
    }
    if (str_eqz(name, "help") || letter == 'h') {
        print_help(c, opts, common);
        fflush(stdout);
        exit(0);
    }
    const struct opt *o = opt_find(opts, name, letter);
    o = o != NULL ? o : opt_find(common, name, letter);
    if (o == NULL) {
        return cli_fail(c, -E_USAGE, "unknown option `%s`; see davit %s --help", arg, c->command);
    }
    if (o->kind == OPT_FLAG && value != NULL) {
        return cli_fail(c, -E_USAGE, "--%s takes no value", o->name);
    }
    if (o->kind != OPT_FLAG && value == NULL) {
        if (*at + 1 >= argc) {
            return cli_fail(c, -E_USAGE, "--%s wants a value: %s", o->name, o->value);
        }
        value = argv[++*at];
    }
    return opt_set(c, o, value);
}

/* An option of a command that has the name of one of all commands would take its place. */
static void check_apart(const struct opt *opts, const struct opt *common)
{
    for (; opts->name != NULL; opts++) {
        for (const struct opt *o = common; o->name != NULL; o++) {
            check(strcmp(opts->name, o->name) != 0);
        }
    }
}

int cli_options(struct cli *c, const struct opt *opts, int argc, char **argv, size_t min,
                size_t max, const char ***ret_args, size_t *ret_count)
{
    const struct opt common[] = {
        {"url", 0, OPT_TEXT, &c->url, "URL", "the broker's HTTP address (DAVIT_URL)"},
        {"ca-file", 0, OPT_TEXT, &c->ca_file, "FILE",
         "whom to trust with an https URL (DAVIT_CA_FILE)"},
        {"token-file", 0, OPT_TEXT, &c->token_file, "FILE", "holds the token (else DAVIT_TOKEN)"},
        {"data", 0, OPT_TEXT, &c->data, "DIR", "data folder of a local broker (DAVIT_DATA)"},
        {"json", 0, OPT_FLAG, &c->json, NULL, "machine readable output"},
        {"no-color", 0, OPT_FLAG, &c->no_color, NULL, "plain text"},
        {"help", 'h', OPT_FLAG, NULL, NULL, "this text"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    check_apart(opts, common);
    const char **args = xcalloc((size_t)argc + 1, sizeof(*args));
    size_t count = 0;
    bool only_args = false;
    for (int i = 0; i < argc; i++) {
        if (only_args || argv[i][0] != '-' || argv[i][1] == 0) {
            args[count++] = argv[i];
        } else if (strcmp(argv[i], "--") == 0) {
            only_args = true;
        } else {
            int r = take_option(c, opts, common, argc, argv, &i);
            if (r < 0) {
                free(args);
                return r;
            }
        }
    }
    if (count < min || count > max) {
        free(args);
        return cli_fail(c, -E_USAGE, "%s; see davit %s --help",
                        count < min ? "an argument is missing" : "too many arguments", c->command);
    }
    c->color = c->color && !c->no_color && !c->json;
    if (ret_args != NULL) {
        *ret_args = args;
        *ret_count = count;
    } else {
        free(args);
    }
    return 0;
}
