#include "common/base.h"

#include "proto/pb.h"

#include "common/limits.h"

#define BOUND_BYTES                                                              \
    (256u * 1024) /* messages up to this bound are packed without measuring them \
                   */

/* Protobuf wire types that protobuf-c knows; groups (3, 4) are refused. */
enum { WIRE_VARINT = 0, WIRE_64BIT = 1, WIRE_BYTES = 2, WIRE_32BIT = 5 };

/* NULL: there is none between p and end. Else behind it. */
static const uint8_t *read_varint(const uint8_t *p, const uint8_t *end, uint64_t *ret)
{
    uint64_t v = 0;

    for (unsigned shift = 0; p < end && shift < 70; shift += 7) {
        const uint8_t byte = *p++;

        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = v;
            return p;
        }
    }
    return NULL;
}

/* A field of a packed message. */
struct field {
    uint32_t number;
    uint32_t type; /* on the wire */
    struct str bytes;
};

/* NULL: there is no good one. Else behind it. */
static const uint8_t *read_field(const uint8_t *p, const uint8_t *end, struct field *ret)
{
    uint64_t tag;
    uint64_t n;

    p = read_varint(p, end, &tag);
    if (p == NULL || tag > UINT32_MAX || tag >> 3 == 0) {
        return NULL; /* field numbers are 1 to 2^29 - 1 */
    }
    ret->number = (uint32_t)(tag >> 3);
    ret->type = (uint32_t)(tag & 7);
    if (ret->type == WIRE_VARINT) {
        return read_varint(p, end, &n);
    } else if (ret->type == WIRE_64BIT) {
        n = 8;
    } else if (ret->type == WIRE_32BIT) {
        n = 4;
    } else if (ret->type != WIRE_BYTES || (p = read_varint(p, end, &n)) == NULL) {
        return NULL;
    }
    if (n > (uint64_t)(end - p)) {
        return NULL;
    }
    ret->bytes = str_of(p, (size_t)n);
    return p + n;
}

/* Fields mostly stand in the order of their numbers, and next to each other: `hint` is where to
 * look first, and next time. NULL: the schema does not know the number. */
static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *desc,
                                                  uint32_t number, unsigned *hint)
{
    const ProtobufCFieldDescriptor *field;

    for (unsigned i = *hint; i < desc->n_fields && i <= *hint + 1; i++) {
        if (desc->fields[i].id == number) {
            *hint = i;
            return &desc->fields[i];
        }
    }
    field = protobuf_c_message_descriptor_get_field(desc, number);
    if (field != NULL) {
        *hint = (unsigned)(field - desc->fields);
    }
    return field;
}

/* Walks the packed bytes along the schema. It has to be the packed form: an unpacked string has
 * lost its length, and with it what hides behind a NUL. The recursion is as deep as the schema, in
 * which no message contains itself. */
static bool strings_are_good(const ProtobufCMessageDescriptor *desc, struct str in)
{
    const uint8_t *p = (const uint8_t *)in.p;
    const uint8_t *end = p + in.n;
    unsigned hint = 0; /* the field of a list, again and again */

    while (p < end) {
        const ProtobufCFieldDescriptor *field;
        struct field f;

        p = read_field(p, end, &f);
        if (p == NULL) {
            return false;
        }
        if (f.type != WIRE_BYTES) {
            continue;
        }
        field = find_field(desc, f.number, &hint);
        if (field == NULL) {
            continue;
        }
        if (field->type == PROTOBUF_C_TYPE_STRING && !str_is_utf8(f.bytes, NULL)) {
            return false;
        }
        if (field->type == PROTOBUF_C_TYPE_MESSAGE &&
            !strings_are_good(field->descriptor, f.bytes)) {
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

bool pb_same(const ProtobufCMessage *a, const ProtobufCMessage *b)
{
    struct buf left = BUF_INIT;
    struct buf right = BUF_INIT;

    check(a->descriptor == b->descriptor);
    pb_pack(a, &left);
    pb_pack(b, &right);
    const bool same = str_eq(buf_str(&left), buf_str(&right));
    buf_release(&left);
    buf_release(&right);
    return same;
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
