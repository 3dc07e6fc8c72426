#include "common/base.h"

#include "proto/pb.h"

#include <stdatomic.h>
#include <stdlib.h>

/* Messages copied as what they are, without the packed form in between. What makes a copy more than
 * a memcpy are the fields that point somewhere: they are looked for once for each kind of message.
 */

#define FIELD_BYTES 15u /* a tag and a number, or a tag and a length, as varints: at most */
#define ALIGN_BYTES sizeof(uint64_t) /* no field of generated code wants more */
#define SHAPES      512u             /* a power of 2, far above the number of kinds of messages */

enum part_kind {
    PART_STRING,
    PART_BYTES,
    PART_MESSAGE,
    PART_NUMBERS,
    PART_STRINGS,
    PART_BYTES_LIST,
    PART_MESSAGES,
};

struct shape;

/* A field that points. */
struct part {
    enum part_kind kind;
    uint32_t offset;
    uint32_t count_offset;  /* of lists; of a member of a oneof: where that says who it is */
    uint32_t member;        /* of a oneof: its number; 0: of none */
    uint32_t item_bytes;    /* of lists */
    const struct shape *of; /* of messages */
};

struct shape {
    const ProtobufCMessageDescriptor *desc;
    size_t packed_bytes; /* at most, but for what its fields point to */
    size_t count;
    struct part parts[];
};

static uint32_t number_bytes(ProtobufCType type)
{
    return type == PROTOBUF_C_TYPE_INT64 || type == PROTOBUF_C_TYPE_SINT64 ||
                   type == PROTOBUF_C_TYPE_SFIXED64 || type == PROTOBUF_C_TYPE_UINT64 ||
                   type == PROTOBUF_C_TYPE_FIXED64 || type == PROTOBUF_C_TYPE_DOUBLE
               ? sizeof(uint64_t)
               : sizeof(uint32_t); /* enums and truth values, too */
}

static const struct shape *shape_of(const ProtobufCMessageDescriptor *desc);

/* False: the field points nowhere. */
static bool part_of(const ProtobufCFieldDescriptor *field, struct part *ret)
{
    const bool list = field->label == PROTOBUF_C_LABEL_REPEATED;
    const bool member = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;

    *ret = (struct part){.offset = field->offset,
                         .count_offset = field->quantifier_offset,
                         .member = member ? field->id : 0,
                         .item_bytes = sizeof(void *)};
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        ret->kind = list ? PART_STRINGS : PART_STRING;
    } else if (field->type == PROTOBUF_C_TYPE_BYTES) {
        ret->kind = list ? PART_BYTES_LIST : PART_BYTES;
        ret->item_bytes = sizeof(ProtobufCBinaryData);
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        ret->kind = list ? PART_MESSAGES : PART_MESSAGE;
        ret->of = shape_of(field->descriptor); /* no message contains itself */
    } else if (list) {
        ret->kind = PART_NUMBERS;
        ret->item_bytes = number_bytes(field->type);
    } else {
        return false;
    }
    return true;
}

static struct shape *shape_new(const ProtobufCMessageDescriptor *desc)
{
    struct shape *s = xmalloc(sizeof(*s) + desc->n_fields * sizeof(s->parts[0]));

    s->desc = desc;
    s->packed_bytes = desc->n_fields * (size_t)FIELD_BYTES;
    s->count = 0;
    for (unsigned i = 0; i < desc->n_fields; i++) {
        s->count += part_of(&desc->fields[i], &s->parts[s->count]);
    }
    return s;
}

/* They are never freed: as many as there are kinds of messages. */
static const struct shape *shape_of(const ProtobufCMessageDescriptor *desc)
{
    static _Atomic(struct shape *) shapes[SHAPES];
    struct shape *made = NULL;
    size_t at = (uintptr_t)desc / sizeof(*desc);

    for (size_t i = 0; i < SHAPES; i++) {
        _Atomic(struct shape *) *slot = &shapes[(at + i) % SHAPES];
        struct shape *s = atomic_load_explicit(slot, memory_order_acquire);
        if (s == NULL) {
            made = made != NULL ? made : shape_new(desc);
            if (atomic_compare_exchange_strong(slot, &s, made)) {
                return made;
            }
        }
        if (s->desc == desc) {
            free(made);
            return s;
        }
    }
    check_failed("a slot for each kind of message", __FILE__, __LINE__);
}

static size_t count_of(const struct part *part, const void *m)
{
    return *(const size_t *)((const char *)m + part->count_offset);
}

/* Whether the field is in the message at all: members of a oneof share their place. */
static bool is_there(const struct part *part, const void *m)
{
    return part->member == 0 ||
           *(const uint32_t *)((const char *)m + part->count_offset) == part->member;
}

static size_t padded(size_t n)
{
    return (n + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
}

struct measure {
    size_t block;
    size_t packed; /* at most */
};

static void add(struct measure *sum, size_t n)
{
    sum->block += padded(n);
    sum->packed += n;
}

static void add_string(struct measure *sum, const char *s)
{
    if (s != NULL && s[0] != '\0') {
        add(sum, strlen(s) + 1);
    }
}

static void add_message(struct measure *sum, const ProtobufCMessage *m, const struct shape *shape);

static void add_list(struct measure *sum, const struct part *part, const void *items, size_t n)
{
    add(sum, n * part->item_bytes);
    sum->packed += n * FIELD_BYTES;
    for (size_t i = 0; i < n && part->kind != PART_NUMBERS; i++) {
        if (part->kind == PART_STRINGS) {
            add_string(sum, ((char *const *)items)[i]);
        } else if (part->kind == PART_BYTES_LIST) {
            add(sum, ((const ProtobufCBinaryData *)items)[i].len);
        } else {
            add_message(sum, ((ProtobufCMessage *const *)items)[i], part->of);
        }
    }
}

static void add_part(struct measure *sum, const struct part *part, const void *m)
{
    const void *at = (const char *)m + part->offset;
    const void *pointer = *(const void *const *)at;

    if (part->kind == PART_STRING) {
        add_string(sum, pointer);
    } else if (part->kind == PART_BYTES) {
        add(sum, ((const ProtobufCBinaryData *)at)->len);
    } else if (part->kind == PART_MESSAGE) {
        if (pointer != NULL) {
            add_message(sum, pointer, part->of);
        }
    } else if (count_of(part, m) > 0) {
        add_list(sum, part, pointer, count_of(part, m));
    }
}

static void add_message(struct measure *sum, const ProtobufCMessage *m, const struct shape *shape)
{
    sum->block += padded(shape->desc->sizeof_message);
    sum->packed += shape->packed_bytes;
    for (size_t i = 0; i < shape->count; i++) {
        if (is_there(&shape->parts[i], m)) {
            add_part(sum, &shape->parts[i], m);
        }
    }
    for (unsigned i = 0; i < m->n_unknown_fields; i++) { /* more than a tag each */
        add(sum, sizeof(m->unknown_fields[i]));
        add(sum, m->unknown_fields[i].len);
    }
}

size_t pb_block_size(const ProtobufCMessage *m)
{
    struct measure sum = {0};

    add_message(&sum, m, shape_of(m->descriptor));
    return sum.block;
}

size_t pb_size_bound(const ProtobufCMessage *m)
{
    struct measure sum = {0};

    add_message(&sum, m, shape_of(m->descriptor));
    return sum.packed;
}

/* A copy in `*to`, which then stands behind it. */
static void *put(char **to, const void *from, size_t n)
{
    char *p = *to;

    memcpy(p, from, n);
    *to += padded(n);
    return p;
}

static char *put_string(char **to, const char *s)
{
    return s == NULL || s[0] == '\0' ? (char *)protobuf_c_empty_string : put(to, s, strlen(s) + 1);
}

static ProtobufCBinaryData put_bytes(char **to, ProtobufCBinaryData b)
{
    return (ProtobufCBinaryData){.len = b.len, .data = b.len > 0 ? put(to, b.data, b.len) : NULL};
}

static ProtobufCMessage *put_message(char **to, const ProtobufCMessage *m,
                                     const struct shape *shape);

static void *put_list(char **to, const struct part *part, const void *items, size_t n)
{
    void *out;

    if (n == 0) {
        return NULL;
    }
    out = put(to, items, n * part->item_bytes);
    for (size_t i = 0; i < n && part->kind != PART_NUMBERS; i++) {
        if (part->kind == PART_STRINGS) {
            ((char **)out)[i] = put_string(to, ((char *const *)items)[i]);
        } else if (part->kind == PART_BYTES_LIST) {
            ((ProtobufCBinaryData *)out)[i] = put_bytes(to,
                                                        ((const ProtobufCBinaryData *)items)[i]);
        } else {
            ((ProtobufCMessage **)out)[i] = put_message(to, ((ProtobufCMessage *const *)items)[i],
                                                        part->of);
        }
    }
    return out;
}

/* `out` is a copy of the message as it is. */
static void put_part(char **to, const struct part *part, const void *m, void *out)
{
    const void *pointer = *(const void *const *)((const char *)m + part->offset);
    void *at = (char *)out + part->offset;

    if (part->kind == PART_STRING) {
        *(char **)at = put_string(to, pointer);
    } else if (part->kind == PART_BYTES) {
        *(ProtobufCBinaryData *)at = put_bytes(to, *(const ProtobufCBinaryData *)at);
    } else if (part->kind == PART_MESSAGE) {
        *(void **)at = pointer != NULL ? put_message(to, pointer, part->of) : NULL;
    } else {
        *(void **)at = put_list(to, part, pointer, count_of(part, m));
    }
}

/* What a newer program has written, and this one does not know. */
static void put_unknown(char **to, ProtobufCMessage *out)
{
    out->unknown_fields = put(to, out->unknown_fields,
                              out->n_unknown_fields * sizeof(out->unknown_fields[0]));
    for (unsigned i = 0; i < out->n_unknown_fields; i++) {
        ProtobufCMessageUnknownField *field = &out->unknown_fields[i];
        field->data = put(to, field->data, field->len);
    }
}

static ProtobufCMessage *put_message(char **to, const ProtobufCMessage *m,
                                     const struct shape *shape)
{
    ProtobufCMessage *out = put(to, m, shape->desc->sizeof_message);

    for (size_t i = 0; i < shape->count; i++) {
        if (is_there(&shape->parts[i], m)) {
            put_part(to, &shape->parts[i], m, out);
        }
    }
    if (out->n_unknown_fields > 0) {
        put_unknown(to, out);
    }
    return out;
}

ProtobufCMessage *pb_block_make(const ProtobufCMessage *m, void *block)
{
    char *to = block;

    return put_message(&to, m, shape_of(m->descriptor));
}

/* A block that has moved: what pointed into the old one points into the new one. */
struct move {
    uintptr_t from;
    size_t n;
    char *to;
};

static void mend(const struct move *move, void *pointer)
{
    const uintptr_t offset = (uintptr_t)(*(void **)pointer) - move->from;

    if (offset < move->n) { /* else NULL, or the empty string */
        *(void **)pointer = move->to + offset;
    }
}

static void mend_message(const struct move *move, ProtobufCMessage *m, const struct shape *shape);

static void mend_items(const struct move *move, const struct part *part, void *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (part->kind == PART_BYTES_LIST) {
            mend(move, &((ProtobufCBinaryData *)items)[i].data);
            continue;
        }
        mend(move, &((void **)items)[i]);
        if (part->kind == PART_MESSAGES) {
            mend_message(move, ((ProtobufCMessage **)items)[i], part->of);
        }
    }
}

static void mend_part(const struct move *move, const struct part *part, void *m)
{
    void *at = (char *)m + part->offset;

    if (part->kind == PART_BYTES) {
        mend(move, &((ProtobufCBinaryData *)at)->data);
        return;
    }
    mend(move, at);
    if (part->kind == PART_MESSAGE && *(void **)at != NULL) {
        mend_message(move, *(ProtobufCMessage **)at, part->of);
    } else if (part->kind > PART_NUMBERS) {
        mend_items(move, part, *(void **)at, count_of(part, m));
    }
}

static void mend_message(const struct move *move, ProtobufCMessage *m, const struct shape *shape)
{
    for (size_t i = 0; i < shape->count; i++) {
        if (is_there(&shape->parts[i], m)) {
            mend_part(move, &shape->parts[i], m);
        }
    }
    if (m->n_unknown_fields > 0) {
        mend(move, &m->unknown_fields);
        for (unsigned i = 0; i < m->n_unknown_fields; i++) {
            mend(move, &m->unknown_fields[i].data);
        }
    }
}

ProtobufCMessage *pb_block_copy(const ProtobufCMessage *block, size_t n, void *to)
{
    const struct move move = {.from = (uintptr_t)block, .n = n, .to = to};

    memcpy(to, block, n);
    mend_message(&move, to, shape_of(block->descriptor));
    return to;
}

ProtobufCMessage *pb_copy(struct arena *arena, const ProtobufCMessage *m)
{
    check(arena->limit == 0);
    return pb_block_make(m, arena_alloc(arena, pb_block_size(m)));
}
