#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/diag.h"
#include "common/http.h"
#include "common/log.h"
#include "common/os.h"

struct command {
    char name[24]; /* as people type it: resource-groups */
    const char *args;
    const char *summary;
    int (*run)(struct cli *c, int argc, char **argv);
};

static struct command COMMANDS[] = {
#define COMMAND(name, args, summary) {#name, args, summary, cmd_##name},
#include "cli/commands.def"
#undef COMMAND
};

/* The names in the table are also those of functions. */
static void name_commands(void)
{
    for (size_t i = 0; i < ARRAY_LEN(COMMANDS); i++) {
        for (char *p = COMMANDS[i].name; *p != 0; p++) {
            *p = *p == '_' ? '-' : *p;
        }
    }
}

static void print_usage(FILE *out)
{
    fputs("usage: davit COMMAND [OPTION...] [ARGUMENT...]\n\n", out);
    for (size_t i = 0; i < ARRAY_LEN(COMMANDS); i++) {
        fprintf(out, "  %-15s %-22s %s\n", COMMANDS[i].name, COMMANDS[i].args, COMMANDS[i].summary);
    }
    fputs("\ndavit COMMAND --help tells the options of a command.\n", out);
}

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(COMMANDS); i++) {
        if (strcmp(COMMANDS[i].name, name) == 0) {
            return &COMMANDS[i];
        }
    }
    return NULL;
}

static const char *nearest_command(const char *name)
{
    const char *names[ARRAY_LEN(COMMANDS)];
    for (size_t i = 0; i < ARRAY_LEN(COMMANDS); i++) {
        names[i] = COMMANDS[i].name;
    }
    return diag_nearest(str_from(name), names, ARRAY_LEN(names));
}

int main(int argc, char **argv)
{
    struct cli c = {.program = "davit"};
    name_commands();
    log_init("davit", LOG_WARN);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? err_exit_code(-E_USAGE) : 0;
    }
    const char *name = strcmp(argv[1], "--version") == 0 ? "version" : argv[1];
    const struct command *command = command_find(name);
    if (command == NULL) {
        const char *near = nearest_command(name);
        fprintf(stderr, "davit: unknown command `%s`%s%s%s\n", name,
                near != NULL ? "; did you mean `" : "", near != NULL ? near : "",
                near != NULL ? "`?" : "");
        return err_exit_code(-E_USAGE);
    }
    c.command = command->name;
    c.arguments = command->args;
    c.summary = command->summary;
    c.color = isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == NULL;
    http_global_init();
    json_object_seed(0);
    int r = command->run(&c, argc - 2, argv + 2);
    if (fflush(stdout) != 0 && r == 0) {
        r = cli_fail(&c, -E_IO, "cannot write to standard output");
    }
    return r > 0 ? r
                 : err_exit_code(r); /* a positive result is an exit code of the command's own */
}
