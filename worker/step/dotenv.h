/* Reads dotenv reports: one NAME=VALUE a line. As GitLab reads them: blanks around name and value
 * are dropped, quotes are part of the value, nothing is expanded, and there are no values of
 * several lines. Other than GitLab, empty lines and lines that begin with # are skipped, and the
 * bounds are LIMIT_DOTENV_BYTES and LIMIT_DOTENV_VARIABLES. Threads: pure. */
#ifndef DAVIT_STEP_DOTENV_H
#define DAVIT_STEP_DOTENV_H

#include "common/expand.h"

/* Where a text is no dotenv file. */
struct dotenv_mistake {
    uint32_t line;      /* 1-based */
    const char *reason; /* a literal */
};

/* Adds the variables of one file to `vars`, raw; a later one of the same name wins. -E_INVALID, and
 * what came before the mistake was added. */
int dotenv_parse(struct str text, struct vars *vars, struct dotenv_mistake *ret);

#endif
