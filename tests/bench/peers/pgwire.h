/* As much of PostgreSQL's protocol (version 3) as prepared statements need. Values are text.
 * Threads: pure. */
#ifndef DAVIT_BENCH_PGWIRE_H
#define DAVIT_BENCH_PGWIRE_H

#include "common/buf.h"

struct pg_message {
    char type; /* A notification, D row, E error, Z ready; others do not matter here */
    struct str body;
};

/* The next message off the front; false when it is not whole yet. */
bool pg_take(struct str *rest, struct pg_message *ret);
struct str pg_column(struct str row, size_t index); /* STR_NULL: null, or there is none */
struct str pg_error(struct str body);               /* its text */

void pg_startup(struct buf *out); /* as postgres, to the database of that name */
void pg_query(struct buf *out, const char *sql);
void pg_parse(struct buf *out, const char *statement, const char *sql);
void pg_execute(struct buf *out, const char *statement, struct str argument); /* STR_NULL: none */
void pg_sync(struct buf *out); /* ends the transaction: a Z comes back */

#endif
