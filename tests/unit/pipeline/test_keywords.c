#include "common/base.h"

#include "tests/unit/pipeline/fixture.h"

/* The list and the code agree. */
static void every_keyword_of_a_job_has_a_reader(void **state)
{
    for (size_t i = 0; i < keyword_count; i++) {
        const struct keyword *k = &keywords[i];
        if (k->scope == SCOPE_JOB || k->scope == SCOPE_DEFAULT) {
            assert_true(job_read_keyword(NULL, NULL, k->name.p, NULL));
        }
    }
}

static void no_keyword_stands_twice_in_a_scope(void **state)
{
    for (size_t i = 0; i < keyword_count; i++) {
        assert_ptr_equal(keyword_find(keywords[i].scope, keywords[i].name), &keywords[i]);
    }
}

/* keyword_find relies on it. */
static void the_keywords_of_a_scope_stand_together(void **state)
{
    bool seen[SCOPE_COUNT] = {0};
    for (size_t i = 0; i < keyword_count; i++) {
        enum scope scope = keywords[i].scope;
        assert_true(!seen[scope] || keywords[i - 1].scope == scope);
        seen[scope] = true;
    }
    assert_null(keyword_find(SCOPE_TOP, STR("script")));
    assert_null(keyword_find(SCOPE_POLICY, STR("")));
}

static void the_nearest_keyword_is_proposed(void **state)
{
    struct fixture *f = *state;
    struct compile c = {.arena = &f->arena, .diags = &f->diags};
    assert_string_equal(suggest_keyword(&c, STR("scirpt"), SCOPE_JOB), "did you mean `script`?");
    assert_null(suggest_keyword(&c, STR("nothing_like_it"), SCOPE_JOB));
}

/* So that the job can say why it fails, and lint can warn. */
static void keywords_that_are_only_checked_go_into_the_plan_by_name(void **state)
{
    struct fixture *f = *state;
    struct diags diags;
    struct pipeline_input in = {.file = "test.yml", .ref = "main", .origin = "push"};
    Pb__Plan *plan = NULL;
    in.text = STR("default: {identity: google_cloud}\n"
                  "a: {script: a, dast_configuration: {site_profile: s}}\n"
                  "b: {script: b, inherit: {default: false}}\n");
    diags_init(&diags);
    assert_int_equal(pipeline_compile(&f->arena, &in, &diags, &plan), 0);
    assert_int_equal(diags.warnings, 2);
    assert_string_equal(diags.items[0].code, "not-acted-on");
    assert_int_equal(plan->jobs[0]->n_unsupported, 2);
    assert_string_equal(plan->jobs[0]->unsupported[0], "dast_configuration");
    assert_string_equal(plan->jobs[0]->unsupported[1], "identity");
    assert_int_equal(plan->jobs[1]->n_unsupported, 0);
    diags_release(&diags);
}

static void predefined_variables_follow_the_facts(void **state)
{
    static const struct {
        const char *name;
        const char *value;
    } wanted[] = {
        {"CI", "true"},
        {"CI_COMMIT_SHORT_SHA", "1f0e4a3b"},
        {"CI_COMMIT_BRANCH", "Feature/Add_Crane!"},
        {"CI_COMMIT_REF_SLUG", "feature-add-crane"},
        {"CI_COMMIT_REF_PROTECTED", "false"},
        {"CI_COMMIT_TITLE", "Add a crane"},
        {"CI_COMMIT_DESCRIPTION", "It lowers boats."},
        {"CI_PROJECT_NAME", "demo"},
        {"CI_PROJECT_NAMESPACE", "group/sub"},
        {"CI_PROJECT_ROOT_NAMESPACE", "group"},
        {"CI_PROJECT_PATH_SLUG", "group-sub-demo"},
        {"CI_SERVER_HOST", "ci.example.org"},
        {"CI_SERVER_PORT", "443"},
        {"CI_SERVER_PROTOCOL", "https"},
        {"CI_COMMIT_BEFORE_SHA", "0000000000000000000000000000000000000000"},
    };
    struct fixture *f = *state;
    struct vars vars;
    const struct pipeline_facts facts = {
        .project = "group/sub/demo",
        .ref = "Feature/Add_Crane!",
        .sha = "1f0e4a3b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f",
        .origin = "push",
        .commit_message = "Add a crane\n\nIt lowers boats.\n",
        .server_url = "https://ci.example.org/davit",
    };
    vars_init(&vars, &f->arena);
    pipeline_predefined(&vars, &facts);
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        const struct var *var = vars_get(&vars, str_from(wanted[i].name));
        assert_non_null(var);
        assert_true(var->raw);
        assert_true(str_eqz(var->value, wanted[i].value));
    }
    assert_null(vars_get(&vars, STR("CI_COMMIT_TAG")));
    assert_null(vars_get(&vars, STR("CI_DEFAULT_BRANCH")));
}

static void a_tag_has_no_branch(void **state)
{
    struct fixture *f = *state;
    struct vars vars;
    const struct pipeline_facts facts = {.ref = "v1", .tag = true};
    vars_init(&vars, &f->arena);
    pipeline_predefined(&vars, &facts);
    assert_true(str_eqz(vars_get(&vars, STR("CI_COMMIT_TAG"))->value, "v1"));
    assert_null(vars_get(&vars, STR("CI_COMMIT_BRANCH")));
}

static void the_default_branch_is_protected(void **state)
{
    struct fixture *f = *state;
    static const struct {
        struct pipeline_facts facts;
        const char *value;
    } cases[] = {
        {{.ref = "main", .default_branch = "main"}, "true"},
        {{.ref = "next", .default_branch = "main"}, "false"},
        {{.ref = "main", .default_branch = "main", .tag = true}, "false"},
        {{.ref = "main", .default_branch = "main", .origin = "merge_request_event"}, "false"},
        {{.ref = "main"}, "false"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct vars vars;
        vars_init(&vars, &f->arena);
        pipeline_predefined(&vars, &cases[i].facts);
        assert_true(
            str_eqz(vars_get(&vars, STR("CI_COMMIT_REF_PROTECTED"))->value, cases[i].value));
    }
}

static void a_slug_has_a_hyphen_for_each_character(void **state)
{
    struct fixture *f = *state;
    struct vars vars;
    const struct pipeline_facts facts = {.ref = "f\303\274r-\346\227\245x"};
    vars_init(&vars, &f->arena);
    pipeline_predefined(&vars, &facts);
    assert_true(str_eqz(vars_get(&vars, STR("CI_COMMIT_REF_SLUG"))->value, "f-r--x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_keyword_of_a_job_has_a_reader),
        TEST(no_keyword_stands_twice_in_a_scope),
        TEST(the_keywords_of_a_scope_stand_together),
        TEST(the_nearest_keyword_is_proposed),
        TEST(keywords_that_are_only_checked_go_into_the_plan_by_name),
        TEST(predefined_variables_follow_the_facts),
        TEST(a_tag_has_no_branch),
        TEST(the_default_branch_is_protected),
        TEST(a_slug_has_a_hyphen_for_each_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
