/* Tokens and the audit trail, as the store keeps them. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/limits.h"
#include "tests/kit/world.h"

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    world_init(w);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    world_release(*state);
    free(*state);
    return 0;
}

static int add(struct world *w, uint8_t first, const char *role, char **projects, size_t n,
               uint64_t expires_ms)
{
    Pb__TokenAdd cmd = PB__TOKEN_ADD__INIT;
    uint8_t hash[32] = {first};

    cmd.hash = pb_bytes_ref(str_of(hash, sizeof(hash)));
    cmd.name = (char *)"name";
    cmd.role = (char *)role;
    cmd.projects = projects;
    cmd.n_projects = n;
    cmd.expires_ms = expires_ms;
    return WORLD_APPLY(w, "boss", TOKEN_ADD, &cmd);
}

static int revoke(struct world *w, uint8_t first)
{
    Pb__TokenRevoke cmd = PB__TOKEN_REVOKE__INIT;
    uint8_t id[TOKEN_ID_BYTES] = {first};

    cmd.id = pb_bytes_ref(str_of(id, sizeof(id)));
    return WORLD_APPLY(w, "boss", TOKEN_REVOKE, &cmd);
}

static const Pb__TokenRecord *found(struct world *w, uint8_t first)
{
    uint8_t id[TOKEN_ID_BYTES] = {first};
    struct key k;

    return token_by_id(w->tx, id, &k);
}

static void what_a_token_may_be_is_checked(void **state)
{
    struct world *w = *state;
    char *good[] = {(char *)"g/p", (char *)"g/*"};
    char *bad[] = {(char *)"g/../p"};

    assert_int_equal(add(w, 1, "owner", NULL, 0, 0), -E_INVALID);
    assert_int_equal(add(w, 1, "developer", bad, 1, 0), -E_INVALID);
    assert_int_equal(add(w, 1, "admin", good, 2, 0), -E_INVALID);
    assert_int_equal(add(w, 1, "worker", good, 2, 0), -E_INVALID);
    assert_int_equal(add(w, 1, "developer", good, 2, w->now_ms), -E_INVALID);
    assert_int_equal(add(w, 1, "developer", good, LIMIT_TOKEN_PROJECTS + 1, 0), -E_LIMIT);
    assert_int_equal(add(w, 1, "developer", good, 2, w->now_ms + 1), 0);
    assert_int_equal(add(w, 1, "reporter", NULL, 0, 0), -E_EXISTS);
    assert_string_equal(found(w, 1)->created_by, "boss");
}

static void patterns_are_names_or_groups(void **state)
{
    static const struct {
        const char *pattern;
        const char *project;
        bool matches;
    } rows[] = {
        {"g/p", "g/p", true},    {"g/p", "g/pq", false}, {"g/*", "g/p", true},
        {"g/*", "g/s/p", true},  {"g/*", "gg/p", false}, {"g/*", "g", false},
        {"g/s/*", "g/p", false}, {"/*", "g/p", false},   {"*", "g/p", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(project_matches(str_from(rows[i].pattern), rows[i].project),
                         rows[i].matches);
    }
}

static void the_last_administrator_stays(void **state)
{
    struct world *w = *state;

    assert_int_equal(add(w, 1, "admin", NULL, 0, 0), 0);
    assert_int_equal(add(w, 2, "admin", NULL, 0, w->now_ms + 1000), 0);
    assert_int_equal(revoke(w, 1), -E_CONFLICT);
    assert_int_equal(revoke(w, 2), 0);
    assert_int_equal(add(w, 3, "admin", NULL, 0, 0), 0);
    assert_int_equal(revoke(w, 1), 0);
    assert_int_equal(revoke(w, 1), -E_NOT_FOUND);
}

static void what_has_expired_makes_room(void **state)
{
    struct world *w = *state;

    assert_int_equal(add(w, 1, "reporter", NULL, 0, w->now_ms + 1000), 0);
    assert_false(token_has_expired(found(w, 1), w->now_ms + 999));
    assert_true(token_has_expired(found(w, 1), w->now_ms + 1000));
    w->now_ms += 2000;
    assert_int_equal(add(w, 2, "reporter", NULL, 0, 0), 0);
    assert_null(found(w, 1));
}

static void uses_only_go_forward(void **state)
{
    struct world *w = *state;
    Pb__TokensUsed cmd = PB__TOKENS_USED__INIT;
    Pb__TokenUse use = PB__TOKEN_USE__INIT;
    Pb__TokenUse *uses[] = {&use};
    uint8_t id[TOKEN_ID_BYTES] = {1};

    assert_int_equal(add(w, 1, "reporter", NULL, 0, 0), 0);
    cmd.uses = uses;
    cmd.n_uses = 1;
    use.id = pb_bytes_ref(str_of(id, sizeof(id)));
    use.used_ms = 2000;
    assert_int_equal(WORLD_APPLY(w, "davitd", TOKENS_USED, &cmd), 0);
    use.used_ms = 1000;
    assert_int_equal(WORLD_APPLY(w, "davitd", TOKENS_USED, &cmd), 0);
    assert_int_equal(found(w, 1)->used_ms, 2000);
    id[0] = 9; /* one that is gone */
    assert_int_equal(WORLD_APPLY(w, "davitd", TOKENS_USED, &cmd), 0);
}

static int set_pool(struct world *w, const char *from)
{
    Pb__Command *cmd = world_command(w, "boss");
    Pb__PoolSet set = PB__POOL_SET__INIT;

    set.name = (char *)"fast";
    cmd->from = (char *)from;
    cmd->body_case = PB__COMMAND__BODY_POOL_SET;
    cmd->pool_set = &set;
    return world_apply(w, cmd);
}

static void only_people_leave_a_trail(void **state)
{
    struct world *w = *state;
    struct cursor c;

    assert_int_equal(set_pool(w, ""), 0);
    assert_int_equal(tx_count(w->tx, T_TRAIL), 0);
    assert_int_equal(set_pool(w, "192.0.2.7"), 0);
    assert_int_equal(tx_count(w->tx, T_TRAIL), 1);
    tx_seek(&c, w->tx, T_TRAIL, STR_NULL, NULL);
    const struct key k = key_bytes(c.key.p, c.key.n);
    cursor_end(&c);
    const Pb__TrailRecord *t = (const Pb__TrailRecord *)tx_get_msg(w->tx, T_TRAIL, &k,
                                                                   &pb__trail_record__descriptor);
    assert_string_equal(t->actor, "boss");
    assert_string_equal(t->from, "192.0.2.7");
    assert_string_equal(t->action, "pool_set");
    assert_string_equal(t->target, "fast");
    assert_int_equal(t->time_ms, w->now_ms);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_a_token_may_be_is_checked), TEST(patterns_are_names_or_groups),
        TEST(the_last_administrator_stays),   TEST(what_has_expired_makes_room),
        TEST(uses_only_go_forward),           TEST(only_people_leave_a_trail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
