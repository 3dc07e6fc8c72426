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

/* A field that points. */
struct part {
    enum part_kind kind;
    uint32_t offset;
    uint32_t count_offset; /* of lists; of a member of a oneof: where that says who it is */
    uint32_t member;       /* of a oneof: its number; 0: of none */
    uint32_t item_bytes;   /* PART_NUMBERS */
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

/* False: the field points nowhere. */
static bool part_of(const ProtobufCFieldDescriptor *field, struct part *ret)
{
    const bool list = field->label == PROTOBUF_C_LABEL_REPEATED;
    const bool member = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;

    *ret = (struct part){.offset = field->offset,
                         .count_offset = field->quantifier_offset,
                         .member = member ? field->id : 0};
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        ret->kind = list ? PART_STRINGS : PART_STRING;
    } else if (field->type == PROTOBUF_C_TYPE_BYTES) {
        ret->kind = list ? PART_BYTES_LIST : PART_BYTES;
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        ret->kind = list ? PART_MESSAGES : PART_MESSAGE;
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

/* Where a copy goes; `base` NULL: it is only measured. */
struct space {
    char *base;
    size_t used;
    size_t packed; /* at most */
};

/* NULL: it is only measured. */
static void *take(struct space *to, const void *from, size_t n)
{
    char *p = NULL;

    if (to->base != NULL) {
        p = to->base + to->used;
        memcpy(p, from, n);
    }
    to->used += (n + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    to->packed += n;
    return p;
}

static ProtobufCMessage *copy(struct space *to, const ProtobufCMessage *m);

static char *copy_string(struct space *to, const char *s)
{
    return s == NULL || s[0] == '\0' ? (char *)protobuf_c_empty_string : take(to, s, strlen(s) + 1);
}

static ProtobufCBinaryData copy_bytes(struct space *to, ProtobufCBinaryData b)
{
    return (ProtobufCBinaryData){.len = b.len, .data = b.len > 0 ? take(to, b.data, b.len) : NULL};
}

/* The list itself was copied to `out`, as it is. */
static void copy_items(struct space *to, enum part_kind kind, const void *items, size_t n,
                       void *out)
{
    for (size_t i = 0; i < n; i++) {
        if (kind == PART_STRINGS) {
            char *s = copy_string(to, ((char *const *)items)[i]);
            if (out != NULL) {
                ((char **)out)[i] = s;
            }
        } else if (kind == PART_BYTES_LIST) {
            const ProtobufCBinaryData b = copy_bytes(to, ((const ProtobufCBinaryData *)items)[i]);
            if (out != NULL) {
                ((ProtobufCBinaryData *)out)[i] = b;
            }
        } else {
            ProtobufCMessage *m = copy(to, ((ProtobufCMessage *const *)items)[i]);
            if (out != NULL) {
                ((ProtobufCMessage **)out)[i] = m;
            }
        }
    }
}

static void *copy_list(struct space *to, const struct part *part, const void *items, size_t n)
{
    const size_t item_bytes = part->kind == PART_NUMBERS      ? part->item_bytes
                              : part->kind == PART_BYTES_LIST ? sizeof(ProtobufCBinaryData)
                                                              : sizeof(void *);
    void *out;

    if (n == 0) {
        return NULL;
    }
    out = take(to, items, n * item_bytes);
    to->packed += n * FIELD_BYTES;
    if (part->kind != PART_NUMBERS) {
        copy_items(to, part->kind, items, n, out);
    }
    return out;
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

/* `out` NULL: it is only measured. */
static void copy_part(struct space *to, const struct part *part, const void *m, void *out)
{
    const void *from = (const char *)m + part->offset;
    const void *const *pointer = from;
    ProtobufCBinaryData bytes;
    void *made = NULL;

    if (part->kind == PART_BYTES) {
        bytes = copy_bytes(to, *(const ProtobufCBinaryData *)from);
        if (out != NULL) {
            *(ProtobufCBinaryData *)((char *)out + part->offset) = bytes;
        }
        return;
    }
    if (part->kind == PART_STRING) {
        made = copy_string(to, *pointer);
    } else if (part->kind == PART_MESSAGE) {
        made = *pointer != NULL ? copy(to, *pointer) : NULL;
    } else {
        made = copy_list(to, part, *pointer, count_of(part, m));
    }
    if (out != NULL) {
        *(void **)((char *)out + part->offset) = made;
    }
}

/* What a newer program has written, and this one does not know. */
static void copy_unknown(struct space *to, const ProtobufCMessage *m, ProtobufCMessage *out)
{
    const size_t n = m->n_unknown_fields;
    ProtobufCMessageUnknownField *fields;

    if (n == 0) {
        return;
    }
    fields = take(to, m->unknown_fields, n * sizeof(*fields)); /* more than tags and lengths */
    for (size_t i = 0; i < n; i++) {
        void *data = take(to, m->unknown_fields[i].data, m->unknown_fields[i].len);
        if (fields != NULL) {
            fields[i].data = data;
        }
    }
    if (out != NULL) {
        out->unknown_fields = fields;
    }
}

static ProtobufCMessage *copy(struct space *to, const ProtobufCMessage *m)
{
    const struct shape *shape = shape_of(m->descriptor);
    ProtobufCMessage *out = take(to, m, m->descriptor->sizeof_message);

    to->packed += shape->packed_bytes - m->descriptor->sizeof_message; /* its fields for itself */
    for (size_t i = 0; i < shape->count; i++) {
        if (is_there(&shape->parts[i], m)) {
            copy_part(to, &shape->parts[i], m, out);
        }
    }
    copy_unknown(to, m, out);
    return out;
}

size_t pb_block_size(const ProtobufCMessage *m)
{
    struct space none = {.base = NULL};

    copy(&none, m);
    return none.used;
}

size_t pb_size_bound(const ProtobufCMessage *m)
{
    struct space none = {.base = NULL};

    copy(&none, m);
    return none.packed;
}

ProtobufCMessage *pb_block_make(const ProtobufCMessage *m, void *block)
{
    struct space to = {.base = block};

    return copy(&to, m);
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

static void mend_message(const struct move *move, ProtobufCMessage *m);

static void mend_items(const struct move *move, enum part_kind kind, void *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (kind == PART_BYTES_LIST) {
            mend(move, &((ProtobufCBinaryData *)items)[i].data);
            continue;
        }
        mend(move, &((void **)items)[i]);
        if (kind == PART_MESSAGES) {
            mend_message(move, ((ProtobufCMessage **)items)[i]);
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
        mend_message(move, *(ProtobufCMessage **)at);
    } else if (part->kind > PART_NUMBERS) {
        mend_items(move, part->kind, *(void **)at, count_of(part, m));
    }
}

static void mend_message(const struct move *move, ProtobufCMessage *m)
{
    const struct shape *shape = shape_of(m->descriptor);

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
    mend_message(&move, to);
    return to;
}

ProtobufCMessage *pb_copy(struct arena *arena, const ProtobufCMessage *m)
{
    check(arena->limit == 0);
    return pb_block_make(m, arena_alloc(arena, pb_block_size(m)));
}
