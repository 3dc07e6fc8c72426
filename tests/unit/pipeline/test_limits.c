/* Files that are made to break a compiler: each ends with an error, and soon. */
#include "common/base.h"

#include <time.h>

#include "tests/unit/pipeline/fixture.h"

#define PATIENCE_MS 1000 /* of the processor, under the sanitizers of development builds */

/* Compiles in time, and gives the code of the first error. */
static const char *code_of(struct fixture *f, struct buf *text)
{
    clock_t before = clock();
    fixture_compile(f, buf_str(text));
    long used_ms = (long)((clock() - before) * 1000 / CLOCKS_PER_SEC);
    print_message("%ld ms\n", used_ms);
    assert_in_range(used_ms, 0, PATIENCE_MS);
    buf_release(text);
    return fixture_first_error(f);
}

static void random_bytes_are_refused(void **state)
{
    struct buf b = BUF_INIT;
    uint32_t x = 2463534242u; /* xorshift, the same bytes every time */
    for (int i = 0; i < 1 << 20; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        buf_add_char(&b, (char)x);
    }
    assert_string_equal(code_of(*state, &b), "yaml-utf8");
}

static void a_file_that_is_too_big_is_refused(void **state)
{
    struct buf b = BUF_INIT;
    for (unsigned i = 0; i <= LIMIT_YAML_BYTES; i++) {
        buf_add_char(&b, '#');
    }
    assert_string_equal(code_of(*state, &b), "yaml-too-big");
}

static void a_file_that_was_cut_off_is_refused(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, "job:\n  script: [a, \"b");
    assert_string_equal(code_of(*state, &b), "yaml-syntax");
}

static void a_long_line_of_brackets_is_refused(void **state)
{
    struct buf b = BUF_INIT;
    for (int i = 0; i < 200000; i++) {
        buf_add_char(&b, '[');
    }
    assert_string_equal(code_of(*state, &b), "yaml-too-deep");
}

static void a_bomb_of_aliases_is_refused(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, "l0: &l0 [x, x]\n");
    for (int i = 1; i < 200; i++) {
        buf_addf(&b, "l%d: &l%d [*l%d, *l%d]\n", i, i, i - 1, i - 1);
    }
    assert_string_equal(code_of(*state, &b), "yaml-too-big");
}

/* Each level is twice the one before: 2 to the 10th lines, of 50 lines each, in many jobs. */
static void a_bomb_of_references_is_refused(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, ".l0: {script: [");
    for (int i = 0; i < 50; i++) {
        buf_addz(&b, "x, ");
    }
    buf_addz(&b, "x]}\n");
    for (int i = 1; i < 9; i++) {
        buf_addf(&b, ".l%d: {script: [", i);
        for (int k = 0; k < 8; k++) {
            buf_addf(&b, "!reference [.l%d, script],", i - 1);
        }
        buf_addz(&b, "]}\n");
    }
    buf_addz(&b, "job: {script: [!reference [.l8, script]]}\n");
    assert_string_equal(code_of(*state, &b), "too-much-work");
}

static void a_bomb_of_extends_is_refused(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, ".base:\n  variables:\n");
    for (int i = 0; i < 900; i++) {
        buf_addf(&b, "    V%d: x\n", i);
    }
    for (int i = 0; i < 9000; i++) {
        buf_addf(&b, "j%d: {extends: .base, script: a, variables: {A: b}}\n", i);
    }
    assert_string_equal(code_of(*state, &b), "too-much-work");
}

static void a_chain_of_extends_ends_at_its_limit(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, ".b0: {script: a}\n");
    for (int i = 1; i < 5000; i++) {
        buf_addf(&b, ".b%d: {extends: .b%d}\n", i, i - 1);
    }
    assert_string_equal(code_of(*state, &b), "extends-depth");
}

static void more_jobs_than_a_pipeline_holds_are_refused(void **state)
{
    struct buf b = BUF_INIT;
    for (int i = 0; i < 20; i++) {
        buf_addf(&b, "j%d: {script: a, parallel: 101}\n", i);
    }
    assert_string_equal(code_of(*state, &b), "limit");
}

static void more_definitions_than_a_file_holds_are_refused(void **state)
{
    struct buf b = BUF_INIT;
    for (int i = 0; i < 1000; i++) {
        buf_addf(&b, "j%d: {script: a, parallel: 200, rules: [{when: never}]}\n", i);
    }
    assert_string_equal(code_of(*state, &b), "limit");
}

static void a_job_that_is_too_big_for_the_wire_is_refused(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, "j:\n  script:\n");
    for (int i = 0; i < 800; i++) {
        buf_addz(&b, "    - ");
        for (int k = 0; k < 1000; k++) {
            buf_add_char(&b, 'x');
        }
        buf_add_char(&b, '\n');
    }
    assert_string_equal(code_of(*state, &b), "limit");
}

static void variables_that_grow_without_end_are_refused(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, "variables:\n  V0: xxxxxxxxxx\n");
    for (int i = 1; i < 60; i++) {
        buf_addf(&b, "  V%d: $V%d$V%d\n", i, i - 1, i - 1);
    }
    buf_addz(&b, "j: {script: a}\n");
    assert_string_equal(code_of(*state, &b), "limit");
}

static void long_texts_that_are_repeated_are_refused(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, "a: &a ");
    for (int i = 0; i < 1 << 20; i++) {
        buf_add_char(&b, 'x');
    }
    buf_addz(&b, "\nb: {");
    for (int i = 0; i < 30000; i++) {
        buf_addf(&b, "*a : %d, ", i);
    }
    buf_addz(&b, "}\n");
    assert_string_equal(code_of(*state, &b), "yaml-too-big");
}

static void many_errors_with_hints_do_not_take_long(void **state)
{
    struct buf b = BUF_INIT;
    for (int i = 0; i < 9000; i++) {
        buf_addf(&b,
                 "a-rather-long-name-of-a-job-with-a-number-%d: {extends: "
                 "a-rather-long-nmae-of-a-job-with-a-number-%d, needs: [a-rather-%d], "
                 "scirpt: a, stage: rather-long-%d}\n",
                 i, i, i, i);
    }
    assert_string_not_equal(code_of(*state, &b), "");
}

static void a_slow_regular_expression_is_run_once(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, "variables: {A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!}\n");
    for (int i = 0; i < 2000; i++) {
        buf_addf(&b, "j%d: {script: a, rules: [{if: '$A =~ /^(a|aa|a*)*$/'}]}\n", i);
    }
    assert_string_equal(code_of(*state, &b), "regex-limit");
}

/* The largest pipeline that is allowed, with all the needs that it may have. */
static void the_largest_pipeline_compiles(void **state)
{
    struct fixture *f = *state;
    struct buf b = BUF_INIT;
    buf_addz(&b, "stages: [build, test]\n.n: &n [");
    for (unsigned i = 0; i < 30; i++) {
        buf_addf(&b, "b%u, ", i);
    }
    buf_addz(&b, "b30]\n");
    for (unsigned i = 0; i < LIMIT_PIPELINE_JOBS / 2; i++) {
        buf_addf(&b, "b%u: {stage: build, script: a}\n", i);
        buf_addf(&b, "t%u: {stage: test, script: a, needs: *n}\n", i);
    }
    Pb__Plan *plan = fixture_compile(f, buf_str(&b));
    buf_release(&b);
    assert_string_equal(fixture_first_error(f), "");
    assert_int_equal(plan->n_jobs, LIMIT_PIPELINE_JOBS);
    assert_int_equal(plan->jobs[LIMIT_PIPELINE_JOBS - 1]->n_needs, 31);
}

/* As many jobs as a file may define, each through as many levels of extends as are allowed. */
static void the_deepest_extends_of_all_jobs_take_no_time(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, ".b0: {variables: {A: a, B: b}, rules: [{when: never}]}\n");
    for (unsigned i = 1; i < LIMIT_EXTENDS_DEPTH; i++) {
        buf_addf(&b, ".b%u: {extends: .b%u, variables: {V%u: x}}\n", i, i - 1, i);
    }
    for (unsigned i = 0; i < LIMIT_JOB_DEFINITIONS; i++) {
        buf_addf(&b, "j%u: {extends: .b%u, script: a}\n", i, LIMIT_EXTENDS_DEPTH - 1);
    }
    assert_string_equal(code_of(*state, &b), "no-jobs");
}

static int provide_part(void *ctx, const struct include_ref *ref, struct included *ret,
                        const char **ret_why)
{
    struct fixture *f = ctx;
    (void)ret_why;
    struct str number = str_sub(ref->name, 4, ref->name.n - strlen("part.yml"));
    ret->text = str_from(arena_printf(&f->arena,
                                      ".p" STR_FMT ": {extends: .base, variables: {P: x}}\n"
                                      "j" STR_FMT ": {extends: .p" STR_FMT ", script: a}\n",
                                      STR_ARG(number), STR_ARG(number), STR_ARG(number)));
    return 0;
}

/* Twice the files may take twice the time, not four times: merging copies none of what is there. */
static void as_many_includes_as_are_allowed_take_no_time(void **state)
{
    struct fixture *f = *state;
    struct buf b = BUF_INIT;
    struct pipeline_input in = {.file = "test.yml", .ref = "main", .origin = "push"};
    Pb__Plan *plan = NULL;
    buf_addz(&b, ".base: {before_script: [b]}\ninclude:\n");
    for (unsigned i = 0; i < LIMIT_INCLUDES; i++) {
        buf_addf(&b, "  - part%u.yml\n", i);
    }
    in.text = buf_str(&b);
    in.include = provide_part;
    in.include_ctx = f;
    clock_t before = clock();
    assert_int_equal(pipeline_compile(&f->arena, &in, &f->diags, &plan), 0);
    assert_in_range((clock() - before) * 1000 / CLOCKS_PER_SEC, 0, PATIENCE_MS);
    assert_int_equal(plan->n_jobs, LIMIT_INCLUDES);
    buf_release(&b);
}

/* Many patterns that are slow each: the first that takes too long is the last that is run. */
static void many_slow_regular_expressions_end_soon(void **state)
{
    struct buf b = BUF_INIT;
    buf_addz(&b, "variables: {A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!}\n");
    for (int i = 0; i < 2000; i++) {
        buf_addf(&b, "j%d: {script: a, rules: [{if: '$A =~ /^(a|aa|a*|b{%d})*$/'}]}\n", i, i + 1);
    }
    assert_string_equal(code_of(*state, &b), "regex-limit");
}

/* The stars of a glob give up only their latest choice; braces are counted. */
static void globs_that_are_made_to_be_slow_end_soon(void **state)
{
    struct fixture *f = *state;
    struct buf b = BUF_INIT;
    struct pipeline_input in = {.file = "test.yml", .ref = "main", .origin = "push"};
    Pb__Plan *plan = NULL;
    char *name = arena_alloc(&f->arena, 4001);
    memset(name, 'a', 4000);
    struct str paths[64];
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        paths[i] = str_of(name, 4000 - i);
    }
    buf_addz(&b, "j: {script: a, rules: [{exists: [");
    for (int i = 0; i < 20; i++) {
        buf_addz(&b, i > 0 ? ", '" : "'");
        for (int k = 0; k < 100; k++) {
            buf_addz(&b, i % 2 == 0 ? "*a*b" : "{a,aa}*");
        }
        buf_addz(&b, "'");
    }
    buf_addz(&b, "]}]}\n");
    in.text = buf_str(&b);
    in.paths = paths;
    in.path_count = ARRAY_LEN(paths);
    clock_t before = clock();
    assert_int_equal(pipeline_compile(&f->arena, &in, &f->diags, &plan), -E_PIPELINE);
    long used_ms = (long)((clock() - before) * 1000 / CLOCKS_PER_SEC);
    print_message("%ld ms\n", used_ms);
    assert_in_range(used_ms, 0, PATIENCE_MS);
    buf_release(&b);
}

static void a_pipelines_name_is_a_line_that_fits(void **state)
{
    static const char begin[] = "variables: {V: \"first\\n\\tsecond ";
    struct buf b = BUF_INIT;
    buf_addz(&b, begin);
    for (int i = 0; i < 200; i++) {
        buf_addz(&b, "\xc3\xa4");
    }
    buf_addz(&b, "\"}\nworkflow: {name: $V}\njob: {script: x}\n");
    Pb__Plan *plan = fixture_compile(*state, buf_str(&b));
    buf_release(&b);
    assert_non_null(plan);
    assert_int_equal(strlen(plan->name), LIMIT_NAME - 1); /* a whole character less */
    assert_true(str_is_utf8(str_from(plan->name), NULL));
    assert_memory_equal(plan->name, "first  second \xc3\xa4", 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(random_bytes_are_refused),
        TEST(a_file_that_is_too_big_is_refused),
        TEST(a_file_that_was_cut_off_is_refused),
        TEST(a_long_line_of_brackets_is_refused),
        TEST(a_bomb_of_aliases_is_refused),
        TEST(a_bomb_of_references_is_refused),
        TEST(a_bomb_of_extends_is_refused),
        TEST(a_chain_of_extends_ends_at_its_limit),
        TEST(more_jobs_than_a_pipeline_holds_are_refused),
        TEST(more_definitions_than_a_file_holds_are_refused),
        TEST(a_job_that_is_too_big_for_the_wire_is_refused),
        TEST(variables_that_grow_without_end_are_refused),
        TEST(long_texts_that_are_repeated_are_refused),
        TEST(many_errors_with_hints_do_not_take_long),
        TEST(a_slow_regular_expression_is_run_once),
        TEST(the_largest_pipeline_compiles),
        TEST(the_deepest_extends_of_all_jobs_take_no_time),
        TEST(as_many_includes_as_are_allowed_take_no_time),
        TEST(many_slow_regular_expressions_end_soon),
        TEST(globs_that_are_made_to_be_slow_end_soon),
        TEST(a_pipelines_name_is_a_line_that_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
