/* `"variables":[{"name","value","raw","file"}]` of a request. Threads: as body.h. */
#ifndef DAVIT_API_VARIABLES_H
#define DAVIT_API_VARIABLES_H

#include "broker/api/request.h"

/* Reads the member `variables` of the body into the arena; absent: none. */
int variables_read(struct request *rq, const json_t *body, struct arena *arena, Pb__Variable ***ret,
                   size_t *ret_count);

#endif
