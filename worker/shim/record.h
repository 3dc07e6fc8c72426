/* The format of shim.conf and status: records of NUL-terminated fields, each record ended by an
 * empty field. No quoting, any byte but NUL. A field cannot be empty. Threads: pure. */
#ifndef DAVIT_SHIM_RECORD_H
#define DAVIT_SHIM_RECORD_H

#include "common/buf.h"

/* Writing. */
void record_add(struct buf *out, struct str field); /* check()ed: not empty, no NUL inside */
void record_addz(struct buf *out, const char *field);
void record_add_u64(struct buf *out, uint64_t value);
void record_add_int(struct buf *out, int value);
void record_end(struct buf *out);

/* Reading. Cuts the first record off *rest; false at the end or where the text is cut short: then
 * rest->n says which. */
bool record_next(struct str *rest, struct str *ret_record);
/* The record's next field, or NULL after the last. */
const char *record_field(struct str *record);
bool record_field_u64(struct str *record, uint64_t *ret);
bool record_field_int(struct str *record, int *ret);

#endif
