/* What libmicrohttpd lets through and we do not: requests that two servers could read in two ways.
 * Threads: pure. */
#ifndef DAVIT_API_HYGIENE_H
#define DAVIT_API_HYGIENE_H

#include "broker/api/request.h"

/* The raw request target: no %00, nothing below a blank. */
bool hygiene_target_ok(const char *uri);

/* 0 or -E_INVALID: a name of a header that is no token, both lengths, a header twice that may stand
 * only once, a `..` segment in the decoded path. The connection then ends with the answer. */
int hygiene_check(struct request *rq, const char *path);

#endif
