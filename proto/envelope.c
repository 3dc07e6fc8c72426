#include "common/base.h"

#include "proto/envelope.h"

#define TYPE_BYTES 2u /* of protobuf: a length and so many bytes */

bool envelope_is_list(Pb__Envelope__BodyCase kind)
{
    return kind == PB__ENVELOPE__BODY_ASSIGN || kind == PB__ENVELOPE__BODY_ASSIGN_ACK ||
           kind == PB__ENVELOPE__BODY_JOB_STARTED || kind == PB__ENVELOPE__BODY_JOB_FINISHED ||
           kind == PB__ENVELOPE__BODY_FINISH_ACK || kind == PB__ENVELOPE__BODY_CLIENT_JOB_ENDED;
}

size_t envelope_count(const Pb__Envelope *e)
{
    if (e->body_case == PB__ENVELOPE__BODY_ASSIGN) {
        return e->assign->n_specs;
    }
    if (e->body_case == PB__ENVELOPE__BODY_ASSIGN_ACK) {
        return e->assign_ack->n_keys;
    }
    if (e->body_case == PB__ENVELOPE__BODY_JOB_STARTED) {
        return e->job_started->n_keys;
    }
    if (e->body_case == PB__ENVELOPE__BODY_JOB_FINISHED) {
        return e->job_finished->n_ends;
    }
    if (e->body_case == PB__ENVELOPE__BODY_FINISH_ACK) {
        return e->finish_ack->n_keys;
    }
    if (e->body_case == PB__ENVELOPE__BODY_CLIENT_JOB_ENDED) {
        return e->client_job_ended->n_jobs;
    }
    return 1;
}

void envelope_pack_content(const Pb__Envelope *e, struct buf *out)
{
    check(e->body_case != PB__ENVELOPE__BODY__NOT_SET);
    /* Every body is a pointer to a message, and messages begin alike. */
    pb_pack((const ProtobufCMessage *)e->hello, out);
}

static void add_varint(struct buf *out, uint64_t v)
{
    uint8_t bytes[10];
    size_t n = 0;

    for (; v >= 0x80; v >>= 7) {
        bytes[n++] = (uint8_t)(v | 0x80);
    }
    bytes[n++] = (uint8_t)v;
    buf_add(out, bytes, n);
}

void envelope_add_head(Pb__Envelope__BodyCase kind, size_t content_bytes, struct buf *out)
{
    add_varint(out, (uint64_t)kind << 3 | TYPE_BYTES);
    add_varint(out, content_bytes);
}
