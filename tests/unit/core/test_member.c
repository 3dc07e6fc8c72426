/* Join tokens, members, certificates: who is let in, as whom, and for how long. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/crypto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define HOUR_MS  3600000u
#define MONTH_MS (30ull * 24 * HOUR_MS)

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    world_init(w);
    w->audit = true;
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    world_release(*state);
    free(*state);
    return 0;
}

/* Bytes that are all alike: enough to tell one from another. */
static ProtobufCBinaryData bytes(struct world *w, uint8_t which, size_t n)
{
    uint8_t *p = arena_alloc(tx_arena(w->tx), n);

    memset(p, which, n);
    return (ProtobufCBinaryData){.data = p, .len = n};
}

static int add_token(struct world *w, uint8_t token, const char *pool, const char *tag)
{
    Pb__JoinTokenAdd body = PB__JOIN_TOKEN_ADD__INIT;

    body.hash = bytes(w, token, SHA256_BYTES);
    body.pool = (char *)pool;
    body.tags = (char **)&tag;
    body.n_tags = tag != NULL;
    body.expires_ms = w->now_ms + HOUR_MS;
    return WORLD_APPLY(w, "ada", JOIN_TOKEN_ADD, &body);
}

/* The worker's uid, key and serial go by the numbers of machine, key and certificate. */
static int join(struct world *w, uint8_t token, const char *name, uint8_t machine, uint8_t key,
                uint8_t serial)
{
    Pb__WorkerJoin body = PB__WORKER_JOIN__INIT;

    body.token_hash = bytes(w, token, SHA256_BYTES);
    body.uid = bytes(w, machine, 16);
    body.name = (char *)name;
    body.key_hash = bytes(w, key, SHA256_BYTES);
    body.serial = bytes(w, serial, 16);
    body.until_ms = w->now_ms + MONTH_MS;
    return WORLD_APPLY(w, "join", WORKER_JOIN, &body);
}

static int renew_as(struct world *w, const char *name, uint8_t old_serial, uint8_t key,
                    uint8_t serial)
{
    Pb__WorkerRenew body = PB__WORKER_RENEW__INIT;

    body.name = (char *)name;
    body.old_serial = bytes(w, old_serial, 16);
    body.key_hash = bytes(w, key, SHA256_BYTES);
    body.serial = bytes(w, serial, 16);
    body.until_ms = w->now_ms + MONTH_MS;
    return WORLD_APPLY(w, "worker", WORKER_RENEW, &body);
}

static int renew(struct world *w, uint8_t old_serial, uint8_t key, uint8_t serial)
{
    return renew_as(w, "a", old_serial, key, serial);
}

static int revoke(struct world *w, const char *name)
{
    Pb__WorkerRevoke body = PB__WORKER_REVOKE__INIT;

    body.name = (char *)name;
    return WORLD_APPLY(w, "ada", WORKER_REVOKE, &body);
}

static int hello_with(struct world *w, const char *name, uint8_t machine, uint8_t serial,
                      const char *pool, const char *tag)
{
    Pb__WorkerHello body = PB__WORKER_HELLO__INIT;
    char *shell = (char *)"shell";

    body.uid = bytes(w, machine, 16);
    body.name = (char *)name;
    body.pool = (char *)pool;
    body.executors = &shell;
    body.n_executors = 1;
    body.tags = (char **)&tag;
    body.n_tags = tag != NULL;
    body.slots = 2;
    body.run_untagged = true;
    body.serial = bytes(w, serial, 16);
    return WORLD_APPLY(w, "worker", WORKER_HELLO, &body);
}

static int hello(struct world *w, const char *name, uint8_t machine, uint8_t serial)
{
    return hello_with(w, name, machine, serial, "", NULL);
}

static void assert_says(const struct world *w, const char *part)
{
    if (strstr(w->reply.text, part) == NULL) {
        fail_msg("`%s` does not say `%s`", w->reply.text, part);
    }
}

static void a_token_lets_one_worker_in(void **state)
{
    struct world *w = *state;

    assert_int_equal(add_token(w, 1, "linux", "gpu"), 0);
    assert_int_equal(join(w, 1, "a", 10, 20, 30), 0);
    assert_int_equal(hello(w, "a", 10, 30), 0);
    const Pb__WorkerRecord *row = worker_get(w->tx, w->reply.worker_id);
    assert_string_equal(row->pool, "linux");
    assert_int_equal(row->n_tags, 1);
    assert_string_equal(row->tags[0], "gpu");
    assert_int_equal(row->certified_until_ms, w->now_ms + MONTH_MS);
    assert_string_equal(member_get(w->tx, "a")->invited_by, "ada");
}

static void a_token_is_used_once(void **state)
{
    struct world *w = *state;

    assert_int_equal(add_token(w, 1, "", NULL), 0);
    assert_int_equal(join(w, 1, "a", 10, 20, 30), 0);
    assert_int_equal(join(w, 1, "b", 11, 21, 31), -E_UNAUTHORIZED);
    assert_says(w, "used already, by worker a");
    world_reopen(w);
    assert_int_equal(join(w, 1, "b", 11, 21, 31), -E_UNAUTHORIZED);
}

/* The answer was lost: the same key asks again, and what came of the first time is void. */
static void the_same_key_may_ask_again(void **state)
{
    struct world *w = *state;

    assert_int_equal(add_token(w, 1, "", NULL), 0);
    assert_int_equal(join(w, 1, "a", 10, 20, 30), 0);
    world_reopen(w);
    assert_int_equal(join(w, 1, "a", 10, 20, 31), 0);
    assert_int_equal(join(w, 1, "b", 10, 20, 32), -E_CONFLICT);
    assert_int_equal(hello(w, "a", 10, 30), -E_UNAUTHORIZED);
    assert_int_equal(hello(w, "a", 10, 31), 0);
    assert_int_equal(tx_count(w->tx, T_CERTIFICATE), 1);
}

static void a_token_has_an_end(void **state)
{
    struct world *w = *state;

    assert_int_equal(add_token(w, 1, "", NULL), 0);
    world_elapse(w, HOUR_MS);
    assert_int_equal(join(w, 1, "a", 10, 20, 30), -E_UNAUTHORIZED);
    assert_says(w, "expired");
    assert_int_equal(join(w, 9, "a", 10, 20, 30), -E_UNAUTHORIZED);
    assert_says(w, "not known");
    world_elapse(w, MONTH_MS);
    assert_int_equal(add_token(w, 2, "", NULL), 0); /* clears away the old one */
    assert_int_equal(tx_count(w->tx, T_JOIN_TOKEN), 1);
}

static void a_token_that_lives_too_long_is_refused(void **state)
{
    struct world *w = *state;
    Pb__JoinTokenAdd body = PB__JOIN_TOKEN_ADD__INIT;

    body.hash = bytes(w, 1, SHA256_BYTES);
    body.expires_ms = w->now_ms + MONTH_MS + 1;
    assert_int_equal(WORLD_APPLY(w, "ada", JOIN_TOKEN_ADD, &body), -E_INVALID);
    body.expires_ms = w->now_ms;
    assert_int_equal(WORLD_APPLY(w, "ada", JOIN_TOKEN_ADD, &body), -E_INVALID);
}

static void a_certificate_makes_nobody_else(void **state)
{
    struct world *w = *state;

    assert_int_equal(add_token(w, 1, "linux", "gpu"), 0);
    assert_int_equal(add_token(w, 2, "", NULL), 0);
    assert_int_equal(join(w, 1, "a", 10, 20, 30), 0);
    assert_int_equal(join(w, 2, "b", 11, 21, 31), 0);
    assert_int_equal(hello(w, "b", 11, 30), -E_UNAUTHORIZED);
    assert_says(w, "the certificate is of worker a, not of b");
    assert_int_equal(hello(w, "a", 11, 30), -E_UNAUTHORIZED); /* the other's identity */
    assert_int_equal(hello_with(w, "a", 10, 30, "prod", NULL), -E_UNAUTHORIZED);
    assert_says(w, "for pool `linux`, not `prod`");
    assert_int_equal(hello_with(w, "a", 10, 30, "linux", "root"), -E_UNAUTHORIZED);
    assert_says(w, "tag `root`");
    assert_int_equal(hello_with(w, "b", 11, 31, "", "anything"), 0);
    assert_int_equal(hello(w, "a", 10, 99), -E_UNAUTHORIZED);
    assert_says(w, "does not know the certificate");
}

static void a_name_is_one_workers(void **state)
{
    struct world *w = *state;

    assert_int_equal(add_token(w, 1, "", NULL), 0);
    assert_int_equal(add_token(w, 2, "", NULL), 0);
    assert_int_equal(join(w, 1, "a", 10, 20, 30), 0);
    assert_int_equal(join(w, 2, "a", 11, 21, 31), -E_EXISTS);
    assert_int_equal(revoke(w, "a"), 0);
    assert_int_equal(join(w, 2, "a", 11, 21, 31), 0);
    assert_int_equal(hello(w, "a", 11, 31), 0);
    assert_int_equal(hello(w, "a", 10, 30), -E_UNAUTHORIZED); /* stays out */
}

static void joining_anew_voids_what_was(void **state)
{
    struct world *w = *state;

    assert_int_equal(add_token(w, 1, "", NULL), 0);
    assert_int_equal(add_token(w, 2, "other", NULL), 0);
    assert_int_equal(join(w, 1, "a", 10, 20, 30), 0);
    assert_int_equal(join(w, 2, "a", 10, 21, 31), 0);
    assert_int_equal(hello(w, "a", 10, 30), -E_UNAUTHORIZED);
    assert_says(w, "joined anew");
    assert_int_equal(hello(w, "a", 10, 31), 0);
    assert_int_equal(join(w, 1, "a", 10, 20, 32), 0); /* the first token's own key */
}

static void who_is_revoked_loses_its_jobs_and_stays_out(void **state)
{
    struct world *w = *state;

    assert_int_equal(add_token(w, 1, "", NULL), 0);
    assert_int_equal(join(w, 1, "a", 10, 20, 30), 0);
    assert_int_equal(hello(w, "a", 10, 30), 0);
    uint64_t worker = w->reply.worker_id;
    uint64_t other = world_worker(w, "z", "", "shell", 2, true);
    assert_int_equal(
        world_submit(w, plan_from_text(tx_arena(w->tx), "build: stage=build\ntest: stage=build\n"),
                     "main", "1"),
        0);
    uint64_t pipeline = w->reply.pipeline_id;
    uint64_t build = world_job_id(w, pipeline, "build");
    assert_int_equal(world_assign(w, build, worker), 0);
    assert_int_equal(world_acked(w, build), 0);
    assert_int_equal(world_started(w, build), 0);
    assert_int_equal(world_assign(w, world_job_id(w, pipeline, "test"), worker), 0);

    assert_int_equal(revoke(w, "a"), 0);
    assert_string_equal(world_state(w, pipeline, "build"), "pending");
    assert_string_equal(world_state(w, pipeline, "test"), "pending");
    assert_int_equal(worker_job_count(w->tx, worker), 0);
    assert_true(worker_get(w->tx, worker)->revoked);
    assert_int_equal(world_assign(w, build, worker), -E_CONFLICT);
    assert_int_equal(world_assign(w, build, other), 0);
    assert_int_equal(hello(w, "a", 10, 30), -E_UNAUTHORIZED);
    assert_says(w, "was revoked");
    assert_int_equal(renew(w, 30, 21, 31), -E_UNAUTHORIZED);
    assert_int_equal(revoke(w, "a"), -E_CONFLICT);
    assert_int_equal(revoke(w, "nobody"), -E_NOT_FOUND);
    assert_int_equal(join(w, 1, "a", 10, 20, 33), -E_UNAUTHORIZED); /* with the old token */
}

static void certificates_are_renewed_in_their_second_half(void **state)
{
    struct world *w = *state;

    assert_int_equal(add_token(w, 1, "linux", NULL), 0);
    assert_int_equal(join(w, 1, "a", 10, 20, 30), 0);
    assert_int_equal(hello(w, "a", 10, 30), 0);
    uint64_t worker = w->reply.worker_id;
    assert_int_equal(renew(w, 30, 21, 31), -E_CONFLICT);
    world_elapse(w, 2 * MONTH_MS / 3);
    assert_int_equal(renew_as(w, "b", 30, 21, 31), -E_UNAUTHORIZED);
    assert_int_equal(renew(w, 30, 21, 31), 0);
    assert_int_equal(worker_get(w->tx, worker)->certified_until_ms, w->now_ms + MONTH_MS);
    assert_int_equal(renew(w, 30, 22, 32), 0); /* the answer was lost: another try */
    assert_int_equal(hello(w, "a", 10, 31), -E_UNAUTHORIZED);
    assert_int_equal(hello(w, "a", 10, 30), 0); /* still good */
    assert_int_equal(hello(w, "a", 10, 32), 0);
    assert_string_equal(worker_get(w->tx, worker)->pool, "linux");
    world_elapse(w, MONTH_MS / 3);
    assert_int_equal(hello(w, "a", 10, 30), -E_UNAUTHORIZED);
    assert_says(w, "expired");
    assert_int_equal(hello(w, "a", 10, 32), 0);
    world_elapse(w, MONTH_MS / 3);
    assert_int_equal(renew(w, 32, 23, 33), 0); /* clears away the first */
    assert_int_equal(tx_count(w->tx, T_CERTIFICATE), 2);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_token_lets_one_worker_in),
        TEST(a_token_is_used_once),
        TEST(the_same_key_may_ask_again),
        TEST(a_token_has_an_end),
        TEST(a_token_that_lives_too_long_is_refused),
        TEST(a_certificate_makes_nobody_else),
        TEST(a_name_is_one_workers),
        TEST(joining_anew_voids_what_was),
        TEST(who_is_revoked_loses_its_jobs_and_stays_out),
        TEST(certificates_are_renewed_in_their_second_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
