/* What a job prints of its secrets is hidden before it reaches the worker's disk. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/unit/exec/fixture.h"

#define SECRET "s3cr3t \"pass\"/w+rd"

static void secret(struct fixture *f, const char *name, const char *value)
{
    Pb__Variable *v = spec_variable_bytes(f, name, str_from(value));
    v->masked = true;
    v->raw = true;
}

static void assert_spool_lacks(struct fixture *f, const char *part)
{
    struct buf bytes = BUF_INIT;
    char *path = os_path_join(f->cx.job_dir, "spool");
    assert_int_equal(os_read_file(path, LIMIT_LOG_BYTES, &bytes), 0);
    assert_int_equal(str_find(buf_str(&bytes), str_from(part)), -1);
    free(path);
    buf_release(&bytes);
}

static void a_secret_is_hidden_in_every_form(void **state)
{
    struct fixture *f = *state;
    secret(f, "KEY", SECRET);
    spec_variable(f, "OPEN", "no secret");
    SCRIPT(f, "echo \"[$KEY]\" $OPEN", "printf '%s' \"$KEY\" | base64",
           "printf 'user:%s' \"$KEY\" | base64 -w0; echo", "printf '%s' \"$KEY\" | od -An -v -tx1",
           "printf '%s' \"$KEY\" | od -An -v -tx1 | tr -d ' \\n'; echo; (set -x; : \"$KEY\")");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\n[[MASKED]] no secret\n");
    assert_not_in_log(f, "pass");
    assert_not_in_log(f, "czNjcjN0"); /* base64 of s3cr3t */
    assert_not_in_log(f, "733363723374");
    assert_not_in_log(f, "73 33 63");
    assert_spool_lacks(f, "s3cr3t");
}

static void a_secret_in_pieces_is_hidden(void **state)
{
    struct fixture *f = *state;
    secret(f, "KEY", "0123456789abcdef");
    SCRIPT(f, "for i in 0 1 2 3 4 5 6 7 8 9 a b c d e f; do printf $i; sleep 0.01; done; echo .",
           "printf 01234567; sleep 0.05; printf 89abcdeX; echo .");
    run_job(f);
    assert_in_log(f, "[MASKED].\n");
    assert_in_log(f, "0123456789abcdeX.\n");
    assert_spool_lacks(f, "0123456789abcdef");
}

static void what_steps_after_the_script_print_is_hidden_too(void **state)
{
    struct fixture *f = *state;
    secret(f, "KEY", "0123456789abcdef");
    SCRIPT(f, "printf 01234567");
    spec_after_script(f, "printf \"and $KEY\"");
    run_job(f);
    assert_in_log(f, "01234567");
    assert_in_log(f, "and [MASKED]");
    assert_spool_lacks(f, "0123456789abcdef");
}

static void the_last_bytes_of_a_job_are_not_kept_back(void **state)
{
    struct fixture *f = *state;
    secret(f, "KEY", "0123456789abcdef");
    SCRIPT(f, "printf 0123456789abcde");
    run_job(f);
    assert_true(str_ends(str_from(f->log), STR("0123456789abcde")));
}

static void file_variables_and_the_token_are_hidden(void **state)
{
    struct fixture *f = *state;
    Pb__Variable *v = spec_variable_bytes(f, "PEM", STR("-----BEGIN-----\nMIIEpAIBAAKC\n"));
    v->masked = v->file = v->raw = true;
    f->spec.token = arena_strdup(&f->arena, STR("djt-17-1-1-cafe"));
    SCRIPT(f, "cat $PEM; echo it is in $PEM; echo djt-17-1-1-cafe");
    run_job(f);
    assert_in_log(f, "it is in /");
    assert_not_in_log(f, "MIIE");
    assert_not_in_log(f, "cafe");
}

/* The line about it would come between the two parts, and neither alone is the secret. */
static void a_cancel_in_the_middle_of_a_secret_does_not_show_it(void **state)
{
    struct fixture *f = *state;
    secret(f, "KEY", "0123456789abcdef");
    SCRIPT(f, "trap 'printf 89abcdef.; exit 1' TERM",
           "printf 01234567; sleep 0.05; : >begun; while :; do :; done");
    assert_int_equal(run_prepare(f), 0);
    run_start(f);
    wait_for_file(fixture_path(f, "builds/3/group/project/begun"));
    assert_int_equal(shim_control(f->cx.job_dir, 'c'), 0);
    run_finish(f);
    assert_in_log(f, "Ending script: the job was canceled");
    assert_in_log(f, "[MASKED].");
    assert_not_in_log(f, "01234567\n");
}

static void a_file_is_hidden_as_it_was_written(void **state)
{
    struct fixture *f = *state;
    Pb__Variable *v = spec_variable_bytes(f, "CONFIG", STR("password=$PART-and-more"));
    v->masked = v->file = true;
    spec_variable(f, "PART", "hunter22");
    SCRIPT(f, "cat $CONFIG; echo; echo 'password=$PART-and-more'");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_not_in_log(f, "hunter22-and");
    assert_not_in_log(f, "password=");
}

/* The shell has taken the blanks away. */
static void blanks_around_a_secret_change_nothing(void **state)
{
    struct fixture *f = *state;
    secret(f, "KEY", " 0123456789abcdef ");
    SCRIPT(f, "echo $KEY | tr -d '\\n' | base64", "echo [$KEY] $KEY");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_not_in_log(f, "0123456789abcdef");
    assert_not_in_log(f, "MDEyMzQ1Njc4");
}

static void too_many_secrets_are_refused(void **state)
{
    struct fixture *f = *state;
    char *big = xmalloc(LIMIT_JOB_SPEC);
    for (size_t i = 0; i + 1 < LIMIT_JOB_SPEC; i++) {
        big[i] = (char)('!' + (i * i / 7 + i) % 90);
    }
    big[LIMIT_JOB_SPEC - 1] = '\0';
    Pb__Variable *v = spec_variable_bytes(f, "KEY", str_from(big));
    v->masked = v->file = v->raw = true;
    SCRIPT(f, "true");
    assert_int_equal(run_prepare(f), -E_LIMIT);
    assert_non_null(strstr(f->why, "masked variables are too many"));
    free(big);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_secret_is_hidden_in_every_form),
        TEST(a_secret_in_pieces_is_hidden),
        TEST(what_steps_after_the_script_print_is_hidden_too),
        TEST(the_last_bytes_of_a_job_are_not_kept_back),
        TEST(file_variables_and_the_token_are_hidden),
        TEST(a_cancel_in_the_middle_of_a_secret_does_not_show_it),
        TEST(a_file_is_hidden_as_it_was_written),
        TEST(blanks_around_a_secret_change_nothing),
        TEST(too_many_secrets_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
