/* The certificate that the options give the API, read from its files and checked. Ownership:
 * served_release, which wipes the key. Threads: any. */
#ifndef DAVIT_CONFIG_SERVED_H
#define DAVIT_CONFIG_SERVED_H

#include "broker/config/options.h"
#include "common/buf.h"

struct served {
    struct buf
        chain;      /* PEM: the server's own, then those that lead to its authority; empty: none */
    struct buf key; /* PEM */
    uint64_t until_ms;
};

/* Nothing is read where the options name no certificate. On failure `why` gets a line with the
 * option and the file: a file that cannot be read, a key that everybody on the machine can read, a
 * certificate whose time has not come or is over, one whose key that is not, one option without
 * the other, or without an API that speaks https. -E_USAGE, -E_FORBIDDEN, -E_INVALID, or what
 * os_read_file says; nothing is to be released then. */
int served_load(const struct options *o, struct served *ret, struct buf *why);
void served_release(struct served *s);

#endif
