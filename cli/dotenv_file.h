/* Files of variables as people keep them beside their code (.env): NAME=VALUE a line, `export`
 * before it allowed, empty lines and lines that begin with # skipped. A value in double quotes may
 * go over several lines and knows \n, \t, \", \\ and \$; one in single quotes is as it stands, over
 * several lines, too; without quotes it ends before " #" and is trimmed. Nothing is expanded.
 * Threads: pure. */
#ifndef DAVIT_CLI_DOTENV_FILE_H
#define DAVIT_CLI_DOTENV_FILE_H

#include "common/expand.h"

/* Adds the variables to `vars`; a later one of the same name wins. -E_INVALID: *ret_line is where,
 * *ret_why a literal that says what is wrong. */
int dotenv_file_read(struct str text, struct vars *vars, uint32_t *ret_line, const char **ret_why);

/* The environment scope that the file is for by its name: "production" of ".env.production"; heap.
 * NULL: none. */
char *dotenv_file_scope(const char *path);

/* Appends NAME="VALUE", as it is read back. */
void dotenv_file_add(struct buf *out, struct str name, struct str value);

#endif
