/* Caches between jobs of one worker and of several. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/os.h"
#include "tests/unit/exec/server.h"

static struct server server;

static int setup(void **state)
{
    fixture_setup(state);
    server = server_start(*state, 0);
    return 0;
}

static int teardown(void **state)
{
    server_stop(&server);
    return fixture_teardown(state);
}

static ProtobufCBinaryData *texts(struct fixture *f, const char *const *items, size_t count)
{
    ProtobufCBinaryData *list = arena_array(&f->arena, count, sizeof(*list));
    for (size_t i = 0; i < count; i++) {
        list[i] = pb_bytes(&f->arena, str_from(items[i]));
    }
    return list;
}

/* A new job with one more cache, of the path `deps` unless the test says otherwise. */
static Pb__CacheSpec *add_cache(struct fixture *f, const char *key)
{
    static const char *const paths[] = {"deps"};
    Pb__CacheSpec *spec = arena_alloc(&f->arena, sizeof(*spec));
    Pb__CacheSpec **list = arena_array(&f->arena, f->spec.n_caches + 1, sizeof(*list));
    pb__cache_spec__init(spec);
    spec->key = pb_bytes(&f->arena, str_from(key));
    spec->paths = texts(f, paths, 1);
    spec->n_paths = 1;
    if (f->spec.n_caches > 0) {
        memcpy(list, f->spec.caches, f->spec.n_caches * sizeof(*list));
    }
    list[f->spec.n_caches++] = spec;
    f->spec.caches = list;
    return spec;
}

static Pb__CacheSpec *new_job(struct fixture *f, const char *key)
{
    run_command(f, ": > requests");
    fixture_new_job(f);
    return add_cache(f, key);
}

static void run_well(struct fixture *f)
{
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
}

/* How often the broker was asked for such a thing. */
static void assert_requests(struct fixture *f, const char *pattern, const char *count)
{
    const char *command = arena_printf(&f->arena, "grep -cE '%s' requests || true", pattern);
    assert_string_equal(run_command(f, command), count);
}

static void fill(struct fixture *f, const char *key)
{
    new_job(f, key);
    SCRIPT(f, "mkdir -p deps/a", "echo one > deps/a/1", "ln -s a/1 deps/ln",
           "touch -d 2020-01-01 deps/a deps");
    run_well(f);
}

static void the_next_job_finds_what_was_kept(void **state)
{
    struct fixture *f = *state;
    fill(f, "k-/\"x\" %");
    assert_in_log(f, "Checking cache for k-/\"x\" %-non_protected...\n");
    assert_in_log(f, "No cache found for k-/\"x\" %-non_protected\n");
    assert_in_log(f, "Uploading cache k-/\"x\" %-non_protected: 4 files, 4 B (");
    new_job(f, "k-/\"x\" %");
    SCRIPT(f, "cat deps/ln");
    run_well(f);
    assert_in_log(f, "\none\n");
    assert_in_log(f,
                  "Restored cache k-/\"x\" %-non_protected from this worker's own copy: 4 files");
}

static void variables_are_expanded_wherever_they_stand(void **state)
{
    static const char *const paths[] = {"$DIR/"};
    static const char *const fallback[] = {"old-$N"};
    struct fixture *f = *state;
    fill(f, "old-7");
    Pb__CacheSpec *spec = new_job(f, "new-$N");
    spec_variable(f, "N", "7");
    spec_variable(f, "DIR", "deps");
    spec_variable(f, "POLICY", "pull-push");
    spec->policy = pb_bytes(&f->arena, STR("$POLICY"));
    spec->paths = texts(f, paths, 1);
    spec->fallback_keys = texts(f, fallback, 1);
    spec->n_fallback_keys = 1;
    SCRIPT(f, "cat deps/a/1");
    run_well(f);
    assert_in_log(f, "Restored cache old-7-non_protected");
    /* Not the key that it came from: it is kept under its own. */
    assert_string_equal(run_command(f, "grep -o 'new-7-non_protected\": ' caches.json"),
                        "new-7-non_protected\":");
}

static void an_unchanged_cache_is_not_uploaded_again(void **state)
{
    struct fixture *f = *state;
    fill(f, "k");
    assert_requests(f, "^POST", "1");
    new_job(f, "k");
    SCRIPT(f, "cat deps/a/1");
    run_well(f);
    assert_in_log(f, "Cache k-non_protected is unchanged\n");
    assert_requests(f, "^(POST|PUT)", "0");
    new_job(f, "k");
    SCRIPT(f, "echo two >> deps/a/1");
    run_well(f);
    assert_requests(f, "^(POST|PUT)", "2");
}

/* The first job of another worker asks the broker; the second has the copy of the first. */
static void a_content_is_downloaded_once(void **state)
{
    struct fixture *f = *state;
    fill(f, "k");
    run_command(f, "rm -r cache");
    new_job(f, "k")->policy = pb_bytes(&f->arena, STR("pull"));
    SCRIPT(f, "cat deps/a/1");
    run_well(f);
    assert_in_log(f, "from the broker: 4 files");
    assert_requests(f, "^GET", "1");
    new_job(f, "k")->policy = pb_bytes(&f->arena, STR("pull"));
    SCRIPT(f, "cat deps/a/1");
    run_well(f);
    assert_in_log(f, "from this worker's own copy");
    assert_requests(f, "^GET", "0");
    assert_string_equal(run_command(f, "ls cache | grep -vcE '^([0-9a-f]{64}|lock)$' || true"),
                        "0");
}

static void assert_restored_from(struct fixture *f, const char *key, const char *where)
{
    new_job(f, key)->policy = pb_bytes(&f->arena, STR("pull"));
    SCRIPT(f, "test -s deps/x");
    run_well(f);
    assert_in_log(f, where);
}

/* Room for two: of three the one that was not used for longest goes. */
static void the_folder_of_copies_has_a_size(void **state)
{
    struct fixture *f = *state;
    static const char *const keys[] = {"k1", "k2", "k3"};
    f->cx.cache_bytes = 100 * 1000;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        new_job(f, keys[i]);
        SCRIPT(f, "mkdir -p deps", "head -c 40000 /dev/urandom > deps/x");
        run_well(f);
        if (i == 1) {
            assert_restored_from(f, "k1", "from this worker's own copy");
        }
    }
    assert_string_equal(run_command(f, "ls cache | grep -cE '^[0-9a-f]{64}$'"), "2");
    assert_restored_from(f, "k1", "from this worker's own copy");
    assert_restored_from(f, "k3", "from this worker's own copy");
    assert_restored_from(f, "k2", "from the broker");
    /* One that is larger than all of it is not kept at all. */
    f->cx.cache_bytes = 1000;
    assert_restored_from(f, "k1", "from the broker");
    assert_restored_from(f, "k1", "from the broker");
}

static void a_copy_that_somebody_changed_is_not_used(void **state)
{
    struct fixture *f = *state;
    fill(f, "k");
    run_command(f, "chmod 600 cache/*; for c in cache/[0-9a-f]*; do echo evil > $c; done");
    new_job(f, "k");
    SCRIPT(f, "cat deps/a/1");
    run_well(f);
    assert_in_log(f, "from the broker: 4 files");
    assert_in_log(f, "\none\n");
}

static void a_policy_says_which_way_it_goes(void **state)
{
    struct fixture *f = *state;
    new_job(f, "k")->policy = pb_bytes(&f->arena, STR("pull"));
    SCRIPT(f, "mkdir deps; touch deps/1");
    run_well(f);
    assert_requests(f, "^(POST|PUT)", "0");
    new_job(f, "k")->policy = pb_bytes(&f->arena, STR("push"));
    SCRIPT(f, "mkdir deps; touch deps/1");
    run_well(f);
    assert_not_in_log(f, "Checking cache");
    assert_requests(f, "^PUT", "1");
    new_job(f, "k")->policy = pb_bytes(&f->arena, STR("sideways"));
    SCRIPT(f, "ls deps");
    run_well(f);
    assert_in_log(f, "WARNING: cache policy `sideways` is none of pull, push, pull-push");
    assert_in_log(f, "\n1\n");
}

static void when_says_after_which_end_it_is_kept(void **state)
{
    static const struct {
        Pb__ArtifactWhen when;
        const char *script;
        const char *puts;
    } rows[] = {
        {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_SUCCESS, "false", "0"},
        {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_FAILURE, "true", "0"},
        {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_FAILURE, "false", "1"},
        {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS, "false", "1"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        new_job(f, arena_printf(&f->arena, "k%zu", i))->when = rows[i].when;
        SCRIPT(f, "mkdir deps; touch deps/1", rows[i].script);
        run_job(f);
        assert_requests(f, "^PUT", rows[i].puts);
    }
}

static void an_empty_selection_never_takes_the_place_of_a_good_one(void **state)
{
    struct fixture *f = *state;
    fill(f, "k");
    new_job(f, "k")->policy = pb_bytes(&f->arena, STR("push"));
    SCRIPT(f, "true");
    run_well(f);
    assert_in_log(f, "WARNING: cache k-non_protected: no files to keep");
    assert_requests(f, "^(POST|PUT)", "0");
}

static void fallback_keys_are_tried_in_order(void **state)
{
    static const char *const fallback[] = {"f1", "f2"};
    struct fixture *f = *state;
    fill(f, "global");
    Pb__CacheSpec *spec = new_job(f, "k");
    spec->fallback_keys = texts(f, fallback, 2);
    spec->n_fallback_keys = 2;
    spec_variable(f, "CACHE_FALLBACK_KEY", "global");
    SCRIPT(f, "cat deps/a/1");
    run_well(f);
    const char *k = strstr(f->log, "cache for k-non_protected");
    const char *f1 = strstr(f->log, "cache for f1-non_protected");
    const char *f2 = strstr(f->log, "cache for f2-non_protected");
    const char *last = strstr(f->log, "Restored cache global-non_protected");
    assert_true(k != NULL && f1 != NULL && f2 != NULL && last != NULL);
    assert_true(k < f1 && f1 < f2 && f2 < last);
}

static void protected_refs_have_caches_of_their_own(void **state)
{
    struct fixture *f = *state;
    new_job(f, "k");
    f->spec.ref_protected = true;
    SCRIPT(f, "mkdir deps; touch deps/1");
    run_well(f);
    assert_in_log(f, "Uploading cache k-protected");
    new_job(f, "k");
    spec_variable(f, "CACHE_FALLBACK_KEY", "k-protected");
    SCRIPT(f, "! test -e deps");
    run_well(f);
    assert_in_log(f, "WARNING: CACHE_FALLBACK_KEY names a cache of protected refs: not used");
    new_job(f, "k")->unprotect = true;
    f->spec.ref_protected = true;
    SCRIPT(f, "true");
    run_well(f);
    assert_in_log(f, "Checking cache for k-non_protected");
}

/* The key of the log's only cache. */
static char *key_of_log(struct fixture *f)
{
    const char *at = strstr(f->log, "Checking cache for ");
    assert_non_null(at);
    struct str rest = str_from(at + strlen("Checking cache for "));
    return arena_strdup(&f->arena, str_sub(rest, 0, (size_t)str_find(rest, STR("..."))));
}

static char *key_with_files(struct fixture *f, const char *prefix, const char *before, bool commits)
{
    static const char *const files[] = {"*.lock", "none"};
    Pb__SnapshotSource snapshot = PB__SNAPSHOT_SOURCE__INIT;
    Pb__CacheSpec *spec = new_job(f, "");
    spec->key_files = texts(f, files, 2);
    spec->n_key_files = 2;
    spec->key_prefix = pb_bytes(&f->arena, str_from(prefix));
    spec->key_files_commits = commits;
    run_command(f, "rm -rf tree && mkdir tree");
    run_command(f, arena_printf(&f->arena, "cd tree && %s", before));
    spec_variable(f, "GIT_STRATEGY", "none");
    run_command(f, "rm -rf builds/3/group && mkdir -p builds/3/group && mv tree "
                   "builds/3/group/project");
    f->source.from_case = PB__SOURCE__FROM_SNAPSHOT;
    f->source.snapshot = &snapshot;
    SCRIPT(f, "mkdir -p deps; test -e deps/1 || touch deps/1; echo changed > a.lock");
    run_well(f);
    return key_of_log(f);
}

static void a_key_follows_what_is_in_its_files(void **state)
{
    struct fixture *f = *state;
    char *one = key_with_files(f, "p", "echo 1 > a.lock; echo x > other", false);
    char *same = key_with_files(f, "p", "echo 1 > a.lock; echo y > other", false);
    char *two = key_with_files(f, "p", "echo 2 > a.lock; echo x > other", false);
    char *bare = key_with_files(f, "", "echo 1 > a.lock", false);
    char *none = key_with_files(f, "p", "echo 1 > other", false);
    char *nothing = key_with_files(f, "", "echo 1 > other", false);
    assert_string_equal(one, same);
    assert_string_not_equal(one, two);
    assert_int_equal(strncmp(one, "p-", 2), 0);
    assert_string_equal(one + 2, bare);
    assert_string_equal(none, "p-default-non_protected");
    assert_string_equal(nothing, "default-non_protected");
    /* The script has changed the file: what counts is what it was before. */
    key_with_files(f, "p", "echo 1 > a.lock; echo x > other", false);
    assert_in_log(f, arena_printf(&f->arena, "Cache %s is unchanged", one));
}

#define GIT                                                                                       \
    "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b " \
    "GIT_AUTHOR_DATE=2020-01-01T00:00:00Z GIT_COMMITTER_DATE=2020-01-01T00:00:00Z; "

static void a_key_may_follow_commits(void **state)
{
    struct fixture *f = *state;
    const char *commit = GIT "git init -q . && echo 1 > a.lock && git add . && git commit -qm 1";
    const char *later = GIT "git init -q . && echo 1 > a.lock && git add . && git commit -qm 1 && "
                            "echo x > other && git add . && git commit -qm 2";
    const char *touched = GIT
        "git init -q . && echo 1 > a.lock && git add . && git commit -qm 1 && "
        "echo 2 > a.lock && git add . && git commit -qm 2 && echo 1 > a.lock && git add . && "
        "git commit -qm 3";
    char *first = key_with_files(f, "p", commit, true);
    assert_string_equal(first, key_with_files(f, "p", later, true));
    assert_string_not_equal(first, key_with_files(f, "p", touched, true));
    /* Without a repository it is the content. */
    assert_string_equal(key_with_files(f, "p", "echo 1 > a.lock", true),
                        key_with_files(f, "p", "echo 1 > a.lock", false));
}

/* What an earlier job left configured would be run where the worker does. */
static void a_key_by_commits_runs_no_program_of_the_tree(void **state)
{
    struct fixture *f = *state;
    const char *before = arena_printf(
        &f->arena,
        GIT "git init -q . && echo 1 > a.lock && git add . && printf '#!/bin/sh\\n"
            "touch %s/pwned\\ncat >/dev/null\\necho -----BEGIN PGP SIGNATURE-----\\necho "
            "\"[GNUPG:] SIG_CREATED \" >&2\\n' "
            "> .git/trap && chmod +x .git/trap && git config gpg.program $PWD/.git/trap && "
            "git commit -qS -m 1 && git config log.showSignature true && "
            "git config gpg.program %s/builds/3/group/project/.git/trap && rm -f %s/pwned",
        f->root, f->root, f->root);
    char *key = key_with_files(f, "p", before, true);
    assert_string_not_equal(key, "p-default-non_protected");
    assert_string_equal(run_command(f, "ls -d pwned 2>/dev/null || echo none"), "none");
}

static void several_caches_are_kept_apart(void **state)
{
    static const char *const paths[] = {"more"};
    struct fixture *f = *state;
    for (unsigned round = 0; round < 2; round++) {
        new_job(f, "one");
        Pb__CacheSpec *second = add_cache(f, "two");
        second->paths = texts(f, paths, 1);
        SCRIPT(f, "(ls -d deps more 2>&1 || true) | tr '\\n' ' '; echo", "mkdir -p deps more",
               "touch deps/1 more/2");
        run_well(f);
    }
    assert_in_log(f, "\ndeps more \n");
}

static void a_broker_that_fails_costs_the_cache_alone(void **state)
{
    struct fixture *f = *state;
    fill(f, "k");
    run_command(f, "rm -r cache; printf '403\\n' > faults");
    new_job(f, "k");
    SCRIPT(f, "mkdir deps; echo new > deps/1");
    run_well(f);
    assert_in_log(f, "WARNING: cache k-non_protected cannot be had: the broker answers with HTTP "
                     "status 403");
    new_job(f, "k");
    SCRIPT(f, "echo newer > deps/1", "printf '200\\n413\\n' > ../../../../faults");
    run_well(f);
    assert_in_log(f, "WARNING: cache k-non_protected is not kept: the broker answers with HTTP "
                     "status 413");
}

static void a_canceled_job_keeps_no_cache(void **state)
{
    struct fixture *f = *state;
    new_job(f, "k")->when = PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS;
    SCRIPT(f, "mkdir deps; touch deps/1; touch ../../../../begun; sleep 60");
    assert_int_equal(run_prepare(f), 0);
    run_start(f);
    wait_for_file(fixture_path(f, "begun"));
    assert_int_equal(executor_shell.cancel(&f->cx, false), 0);
    run_finish(f);
    assert_outcome(f, JOB_CANCELED, REASON_NONE, 0);
    assert_requests(f, "^(POST|PUT)", "0");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_next_job_finds_what_was_kept),
        TEST(variables_are_expanded_wherever_they_stand),
        TEST(an_unchanged_cache_is_not_uploaded_again),
        TEST(a_content_is_downloaded_once),
        TEST(the_folder_of_copies_has_a_size),
        TEST(a_copy_that_somebody_changed_is_not_used),
        TEST(a_policy_says_which_way_it_goes),
        TEST(when_says_after_which_end_it_is_kept),
        TEST(an_empty_selection_never_takes_the_place_of_a_good_one),
        TEST(fallback_keys_are_tried_in_order),
        TEST(protected_refs_have_caches_of_their_own),
        TEST(a_key_follows_what_is_in_its_files),
        TEST(a_key_may_follow_commits),
        TEST(a_key_by_commits_runs_no_program_of_the_tree),
        TEST(several_caches_are_kept_apart),
        TEST(a_broker_that_fails_costs_the_cache_alone),
        TEST(a_canceled_job_keeps_no_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
