/* The options of a running broker, and how they change: SIGHUP and POST /reload read the file and
 * the command line again. A file that is wrong changes nothing. What it declares of pools and
 * projects goes to the core as one command; a few options are applied, and the certificate of the
 * API is read again (`https` NULL: it shows none); of those that need a new start the names are
 * told. Ownership: the options of the start stay the caller's and outlive this.
 * Threads: any; one reload at a time, the others wait. Not on the turn's thread. */
#ifndef DAVIT_RELOAD_H
#define DAVIT_RELOAD_H

#include "broker/api/https.h"
#include "broker/config/options.h"
#include "broker/turn.h"

struct reload;

struct reload *reload_new(const struct options_source *source, const struct options *started,
                          struct turn *turn, struct https *https);
void reload_free(struct reload *r);

/* What the start's options declare, into the store: once, before workers come. */
int reload_declare(struct reload *r, struct buf *why);

struct reload_result {
    struct buf changed; /* lines: what is another now */
    struct buf restart; /* lines: the names of options that wait for a new start */
    struct buf why;     /* on failure: lines, each with its place */
};
void reload_result_release(struct reload_result *r);

/* -E_CONFLICT: there is no file. -E_INVALID and what os_read_file and the core say: nothing has
 * changed. */
int reload_run(struct reload *r, struct reload_result *ret);
/* What it would do; it logs nothing. What the core would refuse is not known. */
int reload_check(struct reload *r, struct reload_result *ret);

#endif
