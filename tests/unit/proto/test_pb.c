#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/limits.h"
#include "proto/envelope.h"

static int setup(void **state)
{
    struct arena *arena = xcalloc(1, sizeof(*arena));

    arena_init(arena, 0);
    *state = arena;
    return 0;
}

static int teardown(void **state)
{
    arena_release(*state);
    free(*state);
    return 0;
}

/* A field of the wire format: tag number, length, bytes. */
static void add_field(struct buf *b, uint32_t number, struct str bytes)
{
    check(number < 16 && bytes.n < 128);
    buf_add_char(b, (char)(number << 3 | 2));
    buf_add_char(b, (char)bytes.n);
    buf_add_str(b, bytes);
}

static int unpack_envelope(struct arena *arena, const void *p, size_t n, Pb__Envelope **ret)
{
    return PB_UNPACK(arena, envelope, p, n, LIMIT_WIRE_MESSAGE, ret);
}

static void a_message_survives_packing_and_unpacking(void **state)
{
    Pb__JobKey key = PB__JOB_KEY__INIT;
    Pb__LogChunk chunk = PB__LOG_CHUNK__INIT;
    Pb__Envelope envelope = PB__ENVELOPE__INIT;
    Pb__Envelope *got;
    struct buf packed = BUF_INIT;

    key.job_id = 7;
    key.epoch = UINT64_MAX;
    chunk.key = &key;
    chunk.offset = 1ull << 40;
    chunk.data = pb_bytes_ref(STR("log\0\xff"));
    envelope.version = WIRE_VERSION;
    envelope.body_case = PB__ENVELOPE__BODY_LOG_CHUNK;
    envelope.log_chunk = &chunk;
    PB_PACK(&envelope, &packed);
    assert_int_equal(unpack_envelope(*state, packed.p, packed.n, &got), 0);
    buf_release(&packed); /* the message does not point into what it was read from */
    assert_int_equal(got->version, WIRE_VERSION);
    assert_int_equal(got->body_case, PB__ENVELOPE__BODY_LOG_CHUNK);
    assert_int_equal(got->log_chunk->key->job_id, 7);
    assert_true(got->log_chunk->key->epoch == UINT64_MAX);
    assert_true(got->log_chunk->offset == 1ull << 40);
    assert_true(str_eq(pb_str(got->log_chunk->data), STR("log\0\xff")));
}

static void add_head_and_content(struct buf *out, uint64_t seq, Pb__Envelope__BodyCase kind,
                                 struct str content)
{
    Pb__Envelope head = PB__ENVELOPE__INIT;

    head.seq = seq;
    PB_PACK(&head, out);
    envelope_add_head(kind, content.n, out);
    buf_add_str(out, content);
}

static void lists_of_one_kind_grow_together(void **state)
{
    Pb__JobKey keys[200];
    Pb__Envelope envelope = PB__ENVELOPE__INIT;
    Pb__FinishAck ack = PB__FINISH_ACK__INIT;
    Pb__Envelope *got;
    struct buf content = BUF_INIT;
    struct buf packed = BUF_INIT;

    ack.stale = true;
    ack.n_keys = 1;
    envelope.body_case = PB__ENVELOPE__BODY_FINISH_ACK;
    envelope.finish_ack = &ack;
    assert_true(envelope_is_list(envelope.body_case));
    assert_int_equal(envelope_count(&envelope), 1);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        pb__job_key__init(&keys[i]);
        keys[i].job_id = i + 1;
        ack.keys = (Pb__JobKey *[]){&keys[i]};
        envelope_pack_content(&envelope, &content);
    }
    assert_true(content.n > 127); /* a length of more than one byte */
    add_head_and_content(&packed, 9, envelope.body_case, buf_str(&content));
    assert_int_equal(unpack_envelope(*state, packed.p, packed.n, &got), 0);
    assert_int_equal(got->seq, 9);
    assert_int_equal(got->body_case, PB__ENVELOPE__BODY_FINISH_ACK);
    assert_int_equal(got->finish_ack->n_keys, ARRAY_LEN(keys));
    assert_int_equal(got->finish_ack->keys[199]->job_id, 200);
    assert_true(got->finish_ack->stale);
    buf_release(&content);
    buf_release(&packed);
}

static void a_copy_shares_nothing_with_its_model(void **state)
{
    char name[] = "linux";
    char *tags[] = {name};
    Pb__PlanJob job = PB__PLAN_JOB__INIT;
    Pb__PlanJob *copy;

    job.name = name;
    job.n_tags = 1;
    job.tags = tags;
    copy = (Pb__PlanJob *)pb_copy(*state, &job.base);
    memset(name, 'x', 5);
    assert_string_equal(copy->name, "linux");
    assert_int_equal(copy->n_tags, 1);
    assert_string_equal(copy->tags[0], "linux");
}

static void bytes_are_copied_or_referred_to(void **state)
{
    char text[] = "abc";
    ProtobufCBinaryData copy = pb_bytes(*state, str_from(text));
    ProtobufCBinaryData ref = pb_bytes_ref(str_from(text));

    text[0] = 'x';
    assert_true(str_eq(pb_str(copy), STR("abc")));
    assert_true(str_eq(pb_str(ref), STR("xbc")));
}

static void bytes_above_the_limit_are_refused_unread(void **state)
{
    static char zeros[LIMIT_WIRE_MESSAGE + 1];
    struct arena *arena = *state;
    Pb__Envelope *got = NULL;

    assert_int_equal(unpack_envelope(arena, zeros, sizeof(zeros), &got), -E_TOO_BIG);
    assert_null(got);
    assert_int_equal(arena->used, 0);
}

static void a_megabyte_of_empty_submessages_is_refused(void **state)
{
    struct arena *arena = *state;
    Pb__Heartbeat *got = NULL;
    struct buf packed = BUF_INIT;

    while (packed.n + 2 <= LIMIT_WIRE_MESSAGE) {
        add_field(&packed, 2, STR("")); /* Heartbeat.jobs */
    }
    assert_int_equal(PB_UNPACK(arena, heartbeat, packed.p, packed.n, LIMIT_WIRE_MESSAGE, &got),
                     -E_PROTOCOL);
    assert_null(got);
    assert_true(arena->used <= LIMIT_UNPACK_FACTOR * packed.n + LIMIT_UNPACK_SLACK);
    assert_false(arena->exceeded); /* the arena itself goes on */
    assert_int_equal(arena->limit, 0);
    buf_release(&packed);
}

static void the_largest_messages_of_our_own_are_taken(void **state)
{
    static Pb__PlanJob jobs[LIMIT_PIPELINE_JOBS];
    static Pb__PlanJob *job_list[LIMIT_PIPELINE_JOBS];
    static Pb__HeldJob held[LIMIT_HELD_JOBS];
    static Pb__HeldJob *held_list[LIMIT_HELD_JOBS];
    ProtobufCBinaryData script[100];
    Pb__JobKey key = PB__JOB_KEY__INIT;
    Pb__Heartbeat beat = PB__HEARTBEAT__INIT;
    Pb__Plan plan = PB__PLAN__INIT;
    Pb__Heartbeat *got_beat;
    Pb__Plan *got_plan;
    struct buf packed = BUF_INIT;

    for (size_t i = 0; i < ARRAY_LEN(script); i++) {
        script[i] = pb_bytes_ref(STR("ls"));
    }
    for (size_t i = 0; i < ARRAY_LEN(jobs); i++) {
        pb__plan_job__init(&jobs[i]);
        jobs[i].name = (char *)"j";
        jobs[i].script = script;
        jobs[i].n_script = i % 2 ? ARRAY_LEN(script) : 1; /* many lines, and hardly anything */
        job_list[i] = &jobs[i];
    }
    plan.jobs = job_list;
    plan.n_jobs = ARRAY_LEN(jobs);
    PB_PACK(&plan, &packed);
    assert_int_equal(PB_UNPACK(*state, plan, packed.p, packed.n, LIMIT_COMMAND, &got_plan), 0);
    assert_int_equal(got_plan->n_jobs, LIMIT_PIPELINE_JOBS);

    buf_clear(&packed);
    for (size_t i = 0; i < ARRAY_LEN(held); i++) {
        pb__held_job__init(&held[i]);
        held[i].key = &key;
        held_list[i] = &held[i];
    }
    beat.jobs = held_list;
    beat.n_jobs = ARRAY_LEN(held);
    PB_PACK(&beat, &packed);
    assert_int_equal(
        PB_UNPACK(*state, heartbeat, packed.p, packed.n, LIMIT_WIRE_MESSAGE, &got_beat), 0);
    assert_int_equal(got_beat->n_jobs, LIMIT_HELD_JOBS);
    buf_release(&packed);
}

/* Puts `text` into Envelope.refused.text (depth 1) and Envelope.hello.worker.tags (depth 2). */
static int unpack_with_string(struct arena *arena, struct str text, bool deep)
{
    struct buf inner = BUF_INIT;
    struct buf middle = BUF_INIT;
    struct buf outer = BUF_INIT;
    Pb__Envelope *got;
    int r;

    if (deep) {
        add_field(&inner, 5, STR("good"));
        add_field(&inner, 5, text); /* WorkerHello.tags */
        add_field(&middle, 2, buf_str(&inner));
        add_field(&outer, 10, buf_str(&middle));
    } else {
        struct buf *refused = &middle;

        add_field(refused, 2, text);
        buf_addz(&outer, "\xaa\x02"); /* tag 37, length-delimited */
        buf_add_char(&outer, (char)refused->n);
        buf_add_str(&outer, buf_str(refused));
    }
    r = unpack_envelope(arena, outer.p, outer.n, &got);
    if (r == 0 && deep) {
        assert_int_equal(got->hello->worker->n_tags, 2);
    } else if (r == 0) {
        assert_non_null(got->refused);
    }
    buf_release(&inner);
    buf_release(&middle);
    buf_release(&outer);
    return r;
}

static void strings_must_be_utf8_without_nul_at_any_depth(void **state)
{
    static const struct str bad[] = {
        {"\xff", 1},
        {"a\0b", 3},
        {"\0", 1},
        {"\xc0\xaf", 2},
        {"\xed\xa0\x80", 3},
        {"abc\xe2\x82", 5},
        {"\xf5\x80\x80\x80", 4},
    };

    for (int deep = 0; deep < 2; deep++) {
        assert_int_equal(unpack_with_string(*state, STR("gr\xc3\xbc\xc3\x9f dich"), deep), 0);
        assert_int_equal(unpack_with_string(*state, STR(""), deep), 0);
        for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
            assert_int_equal(unpack_with_string(*state, bad[i], deep), -E_PROTOCOL);
        }
    }
}

/* protobuf-c merges a submessage that comes twice; the pieces of both must be looked at. */
static void a_bad_string_in_a_submessage_that_comes_twice_is_found(void **state)
{
    struct buf worker = BUF_INIT;
    struct buf hello = BUF_INIT;
    struct buf outer = BUF_INIT;
    Pb__Envelope *got;

    add_field(&worker, 2, STR("a\0b"));
    add_field(&hello, 2, buf_str(&worker));
    add_field(&outer, 10, buf_str(&hello));
    buf_clear(&hello);
    add_field(&hello, 2, STR(""));
    add_field(&outer, 10, buf_str(&hello));
    assert_int_equal(unpack_envelope(*state, outer.p, outer.n, &got), -E_PROTOCOL);
    buf_release(&worker);
    buf_release(&hello);
    buf_release(&outer);
}

static void unknown_fields_are_no_error(void **state)
{
    struct buf b = BUF_INIT;
    Pb__Envelope *got;

    add_field(&b, 9, STR("\xff\0"));
    buf_addz(&b, "\x08\x01"); /* version = 1 */
    assert_int_equal(unpack_envelope(*state, b.p, b.n, &got), 0);
    assert_int_equal(got->version, 1);
    buf_release(&b);
}

/* protobuf-c refuses field number 0, but took it when it was written in two bytes; packed again it
 * was no message. */
static void field_number_zero_is_refused_however_it_is_written(void **state)
{
    Pb__Envelope *got;

    assert_int_equal(unpack_envelope(*state, "\x02\x01 ", 3, &got), -E_PROTOCOL);
    assert_int_equal(unpack_envelope(*state, "\x82\x00\x01 ", 4, &got), -E_PROTOCOL);
}

static void every_truncation_of_a_message_is_refused_or_a_message(void **state)
{
    Pb__WorkerHello worker = PB__WORKER_HELLO__INIT;
    Pb__Hello hello = PB__HELLO__INIT;
    Pb__Envelope envelope = PB__ENVELOPE__INIT;
    Pb__Envelope *got;
    struct buf packed = BUF_INIT;
    size_t refused = 0;

    worker.name = (char *)"builder";
    worker.host = (char *)"h\xc3\xb6rst";
    hello.worker = &worker;
    envelope.version = 1;
    envelope.body_case = PB__ENVELOPE__BODY_HELLO;
    envelope.hello = &hello;
    PB_PACK(&envelope, &packed);
    for (size_t n = 0; n < packed.n; n++) {
        void *exact = xmemdup(packed.p, n); /* so that the sanitizer sees a byte read too many */
        int r = unpack_envelope(*state, exact, n, &got);

        assert_true(r == 0 || r == -E_PROTOCOL);
        refused += r < 0;
        free(exact);
    }
    assert_true(refused > packed.n / 2);
    buf_release(&packed);
}

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Any value for a field that is not a list. */
static void set_random(struct arena *arena, uint64_t *x, const ProtobufCFieldDescriptor *field,
                       void *at);

static size_t value_bytes(ProtobufCType type)
{
    switch ((int)type) {
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
    case PROTOBUF_C_TYPE_UINT64:
        return sizeof(uint64_t);
    case PROTOBUF_C_TYPE_BOOL:
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return sizeof(uint32_t);
    default:
        fail_msg("type %d: this test knows nothing of it", (int)type);
        return 0;
    }
}

static ProtobufCMessage *random_message(struct arena *arena, uint64_t *x,
                                        const ProtobufCMessageDescriptor *desc)
{
    ProtobufCMessage *m = arena_alloc(arena, desc->sizeof_message);

    protobuf_c_message_init(desc, m);
    for (unsigned i = 0; i < desc->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &desc->fields[i];
        char *at = (char *)m + field->offset;
        if (next_random(x) % 3 == 0) {
            continue; /* as it was made */
        }
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            const size_t n = next_random(x) % 4;
            char *items = arena_array(arena, n + 1, sizeof(ProtobufCBinaryData));
            for (size_t k = 0; k < n; k++) {
                set_random(arena, x, field, items + k * value_bytes(field->type));
            }
            *(void **)at = items;
            *(size_t *)((char *)m + field->quantifier_offset) = n;
            continue;
        }
        if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
            *(uint32_t *)((char *)m + field->quantifier_offset) = field->id;
        }
        set_random(arena, x, field, at);
    }
    return m;
}

static void set_random(struct arena *arena, uint64_t *x, const ProtobufCFieldDescriptor *field,
                       void *at)
{
    const size_t n = next_random(x) % 40;
    char text[40];

    memset(text, 'a' + (int)(n % 26), sizeof(text));
    if (field->type == PROTOBUF_C_TYPE_STRING) {
        *(char **)at = arena_strdup(arena, str_of(text, n));
    } else if (field->type == PROTOBUF_C_TYPE_BYTES) {
        *(ProtobufCBinaryData *)at = pb_bytes(arena, str_of(text, n));
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        *(ProtobufCMessage **)at = random_message(arena, x, field->descriptor);
    } else if (value_bytes(field->type) == sizeof(uint64_t)) {
        *(uint64_t *)at = next_random(x) >> n;
    } else {
        *(uint32_t *)at = field->type == PROTOBUF_C_TYPE_BOOL ? n % 2 : (uint32_t)next_random(x);
    }
}

static void assert_packs_to(const ProtobufCMessage *m, struct str packed)
{
    struct buf again = BUF_INIT;

    pb_pack(m, &again);
    assert_true(str_eq(buf_str(&again), packed));
    buf_release(&again);
}

/* Each block is of the size that was asked for, so that the sanitizer sees every byte too many; and
 * what still points into the old one after a move reads what is no message. */
static void a_block_is_whole_wherever_it_lies(void **state)
{
    static const ProtobufCMessageDescriptor *const descs[] = {
        &pb__envelope__descriptor,
        &pb__command__descriptor,
        &pb__plan__descriptor,
        &pb__timer_record__descriptor,
        &pb__job_record__descriptor,
        &pb__pipeline_record__descriptor,
        &pb__release_record__descriptor,
        &pb__job_spec__descriptor,
        &pb__pipeline_variables_record__descriptor,
    };
    uint64_t x = 88172645463325252ull;
    struct arena *arena = *state;

    for (size_t i = 0; i < 200 * ARRAY_LEN(descs); i++) {
        const ProtobufCMessage *model = random_message(arena, &x, descs[i % ARRAY_LEN(descs)]);
        const size_t n = pb_block_size(model);
        struct buf packed = BUF_INIT;
        ProtobufCMessage *block = pb_block_make(model, xmalloc(n));
        pb_pack(model, &packed);
        assert_packs_to(block, buf_str(&packed));
        ProtobufCMessage *moved = pb_block_copy(block, n, xmalloc(n));
        memset(block, 0xa5, n);
        free(block);
        assert_packs_to(moved, buf_str(&packed));
        assert_int_equal(pb_block_size(moved), n);
        assert_true(pb_size_bound(moved) >= packed.n);
        free(moved);
        buf_release(&packed);
        arena_clear(arena);
    }
}

static void a_block_keeps_what_a_newer_program_has_written(void **state)
{
    struct buf packed = BUF_INIT;
    Pb__JobRecord *job;

    add_field(&packed, 6, STR("linux"));          /* the name */
    buf_add_str(&packed, STR("\xfa\x3f\x03new")); /* field 1023 */
    assert_int_equal(PB_UNPACK(*state, job_record, packed.p, packed.n, 100, &job), 0);
    assert_int_equal(job->base.n_unknown_fields, 1);
    const size_t n = pb_block_size(&job->base);
    ProtobufCMessage *block = pb_block_make(&job->base, xmalloc(n));
    ProtobufCMessage *moved = pb_block_copy(block, n, xmalloc(n));
    memset(block, 0xa5, n);
    free(block);
    assert_packs_to(moved, buf_str(&packed));
    free(moved);
    buf_release(&packed);
}

static void random_bytes_never_break_the_door(void **state)
{
    uint64_t x = 88172645463325252ull;
    struct arena *arena = *state;
    size_t taken = 0;

    for (int round = 0; round < 20000; round++) {
        size_t n = next_random(&x) % 64;
        uint8_t *p = xmalloc(n + 1);
        Pb__Envelope *got;

        for (size_t i = 0; i < n; i++) {
            /* Small numbers make tags and lengths that mean something. */
            p[i] = (uint8_t)(next_random(&x) % (round % 2 ? 256 : 24));
        }
        if (unpack_envelope(arena, p, n, &got) == 0) {
            struct buf packed = BUF_INIT;

            PB_PACK(got, &packed);
            buf_release(&packed);
            taken++;
        }
        free(p);
        arena_release(arena);
    }
    assert_true(taken > 100);
}

/* Unpacking recurses: the schema bounds the stack only while no message contains itself. */
static void assert_not_within(const ProtobufCMessageDescriptor *desc,
                              const ProtobufCMessageDescriptor **path, size_t depth)
{
    assert_true(depth < 16);
    for (size_t i = 0; i < depth; i++) {
        assert_ptr_not_equal(path[i], desc);
    }
    path[depth] = desc;
    for (unsigned i = 0; i < desc->n_fields; i++) {
        if (desc->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) {
            assert_not_within(desc->fields[i].descriptor, path, depth + 1);
        }
    }
}

static void no_message_contains_itself(void **state)
{
    const ProtobufCMessageDescriptor *path[16];

    assert_not_within(&pb__envelope__descriptor, path, 0);
    assert_not_within(&pb__command__descriptor, path, 0);
    assert_not_within(&pb__plan__descriptor, path, 0);
    assert_not_within(&pb__timer_record__descriptor, path, 0);
    assert_not_within(&pb__pipeline_record__descriptor, path, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_message_survives_packing_and_unpacking),
        TEST(lists_of_one_kind_grow_together),
        TEST(a_copy_shares_nothing_with_its_model),
        TEST(a_block_is_whole_wherever_it_lies),
        TEST(a_block_keeps_what_a_newer_program_has_written),
        TEST(bytes_are_copied_or_referred_to),
        TEST(bytes_above_the_limit_are_refused_unread),
        TEST(a_megabyte_of_empty_submessages_is_refused),
        TEST(the_largest_messages_of_our_own_are_taken),
        TEST(strings_must_be_utf8_without_nul_at_any_depth),
        TEST(a_bad_string_in_a_submessage_that_comes_twice_is_found),
        TEST(unknown_fields_are_no_error),
        TEST(field_number_zero_is_refused_however_it_is_written),
        TEST(every_truncation_of_a_message_is_refused_or_a_message),
        TEST(random_bytes_never_break_the_door),
        TEST(no_message_contains_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
