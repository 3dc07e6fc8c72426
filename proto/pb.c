#include "common/base.h"

#include "proto/pb.h"

#include "common/limits.h"

#define BOUND_BYTES                                                              \
    (256u * 1024) /* messages up to this bound are packed without measuring them \
                   */

/* Protobuf wire types that protobuf-c knows; groups (3, 4) are refused. */
enum { WIRE_VARINT = 0, WIRE_64BIT = 1, WIRE_BYTES = 2, WIRE_32BIT = 5 };

static bool read_varint(struct str *in, uint64_t *ret)
{
    uint64_t v = 0;

    for (size_t i = 0; i < in->n && i < 10; i++) {
        uint8_t byte = (uint8_t)in->p[i];

        v |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (!(byte & 0x80)) {
            *in = str_sub(*in, i + 1, in->n);
            *ret = v;
            return true;
        }
    }
    return false;
}

/* Cuts one field off *in: its number, its wire type and, for WIRE_BYTES, its content. */
static bool read_field(struct str *in, uint32_t *ret_number, uint32_t *ret_type,
                       struct str *ret_bytes)
{
    uint64_t tag;
    uint64_t n;

    if (!read_varint(in, &tag) || tag > UINT32_MAX || tag >> 3 == 0) {
        return false; /* field numbers are 1 to 2^29 - 1 */
    }
    *ret_number = (uint32_t)(tag >> 3);
    *ret_type = (uint32_t)(tag & 7);
    switch (*ret_type) {
    case WIRE_VARINT:
        return read_varint(in, &n);
    case WIRE_64BIT:
        n = 8;
        break;
    case WIRE_32BIT:
        n = 4;
        break;
    case WIRE_BYTES:
        if (!read_varint(in, &n)) {
            return false;
        }
        break;
    default:
        return false;
    }
    if (n > in->n) {
        return false;
    }
    *ret_bytes = str_sub(*in, 0, (size_t)n);
    *in = str_sub(*in, (size_t)n, in->n);
    return true;
}

/* Walks the packed bytes along the schema. It has to be the packed form: an unpacked string has
 * lost its length, and with it what hides behind a NUL. The recursion is as deep as the schema, in
 * which no message contains itself. */
static bool strings_are_good(const ProtobufCMessageDescriptor *desc, struct str in)
{
    while (in.n > 0) {
        const ProtobufCFieldDescriptor *field;
        struct str bytes = STR_NULL;
        uint32_t number;
        uint32_t type;

        if (!read_field(&in, &number, &type, &bytes)) {
            return false;
        }
        field = protobuf_c_message_descriptor_get_field(desc, number);
        if (!field || type != WIRE_BYTES) {
            continue;
        }
        if (field->type == PROTOBUF_C_TYPE_STRING && !str_is_utf8(bytes, NULL)) {
            return false;
        }
        if (field->type == PROTOBUF_C_TYPE_MESSAGE && !strings_are_good(field->descriptor, bytes)) {
            return false;
        }
    }
    return true;
}

static void *allocator_alloc(void *arena, size_t n)
{
    return arena_try(arena, n);
}

/* The arena frees as a whole; protobuf-c frees parts when it merges repeated submessages. */
static void allocator_free(void *arena UNUSED, void *p UNUSED)
{
}

static ProtobufCMessage *unpack(struct arena *arena, const ProtobufCMessageDescriptor *desc,
                                const void *p, size_t n)
{
    ProtobufCAllocator allocator = {allocator_alloc, allocator_free, arena};

    return protobuf_c_message_unpack(desc, &allocator, n, p);
}

int pb_unpack(struct arena *arena, const ProtobufCMessageDescriptor *desc, const void *p, size_t n,
              size_t limit, ProtobufCMessage **ret)
{
    const struct arena before = *arena;
    size_t cap = arena->used + LIMIT_UNPACK_FACTOR * n + LIMIT_UNPACK_SLACK;
    ProtobufCMessage *m;

    if (n > limit) {
        return -E_TOO_BIG;
    }
    if (!strings_are_good(desc, str_of(p, n))) {
        return -E_PROTOCOL;
    }
    arena->limit = before.limit ? MIN(before.limit, cap) : cap;
    m = unpack(arena, desc, p, n);
    arena->limit = before.limit;
    arena->exceeded = before.exceeded;
    if (!m) {
        return -E_PROTOCOL;
    }
    *ret = m;
    return 0;
}

int pb_unpack_own(struct arena *arena, const ProtobufCMessageDescriptor *desc, struct str packed,
                  ProtobufCMessage **ret)
{
    ProtobufCMessage *m = unpack(arena, desc, packed.p, packed.n);

    if (!m) {
        return -E_PROTOCOL;
    }
    *ret = m;
    return 0;
}

void pb_pack(const ProtobufCMessage *m, struct buf *out)
{
    size_t room = pb_size_bound(m);
    char *p;

    if (room > BOUND_BYTES || out->limit > 0) { /* where room too much would not be fine */
        room = protobuf_c_message_get_packed_size(m);
    }
    p = buf_space(out, room);
    if (p) {
        const size_t n = protobuf_c_message_pack(m, (uint8_t *)p);
        check(n <= room);
        buf_advance(out, n);
    }
}

struct str pb_str(ProtobufCBinaryData b)
{
    return str_of(b.data, b.len);
}

ProtobufCBinaryData pb_bytes(struct arena *arena, struct str s)
{
    return pb_bytes_ref(arena_str(arena, s));
}

ProtobufCBinaryData pb_bytes_ref(struct str s)
{
    return (ProtobufCBinaryData){.len = s.n, .data = (uint8_t *)s.p};
}
