/* What HAProxy's runtime socket says and is told, without the socket: for the driver and its tests.
 * Texts are borrowed. Threads: pure, but for haproxy_map_write. */
#ifndef DAVIT_WORKER_DRIVER_HAPROXY_H
#define DAVIT_WORKER_DRIVER_HAPROXY_H

#include "worker/driver/driver.h"

struct haproxy_columns {
    int backend, server, status, sessions, address, errors;
    int answers[5]; /* by class */
};

struct haproxy_stat {
    struct haproxy_columns columns;
    struct str rest;
};

struct haproxy_row {
    struct str backend;
    struct str server; /* or BACKEND, FRONTEND */
    struct str status;
    struct str address;
    uint64_t sessions;
    uint64_t requests; /* answered */
    uint64_t errors;   /* with 5xx, by the server or in its place */
};

/* False: that is no `show stat`. */
bool haproxy_stat_begin(struct str text, struct haproxy_stat *ret);
bool haproxy_stat_next(struct haproxy_stat *s, struct haproxy_row *ret);
bool haproxy_row_is_server(const struct haproxy_row *row);

/* The value of `get map`, 0 to 10,000. */
bool haproxy_map_value(struct str text, uint32_t *ret);
/* Appends the commands that make the backend's servers those that are wanted. 0, or -E_INVALID,
 * -E_LIMIT (too few servers in its template) and why. */
int haproxy_servers(const char *backend, struct str stat_text, char *const *wanted, size_t count,
                    struct buf *out, const char **ret_why);
/* The first line that says what went wrong; empty: nothing did. */
struct str haproxy_complaint(struct str text);
/* One key of a map file, by rename; other lines stay. */
int haproxy_map_write(const char *path, const char *key, uint32_t weight);

#endif
