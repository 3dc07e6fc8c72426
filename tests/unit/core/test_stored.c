/* Stored variables: which of them a job gets, in GitLab's order, and what is refused. What stands
 * in for a sealed value here is any text of the right size; the vault has tests of its own. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/limits.h"
#include "tests/kit/world.h"

#define SEALED_OVERHEAD 28u

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

/* The value is so many bytes; its text, for whom a test wants to tell apart, is `mark`. */
static Pb__SealedVariable *variable(struct world *w, const char *owner, const char *name,
                                    const char *scope, size_t bytes, const char *mark)
{
    struct arena *a = tx_arena(w->tx);
    Pb__SealedVariable *v = arena_alloc(a, sizeof(*v));
    char *sealed = arena_alloc(a, SEALED_OVERHEAD + bytes + 1);

    pb__sealed_variable__init(v);
    memset(sealed, '.', SEALED_OVERHEAD + bytes);
    memcpy(sealed, mark, MIN(strlen(mark), bytes));
    v->level = owner[0] == '\0'  ? VARIABLE_INSTANCE
               : owner[0] == '@' ? VARIABLE_GROUP
                                 : VARIABLE_PROJECT;
    v->owner = arena_strdup(a, str_from(owner[0] == '@' ? owner + 1 : owner));
    v->name = arena_strdup(a, str_from(name));
    v->environment_scope = arena_strdup(a, str_from(scope));
    v->sealed = pb_bytes(a, str_of(sealed, SEALED_OVERHEAD + bytes));
    v->wrapped_key = pb_bytes(a, str_of(arena_alloc(a, 60), 60));
    v->master_key_id = pb_bytes(a, STR("12345678"));
    return v;
}

static int set_all(struct world *w, Pb__SealedVariable **v, size_t n)
{
    Pb__VariablesSet set = PB__VARIABLES_SET__INIT;

    set.variables = v;
    set.n_variables = n;
    return WORLD_APPLY(w, "admin", VARIABLES_SET, &set);
}

static int set_one(struct world *w, Pb__SealedVariable *v)
{
    return set_all(w, &v, 1);
}

static void put(struct world *w, const char *owner, const char *name, const char *scope,
                const char *mark)
{
    assert_int_equal(set_one(w, variable(w, owner, name, scope, 16, mark)), 0);
}

struct seen {
    struct buf text;
};

static void note(void *ctx, const Pb__SealedVariable *v)
{
    struct seen *seen = ctx;
    size_t n = 0;

    while (v->sealed.data[n] != '.') {
        n++;
    }
    buf_addf(&seen->text, "%s%s=%.*s", seen->text.n > 0 ? " " : "", v->name, (int)n,
             (const char *)v->sealed.data);
}

static void assert_chosen(struct world *w, const char *project, const char *environment,
                          bool protected, const char *expected)
{
    struct seen seen = {.text = BUF_INIT};

    stored_choose(w->tx, project, environment, protected, note, &seen);
    assert_string_equal(buf_cstr(&seen.text), expected);
    buf_release(&seen.text);
}

/* "project variables, group variables (the closest one), instance variables": strongest last. */
static void the_nearest_owner_comes_last(void **state)
{
    struct world *w = *state;

    put(w, "a/b/app", "X", "*", "project");
    put(w, "@a/b", "X", "*", "near");
    put(w, "@a", "X", "*", "far");
    put(w, "", "X", "*", "all");
    put(w, "@a/b", "Y", "*", "near");
    put(w, "@a/bc", "X", "*", "other");
    put(w, "a/b", "X", "*", "project-of-that-name");
    assert_chosen(w, "a/b/app", NULL, false, "X=all X=far X=near Y=near X=project");
    assert_chosen(w, "a/other", NULL, false, "X=all X=far");
    assert_chosen(w, "else/app", NULL, false, "X=all");
}

static void the_scope_that_says_most_wins_within_an_owner(void **state)
{
    static const struct {
        const char *environment;
        const char *expected;
    } rows[] = {
        {NULL, "X=any"},
        {"", "X=any"},
        {"production", "X=exact"},
        {"review/a", "X=review"},
        {"review/feature/1", "X=feature"},
        {"review/fix", "X=review"},
        {"reviews", "X=any"},
        {"staging/eu", "X=eu"},
        {"Production", "X=any"},
        {"prod*", "X=any"},
    };
    struct world *w = *state;

    put(w, "g/p", "X", "*", "any");
    put(w, "g/p", "X", "review/*", "review");
    put(w, "g/p", "X", "review/feature/*", "feature");
    put(w, "g/p", "X", "production", "exact");
    put(w, "g/p", "X", "*/eu", "eu");
    put(w, "g/p", "X", "prod", "shorter");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_chosen(w, "g/p", rows[i].environment, false, rows[i].expected);
    }
}

/* A variable of the project beats one of the group, whatever their scopes say. */
static void the_owner_counts_before_the_scope(void **state)
{
    struct world *w = *state;

    put(w, "@g", "X", "production", "group");
    put(w, "g/p", "X", "*", "project");
    assert_chosen(w, "g/p", "production", false, "X=group X=project");
}

static void protected_ones_are_for_protected_refs(void **state)
{
    struct world *w = *state;
    Pb__SealedVariable *v = variable(w, "g/p", "X", "production", 16, "secret");

    v->protected_ = true;
    assert_int_equal(set_one(w, v), 0);
    put(w, "g/p", "X", "*", "open");
    assert_chosen(w, "g/p", "production", true, "X=secret");
    assert_chosen(w, "g/p", "production", false, "X=open");
}

static void stars_are_judged_in_bounded_time(void **state)
{
    struct world *w = *state;
    char scope[LIMIT_NAME + 1];
    char environment[LIMIT_NAME + 1];

    for (size_t i = 0; i + 1 < sizeof(scope); i++) {
        scope[i] = i % 2 == 0 ? '*' : 'a';
        environment[i] = 'a';
    }
    scope[sizeof(scope) - 2] = 'b';
    scope[sizeof(scope) - 1] = environment[sizeof(environment) - 1] = '\0';
    put(w, "g/p", "X", scope, "never");
    put(w, "g/p", "X", "*", "any");
    assert_chosen(w, "g/p", environment, false, "X=any");
}

static void refused(struct world *w, Pb__SealedVariable *v, int r, const char *why)
{
    assert_int_equal(set_one(w, v), r);
    if (strstr(w->reply.text, why) == NULL) {
        fail_msg("refused with '%s' instead of '%s'", w->reply.text, why);
    }
}

static void what_is_wrong_is_refused_by_name(void **state)
{
    struct world *w = *state;
    Pb__SealedVariable *v;

    refused(w, variable(w, "g/p", "1X", "*", 9, ""), -E_INVALID, "no name of a variable");
    refused(w, variable(w, "g/p", "X-Y", "*", 9, ""), -E_INVALID, "no name of a variable");
    refused(w, variable(w, "g/../p", "X", "*", 9, ""), -E_INVALID, "bad name of a group");
    refused(w, variable(w, "g/p", "X", "", 9, ""), -E_INVALID, "bad environment scope");
    refused(w, variable(w, "g/p", "X", "a\nb", 9, ""), -E_INVALID, "bad environment scope");
    refused(w, variable(w, "g/p", "X", "*", LIMIT_VARIABLE_VALUE + 1, ""), -E_LIMIT, "at most");
    v = variable(w, "g/p", "X", "*", 7, "");
    v->masked = true;
    refused(w, v, -E_INVALID, "what is masked has 8 to 16384 bytes, this has 7");
    v = variable(w, "g/p", "X", "*", LIMIT_MASKED_VALUE + 1, "");
    v->masked = true;
    refused(w, v, -E_INVALID, "what is masked");
    v = variable(w, "g/p", "X", "*", 8, "");
    v->hidden = true;
    refused(w, v, -E_INVALID, "must be masked");
    v = variable(w, "g/p", "X", "*", 8, "");
    v->wrapped_key.len = 59;
    refused(w, v, -E_INVALID, "not sealed");
    v = variable(w, "g/p", "X", "*", 8, "");
    v->sealed.len = 0;
    refused(w, v, -E_INVALID, "is new and has no value");
    v = variable(w, "", "X", "*", 8, "");
    v->owner = (char *)"a";
    refused(w, v, -E_INVALID, "bad name of a group");
    assert_int_equal(tx_count(w->tx, T_STORED_VARIABLE), 0);
}

static void all_of_a_command_are_set_or_none(void **state)
{
    struct world *w = *state;
    Pb__SealedVariable *two[] = {variable(w, "g/p", "A", "*", 9, "1"),
                                 variable(w, "g/p", "A", "*", 9, "2")};
    Pb__SealedVariable *apart[] = {variable(w, "g/p", "A", "*", 9, "1"),
                                   variable(w, "g/q", "B", "*", 9, "2")};

    assert_int_equal(set_all(w, two, 2), -E_INVALID);
    assert_int_equal(set_all(w, apart, 2), -E_INVALID);
    assert_int_equal(set_all(w, two, 0), -E_INVALID);
    two[1]->environment_scope = (char *)"prod";
    assert_int_equal(set_all(w, two, 2), 0);
    assert_int_equal(tx_count(w->tx, T_STORED_VARIABLE), 2);
}

static void flags_change_without_the_value(void **state)
{
    struct world *w = *state;
    Pb__SealedVariable *v = variable(w, "g/p", "X", "*", 16, "value");
    const Pb__StoredVariableRecord *row;

    assert_int_equal(set_one(w, v), 0);
    w->now_ms += 1000;
    v = variable(w, "g/p", "X", "*", 16, "");
    v->sealed.len = 0;
    v->masked = v->hidden = true;
    assert_int_equal(set_one(w, v), 0);
    row = stored_get(w->tx, VARIABLE_PROJECT, "g/p", "X", "*");
    assert_non_null(row);
    assert_memory_equal(row->variable->sealed.data, "value", 5);
    assert_true(row->variable->masked && row->updated_ms == row->created_ms + 1000);
    assert_string_equal(row->updated_by, "admin");
    v = variable(w, "g/p", "X", "*", 16, "");
    v->sealed.len = 0;
    refused(w, v, -E_CONFLICT, "is hidden");
    assert_int_equal(set_one(w, variable(w, "g/p", "X", "*", 16, "anew")), 0);
}

static void an_owner_has_a_bounded_number(void **state)
{
    struct world *w = *state;
    Pb__SealedVariable **all = xcalloc(LIMIT_STORED_VARIABLES, sizeof(*all));

    for (size_t i = 0; i < LIMIT_STORED_VARIABLES; i++) {
        char name[32];
        snprintf(name, sizeof(name), "V%zu", i);
        all[i] = variable(w, "g/p", name, "*", 1, "");
    }
    assert_int_equal(set_all(w, all, LIMIT_STORED_VARIABLES), 0);
    refused(w, variable(w, "g/p", "ONE_MORE", "*", 9, ""), -E_LIMIT, "more than");
    assert_int_equal(set_one(w, variable(w, "g/p", "V7", "*", 9, "")), 0);
    assert_int_equal(set_one(w, variable(w, "g/q", "V7", "*", 9, "")), 0);
    free(all);
}

static void a_deleted_one_is_gone(void **state)
{
    struct world *w = *state;
    Pb__VariableDelete delete = PB__VARIABLE_DELETE__INIT;

    put(w, "g/p", "X", "*", "any");
    put(w, "g/p", "X", "prod", "prod");
    delete.level = VARIABLE_PROJECT;
    delete.owner = (char *)"g/p";
    delete.name = (char *)"X";
    delete.environment_scope = (char *)"*";
    assert_int_equal(WORLD_APPLY(w, "admin", VARIABLE_DELETE, &delete), 0);
    assert_int_equal(WORLD_APPLY(w, "admin", VARIABLE_DELETE, &delete), -E_NOT_FOUND);
    assert_chosen(w, "g/p", "prod", false, "X=prod");
}

static void a_key_wrapped_anew_does_not_undo_a_change(void **state)
{
    struct world *w = *state;
    Pb__VariablesRewrap cmd = PB__VARIABLES_REWRAP__INIT;
    Pb__RewrappedKey key = PB__REWRAPPED_KEY__INIT;
    Pb__RewrappedKey *keys[] = {&key};
    char old[60] = {0};
    char new[60] = {1};
    const Pb__StoredVariableRecord *row;

    put(w, "g/p", "X", "*", "any");
    key.level = VARIABLE_PROJECT;
    key.owner = (char *)"g/p";
    key.name = (char *)"X";
    key.environment_scope = (char *)"*";
    key.old_wrapped_key = pb_bytes_ref(str_of(old, sizeof(old)));
    key.wrapped_key = pb_bytes_ref(str_of(new, sizeof(new)));
    key.master_key_id = pb_bytes_ref(STR("abcdefgh"));
    cmd.keys = keys;
    cmd.n_keys = 1;
    assert_int_equal(WORLD_APPLY(w, "davitd", VARIABLES_REWRAP, &cmd), 0);
    row = stored_get(w->tx, VARIABLE_PROJECT, "g/p", "X", "*");
    assert_memory_equal(row->variable->master_key_id.data, "abcdefgh", 8);
    put(w, "g/p", "X", "*", "new value");
    key.old_wrapped_key = pb_bytes_ref(str_of(new, sizeof(new)));
    assert_int_equal(WORLD_APPLY(w, "davitd", VARIABLES_REWRAP, &cmd), 0);
    row = stored_get(w->tx, VARIABLE_PROJECT, "g/p", "X", "*");
    assert_memory_equal(row->variable->master_key_id.data, "12345678", 8);
    key.wrapped_key.len = 3;
    assert_int_equal(WORLD_APPLY(w, "davitd", VARIABLES_REWRAP, &cmd), -E_INVALID);
}

static const Pb__JobSpec *spec_of(struct world *w, uint64_t job_id)
{
    Pb__JobSpec *spec;

    assert_int_equal(core_job_spec(w->tx, job_id, "token", &spec), 0);
    return spec;
}

/* The whole order, as https://docs.gitlab.com/ci/variables/#cicd-variable-precedence has it. */
static void a_spec_has_them_between_dotenv_and_submitted(void **state)
{
    static const char *const order[] = {"CI_JOB_ID", "FROM_FILE", "ALL",
                                        "GROUP",     "PROJECT",   "SUBMITTED"};
    struct world *w = *state;
    uint64_t worker = world_worker(w, "w", "", "shell", 1, true);
    Pb__Plan *plan = plan_from_text(tx_arena(w->tx), "a: vars=FROM_FILE:1 env=review/x\n");
    Pb__Variable submitted = PB__VARIABLE__INIT;
    Pb__Variable *list[] = {&submitted};
    Pb__PipelineCreate create = PB__PIPELINE_CREATE__INIT;
    const Pb__JobSpec *spec;
    size_t at = 0;

    put(w, "g/p", "PROJECT", "review/*", "1");
    put(w, "g/p", "ELSEWHERE", "production", "1");
    put(w, "@g", "GROUP", "*", "1");
    put(w, "", "ALL", "*", "1");
    submitted.name = (char *)"SUBMITTED";
    create.project = (char *)"g/p";
    create.plan = plan;
    create.ref = (char *)"main";
    create.submitted = list;
    create.n_submitted = 1;
    assert_int_equal(WORLD_APPLY(w, "user", PIPELINE_CREATE, &create), 0);
    uint64_t job = world_job_id(w, w->reply.pipeline_id, "a");
    assert_int_equal(world_assign(w, job, worker), 0);
    spec = spec_of(w, job);
    for (size_t i = 0; i < spec->n_variables; i++) {
        assert_string_not_equal(spec->variables[i]->name, "ELSEWHERE");
        if (at < ARRAY_LEN(order) && strcmp(spec->variables[i]->name, order[at]) == 0) {
            at++;
        }
    }
    assert_int_equal(at, ARRAY_LEN(order));
}

static void too_many_for_a_job_are_told_by_name_alone(void **state)
{
    struct world *w = *state;
    uint64_t worker = world_worker(w, "w", "", "shell", 1, true);
    size_t sealed = 0;
    const Pb__JobSpec *spec;

    for (unsigned i = 0; i < 14; i++) {
        char name[8];
        snprintf(name, sizeof(name), "V%u", i);
        assert_int_equal(set_one(w, variable(w, "demo", name, "*", LIMIT_VARIABLE_VALUE, "")), 0);
    }
    assert_int_equal(world_submit(w, plan_from_text(tx_arena(w->tx), "a:\n"), "main", "1"), 0);
    uint64_t job = world_job_id(w, w->reply.pipeline_id, "a");
    assert_int_equal(world_assign(w, job, worker), 0);
    spec = spec_of(w, job);
    for (size_t i = 0; i < spec->n_variables; i++) {
        sealed += spec->variables[i]->sealed.len > 0;
        assert_true(spec->variables[i]->sealed.len < 2);
    }
    assert_int_equal(sealed, 14);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_nearest_owner_comes_last),
        TEST(the_scope_that_says_most_wins_within_an_owner),
        TEST(the_owner_counts_before_the_scope),
        TEST(protected_ones_are_for_protected_refs),
        TEST(stars_are_judged_in_bounded_time),
        TEST(what_is_wrong_is_refused_by_name),
        TEST(all_of_a_command_are_set_or_none),
        TEST(flags_change_without_the_value),
        TEST(an_owner_has_a_bounded_number),
        TEST(a_deleted_one_is_gone),
        TEST(a_key_wrapped_anew_does_not_undo_a_change),
        TEST(a_spec_has_them_between_dotenv_and_submitted),
        TEST(too_many_for_a_job_are_told_by_name_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
