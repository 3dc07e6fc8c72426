/* How both sides of the wire put Envelopes together piece by piece: a packed Envelope without body,
 * and a body, side by side are the packed whole. A body that is a list (of jobs, mostly) may be
 * grown while it waits to be sent: the packed contents of several such bodies side by side are the
 * packed content of one with all their entries. Pure. */
#ifndef DAVIT_ENVELOPE_H
#define DAVIT_ENVELOPE_H

#include "common/limits.h"
#include "proto/pb.h"

/* Content that leaves room for a head. */
#define ENVELOPE_CONTENT_MAX (LIMIT_WIRE_MESSAGE - 256u)

bool envelope_is_list(Pb__Envelope__BodyCase kind);
/* How many entries the list of the body has; 1 where it is none. */
size_t envelope_count(const Pb__Envelope *e);
/* Appends what is in the body. */
void envelope_pack_content(const Pb__Envelope *e, struct buf *out);
/* Appends what stands before so many bytes of content of such a body. */
void envelope_add_head(Pb__Envelope__BodyCase kind, size_t content_bytes, struct buf *out);

#endif
