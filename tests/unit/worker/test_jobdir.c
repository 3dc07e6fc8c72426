#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/os.h"
#include "worker/jobdir.h"

struct world {
    char root[64];
    char *dir; /* of job 7, attempt 2, epoch 3; not made */
    struct arena arena;
};

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));
    strncpy(w->root, "/tmp/davit-jobdir-XXXXXX", sizeof(w->root) - 1);
    assert_non_null(mkdtemp(w->root));
    w->dir = jobdir_path(w->root, (struct job_key){7, 2, 3});
    arena_init(&w->arena, 0);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    os_remove_tree(w->root);
    arena_release(&w->arena);
    free(w->dir);
    free(w);
    return 0;
}

static void make(const struct world *w, uint32_t slot)
{
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    spec.name = (char *)(uintptr_t) "build";
    assert_int_equal(jobdir_create(w->dir, slot, &spec), 0);
}

static void put(const struct world *w, const char *name, const char *text)
{
    char *path = os_path_join(w->dir, name);
    assert_int_equal(os_write_file(path, text, strlen(text), 0600), 0);
    free(path);
}

static void a_folder_is_named_after_job_attempt_and_epoch(void **state)
{
    const struct world *w = *state;
    struct job_key key;
    assert_string_equal(strrchr(w->dir, '/'), "/7-2-3");
    assert_int_equal(jobdir_parse("18446744073709551615-1-9", &key), 0);
    assert_true(job_key_eq(key, (struct job_key){UINT64_MAX, 1, 9}));
}

static void other_names_are_no_jobs(void **state)
{
    (void)state;
    static const char *const names[] = {"",      "7",      "7-2",    "7-2-3-4",
                                        "7-2-x", "-7-2-3", "7-2-3 ", "a"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct job_key key;
        assert_int_equal(jobdir_parse(names[i], &key), -E_INVALID);
    }
}

static void an_accepted_job_is_found_with_its_slot(void **state)
{
    struct world *w = *state;
    struct jobdir found;
    make(w, 5);
    assert_int_equal(jobdir_load(w->dir, &w->arena, &found), 0);
    assert_string_equal(found.spec->name, "build");
    assert_int_equal(found.slot, 5);
    assert_false(found.started);
    assert_null(found.outcome);
}

static void a_folder_without_a_spec_is_half_written(void **state)
{
    struct world *w = *state;
    struct jobdir found;
    assert_int_equal(os_mkdir_p(w->dir, 0700), 0);
    put(w, "slot", "1\n");
    assert_int_equal(jobdir_load(w->dir, &w->arena, &found), -E_NOT_FOUND);
}

static void damaged_files_are_told_from_missing_ones(void **state)
{
    struct world *w = *state;
    struct jobdir found;
    make(w, 0);
    put(w, "slot", "many\n");
    assert_int_equal(jobdir_load(w->dir, &w->arena, &found), -E_CORRUPT);
    put(w, "slot", "0\n");
    put(w, "spec.pb", "\xff\xff\xff");
    assert_int_equal(jobdir_load(w->dir, &w->arena, &found), -E_CORRUPT);
}

static void a_pid_file_says_that_the_job_was_started(void **state)
{
    struct world *w = *state;
    struct jobdir found;
    pid_t pid = 0;
    make(w, 0);
    assert_int_equal(jobdir_shim_pid(w->dir, &pid), -E_NOT_FOUND);
    put(w, "pid", "4711 123456\n");
    assert_int_equal(jobdir_load(w->dir, &w->arena, &found), 0);
    assert_true(found.started);
    assert_int_equal(jobdir_shim_pid(w->dir, &pid), 0);
    assert_int_equal(pid, 4711);
}

static void a_pid_file_with_anything_else_names_no_process(void **state)
{
    struct world *w = *state;
    static const char *const texts[] = {"", "x 1\n", "0 1\n", "-1 1\n", "99999999999 1\n"};
    make(w, 0);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        pid_t pid;
        put(w, "pid", texts[i]);
        assert_int_equal(jobdir_shim_pid(w->dir, &pid), -E_CORRUPT);
    }
}

static void a_folder_is_claimed_by_the_first_that_comes(void **state)
{
    struct world *w = *state;
    make(w, 0);
    assert_true(jobdir_claim(w->dir));
    assert_false(jobdir_claim(w->dir));
}

static void an_ended_job_keeps_its_outcome_and_note(void **state)
{
    struct world *w = *state;
    struct jobdir found;
    struct buf note = BUF_INIT;
    Pb__Outcome outcome = PB__OUTCOME__INIT;
    outcome.result = JOB_FAILED;
    outcome.exit_code = -3;
    make(w, 0);
    assert_int_equal(jobdir_end(w->dir, &outcome, STR("davit: no\n")), 0);
    assert_int_equal(jobdir_load(w->dir, &w->arena, &found), 0);
    assert_non_null(found.outcome);
    assert_int_equal(found.outcome->result, JOB_FAILED);
    assert_int_equal(found.outcome->exit_code, -3);
    jobdir_note(w->dir, &note);
    assert_string_equal(buf_cstr(&note), "davit: no\n");
    buf_release(&note);
}

static bool is_there(const struct world *w, const char *name)
{
    char *path = os_path_join(w->dir, name);
    bool there = os_exists(path);
    free(path);
    return there;
}

static void values_of_variables_go_with_the_end(void **state)
{
    static const char *const files[] = {"spec.pb", "prepared.pb", "shim.conf", "script.sh"};
    struct world *w = *state;
    struct jobdir found;
    Pb__Outcome outcome = PB__OUTCOME__INIT;
    make(w, 3);
    for (size_t i = 1; i < ARRAY_LEN(files); i++) {
        put(w, files[i], "KEY=secret");
    }
    assert_int_equal(jobdir_load(w->dir, &w->arena, &found), 0);
    assert_string_equal(found.spec->name, "build");
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        assert_true(is_there(w, files[i])); /* it runs yet */
    }
    assert_int_equal(jobdir_end(w->dir, &outcome, STR("")), 0);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        assert_false(is_there(w, files[i]));
    }
    put(w, "shim.conf", "KEY=secret"); /* as if it had been killed before it was gone */
    assert_int_equal(jobdir_load(w->dir, &w->arena, &found), 0);
    assert_non_null(found.outcome);
    assert_string_equal(found.spec->name, "");
    assert_int_equal(found.slot, 3);
    assert_false(is_there(w, "shim.conf"));
}

static void a_folder_that_cannot_be_made_leaves_nothing(void **state)
{
    struct world *w = *state;
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    char *file = os_path_join(w->root, "file");
    char *below = os_path_join(file, "1-1-1");
    assert_int_equal(os_write_file(file, "", 0, 0600), 0);
    assert_true(jobdir_create(below, 0, &spec) < 0);
    free(below);
    free(file);
}

static void the_lowest_free_slot_is_taken(void **state)
{
    (void)state;
    static const uint32_t some[] = {3, 0, 1, 7};
    static const uint32_t all[] = {2, 1, 0};
    assert_int_equal(slot_lowest_free(NULL, 0), 0);
    assert_int_equal(slot_lowest_free(some, ARRAY_LEN(some)), 2);
    assert_int_equal(slot_lowest_free(all, ARRAY_LEN(all)), 3);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(a_folder_is_named_after_job_attempt_and_epoch),
        T(other_names_are_no_jobs),
        T(an_accepted_job_is_found_with_its_slot),
        T(a_folder_without_a_spec_is_half_written),
        T(damaged_files_are_told_from_missing_ones),
        T(a_pid_file_says_that_the_job_was_started),
        T(a_pid_file_with_anything_else_names_no_process),
        T(a_folder_is_claimed_by_the_first_that_comes),
        T(an_ended_job_keeps_its_outcome_and_note),
        T(values_of_variables_go_with_the_end),
        T(a_folder_that_cannot_be_made_leaves_nothing),
        T(the_lowest_free_slot_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
