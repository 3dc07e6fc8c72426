/* The property of every message that foreign bytes may become: what pb_unpack takes can be packed,
 * is taken again, and is packed to the same bytes; and no string in it is other than it seems. */
#ifndef DAVIT_FUZZ_ROUNDTRIP_H
#define DAVIT_FUZZ_ROUNDTRIP_H

#include "proto/pb.h"

static void check_strings(const ProtobufCMessage *m);

static void check_string_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
    const char *at = (const char *)m + f->offset;
    const size_t *count = (const size_t *)((const char *)m + f->quantifier_offset);
    bool repeated = f->label == PROTOBUF_C_LABEL_REPEATED;
    bool chosen = !(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
                  *(const uint32_t *)(const void *)count == f->id;
    const void *const *items = repeated ? *(const void *const *const *)at : (const void *const *)at;

    for (size_t i = 0; chosen && i < (repeated ? *count : 1); i++) {
        if (f->type == PROTOBUF_C_TYPE_STRING) {
            check(items[i] && str_is_utf8(str_from(items[i]), NULL));
        } else if (items[i]) {
            check_strings(items[i]);
        }
    }
}

static void check_strings(const ProtobufCMessage *m)
{
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];

        if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE) {
            check_string_field(m, f);
        }
    }
}

static void check_roundtrip(const ProtobufCMessageDescriptor *desc, const uint8_t *p, size_t n,
                            size_t limit)
{
    struct arena arena;
    ProtobufCMessage *m;
    ProtobufCMessage *again;
    struct buf first = BUF_INIT;
    struct buf second = BUF_INIT;

    arena_init(&arena, 0);
    if (pb_unpack(&arena, desc, p, n, limit, &m) == 0) {
        check_strings(m);
        pb_pack(m, &first);
        check(pb_unpack(&arena, desc, first.p, first.n, limit, &again) == 0);
        pb_pack(again, &second);
        check(str_eq(buf_str(&first), buf_str(&second)));
    }
    buf_release(&first);
    buf_release(&second);
    arena_release(&arena);
}

#endif
