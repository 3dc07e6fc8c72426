/* Diagnostics as SARIF 2.1.0 (the Static Analysis Results Interchange Format of OASIS): a log with
 * one run, whose rules are the codes of pipeline/codes.def. Threads: one at a time. */
#ifndef DAVIT_CLI_SARIF_H
#define DAVIT_CLI_SARIF_H

#include <jansson.h>

#include "common/diag.h"

json_t *sarif_new(void); /* without results; the caller's */
void sarif_add(json_t *log, const struct diags *diags);

#endif
