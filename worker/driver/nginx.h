/* The file that the router nginx writes: whole, known again, and named by what is in it. Private to
 * worker/driver and its tests. Pure. */
#ifndef DAVIT_WORKER_DRIVER_NGINX_H
#define DAVIT_WORKER_DRIVER_NGINX_H

#include "common/arena.h"
#include "common/buf.h"

#define NGINX_GENERATION_BYTES 33

struct nginx_route {
    uint32_t weight; /* of slot b, basis points */
    char *const *servers[2];
    size_t counts[2];
};

/* Names and addresses must be those that the checks below admit. The generation is a digest of the
 * rest: the same route has the same one. */
void nginx_render(const char *name, const struct nginx_route *route, struct buf *out,
                  char ret_generation[NGINX_GENERATION_BYTES]);
/* False: the text is not, byte by byte, what nginx_render makes of a route under that name. */
bool nginx_parse(const char *name, struct str text, struct arena *arena, struct nginx_route *ret,
                 char ret_generation[NGINX_GENERATION_BYTES]);
bool nginx_is_name(struct str s);    /* letters, digits, _ */
bool nginx_is_address(struct str s); /* HOST:PORT, nothing that ends a directive */

#endif
