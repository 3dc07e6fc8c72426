/* The command line: what all commands share. One file a command, a table of them (commands.def).
 *
 * A command gets its arguments without the program's and its own name, parses them with
 * cli_options, and returns 0 or a negative enum err, having said what went wrong through cli_fail.
 * main turns that into the exit code of the error table; a positive result is an exit code as it is
 * (`davit run`). Text for people goes to stdout, complaints and progress to stderr; with --json
 * stdout holds one JSON value and nothing else. Threads: main's, but for follow.c. */
#ifndef DAVIT_CLI_H
#define DAVIT_CLI_H

#include <jansson.h>

#include "common/buf.h"
#include "common/err.h"

/* Options that every command takes. */
struct cli {
    const char *program;
    const char *command;
    const char *arguments;  /* of the command, for its help */
    const char *summary;    /* likewise */
    const char *url;        /* --url, DAVIT_URL, the configuration file, the data folder */
    const char *token_file; /* --token-file */
    const char *ca_file;    /* --ca-file */
    const char *data;       /* --data, DAVIT_DATA, ~/.local/state/davit */
    bool json;
    bool quiet; /* for a call that may fail: cli_fail says nothing */
    bool no_color;
    bool color; /* stdout is a terminal, and nobody said no */
};

enum opt_kind { OPT_FLAG, OPT_TEXT, OPT_NUMBER, OPT_LIST };

struct opt_list {
    const char **items;
    size_t count;
};

void opt_list_add(struct opt_list *l, const char *item);

struct opt {
    const char *name; /* long name; NULL ends a table */
    char letter;      /* short name; 0: none */
    enum opt_kind kind;
    void *target;      /* bool, const char *, uint64_t, struct opt_list */
    const char *value; /* name of the value in the help */
    const char *help;
};

/* Parses options; what is left are *ret_args (at least min, at most max of them). Handles --help by
 * printing the command's help and exiting. */
int cli_options(struct cli *c, const struct opt *opts, int argc, char **argv, size_t min,
                size_t max, const char ***ret_args, size_t *ret_count);

/* "davit COMMAND: TEXT" on stderr; returns r. */
int cli_fail(const struct cli *c, int r, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Numbers and times for people: heap-free, into the caller's buffer. */
const char *cli_duration(uint64_t ms, char *text, size_t n); /* "1m 03s", "0.42s" */
const char *cli_bytes(uint64_t bytes, char *text, size_t n); /* "12.3 MB" */
/* Wraps text in the status's colour when there are colours; uses a static ring of buffers. */
const char *cli_status(const struct cli *c, const char *status);

void cli_print_json(json_t *value); /* takes the reference */

/* Fields of API objects: "" or 0 where absent or null. */
const char *json_text(const json_t *o, const char *key);
uint64_t json_number(const json_t *o, const char *key);
bool json_flag(const json_t *o, const char *key);

#define COMMAND(name, args, summary) int cmd_##name(struct cli *c, int argc, char **argv);
#include "cli/commands.def"
#undef COMMAND

#endif
