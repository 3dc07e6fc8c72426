/* Snapshots and artifacts between a job and (a stand-in for) the broker. */
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

static void use_snapshot(struct fixture *f)
{
    static const char *const paths[] = {"README", "src", "src/main.c", "link", "run.sh"};
    static Pb__SnapshotSource snapshot;
    run_command(f,
                "mkdir -p tree/src && cd tree && echo hello > README && echo 'int x;' > src/main.c "
                "&& ln -sf src/main.c link && echo 'echo ran' > run.sh && chmod 755 run.sh");
    pb__snapshot_source__init(&snapshot);
    snapshot.digest = server_put_archive(f, fixture_path(f, "tree"), paths, ARRAY_LEN(paths),
                                         &snapshot.size);
    f->source.from_case = PB__SOURCE__FROM_SNAPSHOT;
    f->source.snapshot = &snapshot;
}

static Pb__ArtifactSpec *use_artifacts(struct fixture *f, const char *const *paths, size_t count)
{
    static Pb__ArtifactSpec spec;
    pb__artifact_spec__init(&spec);
    spec.n_paths = count;
    spec.paths = arena_array(&f->arena, count, sizeof(*spec.paths));
    for (size_t i = 0; i < count; i++) {
        spec.paths[i] = pb_bytes(&f->arena, str_from(paths[i]));
    }
    spec.expire_in_ms = 60000;
    f->spec.artifacts = &spec;
    return &spec;
}
#define ARTIFACTS(f, ...)                                  \
    use_artifacts((f), (const char *const[]){__VA_ARGS__}, \
                  sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

/* The next job of the same slot takes what this one uploaded, in an empty folder, and lists it. */
static void list_in_next_job(struct fixture *f, const char *command)
{
    Pb__ArtifactIn in = PB__ARTIFACT_IN__INIT;
    Pb__ArtifactIn *list[] = {&in};
    assert_int_equal(f->outcome.n_artifacts, 1);
    in.job_name = arena_strdup(&f->arena, STR("build"));
    in.digest = f->outcome.artifacts[0]->digest;
    in.size = f->outcome.artifacts[0]->size;
    fixture_new_job(f);
    f->spec.artifacts_in = list;
    f->spec.n_artifacts_in = 1;
    SCRIPT(f, command);
    run_job(f);
    f->spec.artifacts_in = NULL;
    f->spec.n_artifacts_in = 0;
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "Downloading artifacts of build (");
}

static void assert_listed(struct fixture *f, const char *expected)
{
    list_in_next_job(f, "find . -mindepth 1 | LC_ALL=C sort | tr '\\n' ' '; echo .");
    const char *list = strstr(f->log, "echo .\033[0;m\n");
    assert_non_null(list);
    assert_string_equal(list + strlen("echo .\033[0;m\n"), expected);
}

static void a_snapshot_replaces_the_tree(void **state)
{
    struct fixture *f = *state;
    run_command(f, "mkdir -p victim builds/3/group/project/old && echo precious > victim/file && "
                   "ln -s ../../../../victim builds/3/group/project/way-out && "
                   "echo x > builds/3/group/project/old/x");
    use_snapshot(f);
    SCRIPT(f, "ls -A", "cat link README", "./run.sh || bash run.sh");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\nREADME\nlink\nrun.sh\nsrc\n");
    assert_in_log(f, "\nint x;\nhello\n");
    assert_in_log(f, "\nran\n");
    assert_string_equal(run_command(f, "cat victim/file"), "precious");
}

static void a_snapshot_that_is_gone_is_a_source_failure(void **state)
{
    struct fixture *f = *state;
    use_snapshot(f);
    run_command(f, "rm -r blobs");
    SCRIPT(f, "echo never");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SOURCE_FAILURE, 0);
    assert_in_log(f, "ERROR: cannot get ");
    assert_in_log(f, "HTTP status 404");
}

static void a_snapshot_with_other_bytes_is_refused(void **state)
{
    struct fixture *f = *state;
    use_snapshot(f);
    run_command(
        f, "for b in blobs/*; do printf X | dd of=$b bs=1 seek=40 conv=notrunc status=none; done");
    SCRIPT(f, "echo never");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SOURCE_FAILURE, 0);
    assert_in_log(f, "is not that");
}

static void a_job_waits_for_a_broker_that_is_away(void **state)
{
    struct fixture *f = *state;
    use_snapshot(f);
    server_stop(&server);
    int port = server_free_port();
    f->cx.api_url = arena_printf(&f->arena, "http://127.0.0.1:%d", port);
    SCRIPT(f, "cat README");
    assert_int_equal(run_prepare(f), 0);
    run_start(f);
    struct spool_reader reader;
    struct buf log = BUF_INIT;
    assert_int_equal(spool_open(&reader, f->cx.job_dir), 0);
    while (log.n == 0 || strstr(log.p, "trying again until it does") == NULL) {
        assert_int_equal(spool_read(&reader, log.n, 100000, &log), 0);
        os_sleep_ms(5);
    }
    spool_close(&reader);
    buf_release(&log);
    run_command(f, "rm port");
    server = server_start(f, port);
    run_finish(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\nhello\n");
}

static void broken_answers_are_asked_again(void **state)
{
    struct fixture *f = *state;
    use_snapshot(f);
    run_command(f, "printf '503\\ncut\\n429\\n' > faults");
    SCRIPT(f, "cat README");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\nhello\n");
    assert_string_equal(run_command(f, "cat faults"), "");
}

static void a_canceled_job_does_not_wait_for_the_broker(void **state)
{
    struct fixture *f = *state;
    use_snapshot(f);
    f->cx.api_url = arena_printf(&f->arena, "http://127.0.0.1:%d", server_free_port());
    SCRIPT(f, "cat README");
    assert_int_equal(run_prepare(f), 0);
    run_start(f);
    assert_int_equal(executor_shell.cancel(&f->cx, false), 0);
    run_finish(f);
    assert_outcome(f, JOB_CANCELED, REASON_NONE, 0);
}

static void artifacts_go_from_job_to_job(void **state)
{
    struct fixture *f = *state;
    ARTIFACTS(f, "build/", "*.txt", "$EXTRA")->name = pb_bytes(&f->arena, STR("n-$EXTRA"));
    spec_variable(f, "EXTRA", "deep/er");
    SCRIPT(f, "mkdir -p build/sub deep/er other", "echo 1 > build/sub/one",
           "chmod 755 build/sub/one", "ln -s sub/one build/ln", "echo 2 > a.txt", "echo 3 > b.txt",
           "echo 4 > deep/er/four", "echo 5 > deep/no", "echo 6 > other/six.txt");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\nbuild/: found 4 matching files and folders\n");
    assert_in_log(f, "\n*.txt: found 2 matching files and folders\n");
    assert_in_log(f, "\nUploading artifacts: 8 files, 8 B (");
    assert_string_equal(f->outcome.artifacts[0]->name, "n-deep/er");
    assert_int_equal(f->outcome.artifacts[0]->expire_in_ms, 60000);
    assert_int_equal(f->outcome.artifacts[0]->file_count, 8);
    list_in_next_job(
        f, "cat build/ln a.txt deep/er/four && test -x build/sub/one && ! test -e other && "
           "! test -e deep/no");
    assert_in_log(f, "\n1\n2\n4\n");
}

static void wildcards_cross_folders_and_excludes_take_away(void **state)
{
    struct fixture *f = *state;
    Pb__ArtifactSpec *spec = ARTIFACTS(f, "out/**/*.o", "logs/**", "{x,y}.bin");
    ProtobufCBinaryData exclude[] = {pb_bytes(&f->arena, STR("out/skip/**")),
                                     pb_bytes(&f->arena, STR("**/*.tmp"))};
    spec->exclude = exclude;
    spec->n_exclude = 2;
    SCRIPT(f, "mkdir -p out/a/b out/skip logs/d",
           "touch out/1.o out/a/b/2.o out/a/3.c out/skip/4.o",
           "touch logs/5 logs/d/6 logs/7.tmp x.bin y.bin z.bin");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_listed(f, "./logs ./logs/5 ./logs/d ./logs/d/6 ./out ./out/1.o ./out/a ./out/a/b "
                     "./out/a/b/2.o ./x.bin ./y.bin .\n");
}

static void nothing_outside_of_the_project_is_taken(void **state)
{
    struct fixture *f = *state;
    run_command(f, "mkdir -p victim && echo secret > victim/secret");
    spec_variable(f, "ROOT", f->root);
    ARTIFACTS(f, "$ROOT/victim/secret", "../../../../victim/secret", "way/secret", "way/*",
              "way/**", "/etc/hostname", "in/../../../../../victim", "in/../kept",
              "$CI_PROJECT_DIR/abs", "./dot/", "way2/inner");
    SCRIPT(f, "ln -s $ROOT/victim way", "mkdir -p in real dot", "echo k > kept", "echo a > abs",
           "echo d > dot/d", "ln -s real way2", "echo i > real/inner");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f,
                  "WARNING: ../../../../victim/secret: is not in the project's folder, left out");
    assert_in_log(f, "WARNING: way/secret: is not in the project's folder, left out");
    assert_in_log(f, "WARNING: /etc/hostname: is not in the project's folder, left out");
    assert_in_log(f, "WARNING: way/*: no matching files");
    assert_listed(f, "./abs ./dot ./dot/d ./kept ./real ./real/inner .\n");
}

static void the_whole_folder_may_be_named_and_git_is_left_out(void **state)
{
    static const char *const whole[] = {".", "./", "$CI_PROJECT_DIR", "$CI_PROJECT_DIR/", "**/*"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(whole); i++) {
        fixture_new_job(f);
        ARTIFACTS(f, whole[i]);
        SCRIPT(f, "mkdir -p d .git", "touch a d/b .git/config");
        run_job(f);
        f->spec.artifacts = NULL;
        assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
        assert_listed(f, "./a ./d ./d/b .\n");
    }
}

static void untracked_files_are_those_that_git_does_not_know(void **state)
{
    struct fixture *f = *state;
    ProtobufCBinaryData exclude[] = {pb_bytes(&f->arena, STR("no.*"))};
    Pb__ArtifactSpec *spec = ARTIFACTS(f, "");
    spec->n_paths = 0;
    spec->untracked = true;
    spec->exclude = exclude;
    spec->n_exclude = 1;
    SCRIPT(f, "git init -q . && touch known && git add known", "echo ignored > .gitignore",
           "mkdir d; touch ignored d/new no.thing");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    f->spec.artifacts = NULL;
    assert_listed(f, "./.gitignore ./d ./d/new ./ignored .\n");
}

/* The job's own configuration may name programs; the steps run where the worker does. */
static void untracked_files_are_listed_without_the_programs_of_the_job(void **state)
{
    struct fixture *f = *state;
    Pb__ArtifactSpec *spec = ARTIFACTS(f, "");
    spec->n_paths = 0;
    spec->untracked = true;
    SCRIPT(f, "git init -q . && touch known && git add known",
           "printf '#!/bin/sh\\ntouch ../../../../pwned\\n' > .git/trap; chmod +x .git/trap",
           "git config core.fsmonitor .git/trap && git update-index --fsmonitor",
           "rm -f ../../../../pwned; touch new");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    f->spec.artifacts = NULL;
    assert_listed(f, "./new .\n");
    assert_string_equal(run_command(f, "ls -d pwned 2>/dev/null || echo none"), "none");
}

static void a_path_that_matches_nothing_is_a_warning(void **state)
{
    struct fixture *f = *state;
    ARTIFACTS(f, "nothing/", "*.none");
    SCRIPT(f, "true");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "WARNING: nothing/: no matching files");
    assert_in_log(f, "WARNING: *.none: no matching files");
    assert_in_log(f, "WARNING: no files to upload");
    assert_int_equal(f->outcome.n_artifacts, 0);
}

static void when_decides_by_how_the_script_ended(void **state)
{
    static const struct {
        Pb__ArtifactWhen when;
        const char *script;
        size_t artifacts;
    } cases[] = {
        {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_SUCCESS, "touch a; true", 1},
        {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_SUCCESS, "touch a; false", 0},
        {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_FAILURE, "touch a; true", 0},
        {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_FAILURE, "touch a; false", 1},
        {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS, "touch a; true", 1},
        {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS, "touch a; false", 1},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        fixture_new_job(f);
        ARTIFACTS(f, "a")->when = cases[i].when;
        SCRIPT(f, cases[i].script);
        run_job(f);
        assert_int_equal(f->outcome.n_artifacts, cases[i].artifacts);
        bool well = strstr(cases[i].script, "true") != NULL;
        assert_outcome(f, well ? JOB_SUCCESS : JOB_FAILED,
                       well ? REASON_NONE : REASON_SCRIPT_FAILURE, well ? 0 : 1);
    }
}

static void a_refused_upload_fails_a_job_that_was_well(void **state)
{
    struct fixture *f = *state;
    ARTIFACTS(f, "a");
    SCRIPT(f, "touch a");
    run_command(f, "echo 413 > faults");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_ARTIFACT_FAILURE, 0);
    fixture_new_job(f);
    ARTIFACTS(f, "a")->when = PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS;
    SCRIPT(f, "touch a; exit 9");
    run_command(f, "echo 413 > faults");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 9);
}

static void artifacts_that_are_gone_are_missing(void **state)
{
    struct fixture *f = *state;
    Pb__ArtifactIn in = PB__ARTIFACT_IN__INIT;
    Pb__ArtifactIn *list[] = {&in};
    char digest[32] = {1};
    in.job_name = arena_strdup(&f->arena, STR("build"));
    in.digest = pb_bytes(&f->arena, str_of(digest, sizeof(digest)));
    in.size = 100;
    f->spec.artifacts_in = list;
    f->spec.n_artifacts_in = 1;
    SCRIPT(f, "echo never");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_ARTIFACT_MISSING, 0);
    assert_in_log(f, "the artifacts of build cannot be had: they have expired or were removed");
}

static void a_tree_of_a_job_before_is_never_uploaded(void **state)
{
    struct fixture *f = *state;
    SCRIPT(f, "touch old");
    run_job(f);
    fixture_new_job(f);
    use_snapshot(f);
    run_command(f, "rm -r blobs");
    ARTIFACTS(f, "old")->when = PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS;
    SCRIPT(f, "true");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SOURCE_FAILURE, 0);
    assert_int_equal(f->outcome.n_artifacts, 0);
}

/* More than goes in one request. */
#define LARGE "head -c 9000000 /dev/urandom > large; sha256sum < large"

static void a_large_upload_goes_on_where_it_broke(void **state)
{
    struct fixture *f = *state;
    ARTIFACTS(f, "large");
    SCRIPT(f, LARGE);
    run_command(f, "printf 'none\\ncut\\nnone\\ncut\\n' > faults");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "trying again until it does");
    /* Half of it, and half of the rest, were not sent again. */
    const char *asked = run_command(f, "awk '$1 == \"HEAD\" {print $3}' requests");
    assert_int_equal(strtoul(asked, NULL, 10) > 4000000, 1);
    list_in_next_job(f, "sha256sum < large");
}

static void an_upload_that_the_broker_forgot_begins_again(void **state)
{
    struct fixture *f = *state;
    ARTIFACTS(f, "large");
    SCRIPT(f, LARGE);
    run_command(f, "printf 'none\\nforget\\n' > faults");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_int_equal(f->outcome.n_artifacts, 1);
    list_in_next_job(f, "wc -c < large");
    assert_in_log(f, "\n9000000\n");
}

static void a_download_goes_on_where_it_broke(void **state)
{
    struct fixture *f = *state;
    ARTIFACTS(f, "large");
    SCRIPT(f, LARGE);
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    run_command(f, "printf 'cut\\n' > faults; rm requests");
    list_in_next_job(f, "wc -c < large");
    assert_in_log(f, "\n9000000\n");
    const char *sent = run_command(f, "awk '$1 == \"GET\" {n = $3} END {print n}' requests");
    if (strtoul(sent, NULL, 10) >= 5000000) { /* the second half alone */
        fail_msg("%s", run_command(f, "cat requests"));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_snapshot_replaces_the_tree),
        TEST(a_snapshot_that_is_gone_is_a_source_failure),
        TEST(a_snapshot_with_other_bytes_is_refused),
        TEST(a_job_waits_for_a_broker_that_is_away),
        TEST(a_large_upload_goes_on_where_it_broke),
        TEST(an_upload_that_the_broker_forgot_begins_again),
        TEST(a_download_goes_on_where_it_broke),
        TEST(broken_answers_are_asked_again),
        TEST(a_canceled_job_does_not_wait_for_the_broker),
        TEST(artifacts_go_from_job_to_job),
        TEST(wildcards_cross_folders_and_excludes_take_away),
        TEST(nothing_outside_of_the_project_is_taken),
        TEST(the_whole_folder_may_be_named_and_git_is_left_out),
        TEST(untracked_files_are_those_that_git_does_not_know),
        TEST(untracked_files_are_listed_without_the_programs_of_the_job),
        TEST(a_path_that_matches_nothing_is_a_warning),
        TEST(when_decides_by_how_the_script_ended),
        TEST(a_refused_upload_fails_a_job_that_was_well),
        TEST(artifacts_that_are_gone_are_missing),
        TEST(a_tree_of_a_job_before_is_never_uploaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
