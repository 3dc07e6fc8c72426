/* What a job says of itself behind its script: reports, coverage, release, pages, environment. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/crypto.h"
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

static ProtobufCBinaryData text(struct fixture *f, const char *s)
{
    return pb_bytes(&f->arena, str_from(s));
}

static Pb__ReportSpec *add_report(struct fixture *f, const char *type, const char *path)
{
    Pb__ReportSpec *report = arena_alloc(&f->arena, sizeof(*report));
    pb__report_spec__init(report);
    report->type = arena_strdup(&f->arena, str_from(type));
    report->paths = arena_alloc(&f->arena, sizeof(*report->paths));
    report->paths[0] = text(f, path);
    report->n_paths = 1;
    if (f->spec.artifacts == NULL) {
        f->spec.artifacts = arena_alloc(&f->arena, sizeof(*f->spec.artifacts));
        pb__artifact_spec__init(f->spec.artifacts);
        f->spec.artifacts->reports = arena_array(&f->arena, 32, sizeof(report));
        f->spec.artifacts->expire_in_ms = 5000;
    }
    f->spec.artifacts->reports[f->spec.artifacts->n_reports++] = report;
    return report;
}

static const Pb__ArtifactOut *find_artifact(struct fixture *f, const char *type)
{
    for (size_t i = 0; i < f->outcome.n_artifacts; i++) {
        if (strcmp(f->outcome.artifacts[i]->type, type) == 0) {
            return f->outcome.artifacts[i];
        }
    }
    return NULL;
}

/* The names in an uploaded archive. */
static void assert_holds(struct fixture *f, const Pb__ArtifactOut *artifact, const char *names)
{
    char hex[2 * SHA256_BYTES + 1];
    assert_non_null(artifact);
    str_to_hex(artifact->digest.data, SHA256_BYTES, hex);
    const char *command = arena_printf(
        &f->arena, "zstd -dc blobs/%s | tar -t | LC_ALL=C sort | tr '\\n' ' '", hex);
    assert_string_equal(run_command(f, command), names);
}

static void reports_are_artifacts_of_their_own_and_tell_of_failures_too(void **state)
{
    struct fixture *f = *state;
    add_report(f, "junit", "out/$KIND-*.xml");
    add_report(f, "coverage_report", "cov.xml")->format = arena_strdup(&f->arena, STR("cobertura"));
    add_report(f, "sast", "none.json");
    f->spec.artifacts->paths = arena_alloc(&f->arena, sizeof(ProtobufCBinaryData));
    f->spec.artifacts->paths[0] = text(f, "out/");
    f->spec.artifacts->n_paths = 1;
    f->spec.artifacts->access = arena_strdup(&f->arena, STR("developer"));
    f->spec.artifacts->expose_as = text(f, "the output");
    spec_variable(f, "KIND", "unit");
    SCRIPT(f, "mkdir out; touch out/unit-1.xml out/unit-2.xml out/other.xml cov.xml", "exit 3");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 3);
    assert_int_equal(f->outcome.n_artifacts, 2);
    assert_holds(f, find_artifact(f, "junit"), "out/unit-1.xml out/unit-2.xml");
    assert_int_equal(find_artifact(f, "junit")->expire_in_ms, 5000);
    assert_string_equal(find_artifact(f, "coverage_report")->format, "cobertura");
    assert_in_log(f, "WARNING: none.json: no matching files");
    fixture_new_job(f);
    f->spec.artifacts = NULL;
}

static void an_archive_carries_what_its_spec_says_of_it(void **state)
{
    struct fixture *f = *state;
    add_report(f, "junit", "out/1");
    f->spec.artifacts->paths = arena_alloc(&f->arena, sizeof(ProtobufCBinaryData));
    f->spec.artifacts->paths[0] = text(f, "out/");
    f->spec.artifacts->n_paths = 1;
    f->spec.artifacts->access = arena_strdup(&f->arena, STR("developer"));
    f->spec.artifacts->expose_as = text(f, "the output");
    f->spec.artifacts->name = text(f, "$CI_JOB_STATUS-x");
    SCRIPT(f, "mkdir out; touch out/1");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    const Pb__ArtifactOut *archive = find_artifact(f, "archive");
    assert_holds(f, archive, "out/ out/1");
    assert_string_equal(archive->name, "running-x");
    assert_string_equal(archive->access, "developer");
    assert_string_equal(find_artifact(f, "junit")->access, "developer");
    assert_true(str_eqz(pb_str(archive->expose_as), "the output"));
    assert_int_equal(find_artifact(f, "junit")->expose_as.len, 0);
}

static void dotenv_reports_give_variables(void **state)
{
    struct fixture *f = *state;
    add_report(f, "dotenv", "*.env");
    SCRIPT(f, "echo URL=https://a.example > 1.env",
           "printf 'URL=https://b.example\\nX=$Y' > 2.env");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_int_equal(f->outcome.n_dotenv, 2);
    assert_string_equal(f->outcome.dotenv[0]->name, "URL");
    assert_true(str_eqz(pb_str(f->outcome.dotenv[0]->value), "https://b.example"));
    assert_true(str_eqz(pb_str(f->outcome.dotenv[1]->value), "$Y"));
    assert_true(f->outcome.dotenv[1]->raw);
    assert_holds(f, find_artifact(f, "dotenv"), "1.env 2.env");
}

static void a_malformed_dotenv_report_fails_the_job_by_its_line(void **state)
{
    struct fixture *f = *state;
    add_report(f, "dotenv", "x.env");
    add_report(f, "junit", "x.xml");
    SCRIPT(f, "printf 'A=1\\nnonsense\\n' > x.env; touch x.xml");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_ARTIFACT_FAILURE, 0);
    assert_string_equal(f->outcome.detail, "dotenv report x.env, line 2: this is not NAME=VALUE");
    assert_in_log(f, "ERROR: dotenv report x.env, line 2: this is not NAME=VALUE");
    assert_int_equal(f->outcome.n_dotenv, 0);
    assert_non_null(find_artifact(f, "junit"));
    fixture_new_job(f);
    f->spec.artifacts = NULL;
    add_report(f, "dotenv", "x.env");
    SCRIPT(f, "echo A=$(head -c 65530 /dev/zero | tr '\\0' x) > x.env");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_ARTIFACT_FAILURE, 0);
    assert_in_log(f, "the dotenv reports of a job may have 64 KiB together");
    fixture_new_job(f);
    f->spec.artifacts = NULL;
    add_report(f, "dotenv", "x.env");
    SCRIPT(f, "mkfifo x.env");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_ARTIFACT_FAILURE, 0);
}

/* Or a failed job would keep what only a good one may, and send it elsewhere. */
static void variables_cannot_pose_as_the_worker(void **state)
{
    struct fixture *f = *state;
    add_report(f, "junit", "u.xml");
    f->spec.artifacts->paths = arena_alloc(&f->arena, sizeof(ProtobufCBinaryData));
    f->spec.artifacts->paths[0] = text(f, "out");
    f->spec.artifacts->n_paths = 1;
    spec_variable(f, "DAVIT_JOB_STATUS", "success");
    spec_variable(f, "DAVIT_API_URL", "http://127.0.0.1:1");
    SCRIPT(f, "touch out u.xml", "exit 3");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 3);
    assert_int_equal(f->outcome.n_artifacts, 1);
    assert_non_null(find_artifact(f, "junit"));
}

static void what_the_outcome_says_shows_no_secret(void **state)
{
    struct fixture *f = *state;
    Pb__Variable *v = spec_variable_bytes(f, "KEY", STR("0123$PART-89abcdef"));
    v->masked = true;
    spec_variable(f, "PART", "4567");
    add_report(f, "dotenv", "$KEY.env");
    SCRIPT(f, "echo wrong > $KEY.env");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_ARTIFACT_FAILURE, 0);
    assert_string_equal(f->outcome.detail,
                        "dotenv report [MASKED].env, line 1: this is not NAME=VALUE");
}

/* The other artifacts of the job must not get lost with it. */
static void a_dotenv_report_may_have_any_name(void **state)
{
    struct fixture *f = *state;
    add_report(f, "junit", "u.xml");
    add_report(f, "dotenv", "*.env");
    SCRIPT(f, "touch u.xml; echo wrong > \"$(printf 'n\\377.env')\"");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_ARTIFACT_FAILURE, 0);
    assert_string_equal(f->outcome.detail, "dotenv report n?.env, line 1: this is not NAME=VALUE");
    assert_non_null(find_artifact(f, "junit"));
}

static void coverage_is_read_from_the_log(void **state)
{
    struct fixture *f = *state;
    f->spec.coverage = text(f, "/^TOTAL.*\\s(\\d+\\.?\\d*)%$/");
    SCRIPT(f, "echo 'TOTAL 1 10%'; printf '\\033[1mTOTAL 7 \\033[32m87.5%%\\033[0m\\n'; echo end");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_true(f->outcome.has_coverage);
    assert_int_equal(f->outcome.coverage_hundredths, 8750);
    assert_in_log(f, "Coverage: 87.50 %");
    fixture_new_job(f);
    f->spec.coverage = text(f, "/nothing \\d+/");
    SCRIPT(f, "echo 12; exit 1");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 1);
    assert_false(f->outcome.has_coverage);
}

/* More than the log's head keeps: the line stands in the ring behind it, which has gone round. */
static void coverage_is_found_at_the_end_of_a_log_that_is_too_long(void **state)
{
    struct fixture *f = *state;
    f->spec.coverage = text(f, "/coverage: \\d+/");
    SCRIPT(
        f,
        "echo coverage: 1; yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa | head -c 70000000 || true",
        "echo coverage: 77; seq 1000");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_true(f->outcome.has_coverage);
    assert_int_equal(f->outcome.coverage_hundredths, 7700);
    assert_true(f->status.elided_bytes > 0);
}

static Pb__ReleaseSpec *use_release(struct fixture *f)
{
    Pb__ReleaseSpec *release = arena_alloc(&f->arena, sizeof(*release));
    pb__release_spec__init(release);
    f->spec.release = release;
    return release;
}

static void a_release_is_expanded_with_the_jobs_last_variables(void **state)
{
    struct fixture *f = *state;
    Pb__ReleaseLink link = PB__RELEASE_LINK__INIT;
    Pb__ReleaseLink *links[] = {&link};
    ProtobufCBinaryData milestone = text(f, "m$NUMBER");
    Pb__ReleaseSpec *release = use_release(f);
    release->tag_name = text(f, "v$VERSION");
    release->name = text(f, "Version $VERSION");
    release->description = text(f, "notes/$NUMBER.md");
    release->milestones = &milestone;
    release->n_milestones = 1;
    link.name = text(f, "n$NUMBER");
    link.url = text(f, "https://x.example/$VERSION");
    release->links = links;
    release->n_links = 1;
    add_report(f, "dotenv", "x.env");
    spec_variable(f, "VERSION", "own");
    spec_variable(f, "NUMBER", "5");
    SCRIPT(f, "echo VERSION=1.2 > x.env; mkdir notes; printf '# New\\n$VERSION\\n' > notes/5.md");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    const Pb__ReleaseSpec *made = f->outcome.release;
    assert_non_null(made);
    assert_true(str_eqz(pb_str(made->tag_name), "v1.2"));
    assert_true(str_eqz(pb_str(made->name), "Version 1.2"));
    assert_true(str_eqz(pb_str(made->description), "# New\n$VERSION\n"));
    assert_true(str_eqz(pb_str(made->milestones[0]), "m5"));
    assert_true(str_eqz(pb_str(made->links[0]->name), "n5"));
    assert_true(str_eqz(pb_str(made->links[0]->url), "https://x.example/1.2"));
}

static void a_description_that_is_no_file_is_the_text(void **state)
{
    static const char *const descriptions[] = {"Just words.", "/etc/passwd", "../../../../secret",
                                               "link", "."};
    struct fixture *f = *state;
    run_command(f, "echo secret > secret");
    for (size_t i = 0; i < ARRAY_LEN(descriptions); i++) {
        fixture_new_job(f);
        use_release(f)->tag_name = text(f, "v1");
        f->spec.release->description = text(f, descriptions[i]);
        SCRIPT(f, "ln -s ../../../../secret link");
        run_job(f);
        assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
        assert_true(str_eqz(pb_str(f->outcome.release->description), descriptions[i]));
    }
}

static void a_release_without_a_tag_fails_the_job(void **state)
{
    struct fixture *f = *state;
    use_release(f)->tag_name = text(f, "$NOBODY");
    SCRIPT(f, "true");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 0);
    assert_string_equal(f->outcome.detail,
                        "release: tag_name is empty once its variables are expanded");
    assert_null(f->outcome.release);
}

static void a_failed_job_releases_and_publishes_nothing(void **state)
{
    struct fixture *f = *state;
    Pb__PagesSpec pages = PB__PAGES_SPEC__INIT;
    use_release(f)->tag_name = text(f, "v1");
    f->spec.pages = &pages;
    SCRIPT(f, "mkdir public; touch public/index.html; exit 1");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SCRIPT_FAILURE, 1);
    assert_null(f->outcome.release);
    assert_null(f->outcome.pages);
    assert_int_equal(f->outcome.n_artifacts, 0);
}

static void an_environments_url_may_come_from_the_script(void **state)
{
    struct fixture *f = *state;
    add_report(f, "dotenv", "x.env");
    f->spec.environment_url = text(f, "https://$HOST/$CI_RUNNER_ID");
    SCRIPT(f, "echo HOST=h.example > x.env");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_true(str_eqz(pb_str(f->outcome.environment_url), "https://h.example/7"));
}

static void pages_are_what_is_in_the_folder(void **state)
{
    struct fixture *f = *state;
    Pb__PagesSpec pages = PB__PAGES_SPEC__INIT;
    pages.publish = text(f, "dist/$SITE/");
    pages.path_prefix = text(f, "MR $SITE");
    pages.expire_in_ms = 9000;
    f->spec.pages = &pages;
    spec_variable(f, "SITE", "docs");
    SCRIPT(f, "mkdir -p dist/docs/css; echo hi > dist/docs/index.html; touch dist/docs/css/a.css",
           "touch dist/no");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_holds(f, find_artifact(f, "pages"), "css/ css/a.css index.html");
    assert_int_equal(find_artifact(f, "pages")->file_count, 3);
    assert_non_null(f->outcome.pages);
    assert_true(str_eqz(pb_str(f->outcome.pages->path_prefix), "mr-docs"));
    assert_int_equal(f->outcome.pages->expire_in_ms, 9000);
}

static void pages_without_their_folder_fail_the_job(void **state)
{
    static const char *const scripts[] = {"true", "touch public", "ln -s /etc public"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        Pb__PagesSpec pages = PB__PAGES_SPEC__INIT;
        fixture_new_job(f);
        f->spec.pages = &pages;
        SCRIPT(f, scripts[i]);
        run_job(f);
        assert_outcome(f, JOB_FAILED, REASON_ARTIFACT_FAILURE, 0);
        assert_string_equal(f->outcome.detail, "pages: there is no folder public to publish");
        assert_null(f->outcome.pages);
    }
}

/* Killed in any step behind the script, nothing half is told, and nothing is left behind. */
static void a_shim_that_is_killed_behind_the_script_leaves_no_outcome(void **state)
{
    struct fixture *f = *state;
    pid_t pid;
    use_release(f)->tag_name = text(f, "v1");
    spec_after_script(f, "touch ../../../../behind; sleep 60");
    SCRIPT(f, "true");
    assert_int_equal(run_prepare(f), 0);
    assert_int_equal(executor_shell.start(&f->cx, &pid), 0);
    wait_for_file(fixture_path(f, "behind"));
    run_command(f, arena_printf(&f->arena, "kill -9 %d", (int)pid));
    while (executor_shell.alive(&f->cx)) {
        os_sleep_ms(2);
    }
    assert_int_equal(shim_status_read(f->cx.job_dir, &f->status), -E_NOT_FOUND);
    while (!executor_shell.cleanup(&f->cx)) {
        os_sleep_ms(2);
    }
    assert_false(os_exists(fixture_path(f, "job/result.part")));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(reports_are_artifacts_of_their_own_and_tell_of_failures_too),
        TEST(an_archive_carries_what_its_spec_says_of_it),
        TEST(dotenv_reports_give_variables),
        TEST(a_malformed_dotenv_report_fails_the_job_by_its_line),
        TEST(what_the_outcome_says_shows_no_secret),
        TEST(a_dotenv_report_may_have_any_name),
        TEST(variables_cannot_pose_as_the_worker),
        TEST(coverage_is_read_from_the_log),
        TEST(coverage_is_found_at_the_end_of_a_log_that_is_too_long),
        TEST(a_release_is_expanded_with_the_jobs_last_variables),
        TEST(a_description_that_is_no_file_is_the_text),
        TEST(a_release_without_a_tag_fails_the_job),
        TEST(a_failed_job_releases_and_publishes_nothing),
        TEST(an_environments_url_may_come_from_the_script),
        TEST(pages_are_what_is_in_the_folder),
        TEST(pages_without_their_folder_fail_the_job),
        TEST(a_shim_that_is_killed_behind_the_script_leaves_no_outcome),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
