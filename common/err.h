/* Errors: functions that can fail return 0 or a negative `enum err`, e.g. `return -E_NOT_FOUND`.
 * Outputs (`ret_*`) are untouched on failure. A function logs or returns an error, never both.
 * Threads: all safe. */
#ifndef DAVIT_ERR_H
#define DAVIT_ERR_H

#include "common/base.h"

enum err {
    E_OK = 0,
#define ERR(name, code, http, exit_code, text) name,
#include "common/err.def"
#undef ERR
    E_COUNT
};

/* All take the negative (or zero) return value of a function. */
const char *err_code(int r);      /* "not_found"; "ok" for 0 */
const char *err_text(int r);      /* "not found" */
int err_http_status(int r);       /* 404; 200 for 0 */
int err_exit_code(int r);         /* sysexits-like; 0 for 0 */
int err_from_code(const char *s); /* "not_found" -> -E_NOT_FOUND; unknown: -E_INTERNAL */
int err_from_errno(int e);        /* ENOENT -> -E_NOT_FOUND, ENOSPC -> -E_NO_SPACE, else -E_IO */

#endif
