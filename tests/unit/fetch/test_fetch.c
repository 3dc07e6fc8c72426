/* Repositories are real, in a folder of the test; the web server is one on loopback. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"
#include "pipeline/fetch/inside.h"
#include "tests/unit/common/server.h"

struct fixture {
    char *root;
    char *cache;
    char *repo;
    struct fetcher *fetcher;
    struct fetch_project project;
    struct fetch_config config;
};

/* Runs a shell script in the folder. */
static void shell(const char *folder, const char *script)
{
    const char *const argv[] = {"sh", "-ec", script, NULL};
    struct os_spawn spawn = {
        .argv = argv, .cwd = folder, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    int status = -1;
    assert_int_equal(os_run(&spawn, 0, NULL, &status), 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define GIT_ME "git -c user.name=a -c user.email=a@example.org"

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    f->root = os_make_temp_dir("davit-fetch");
    f->cache = os_path_join(f->root, "cache");
    f->repo = os_path_join(f->root, "lib");
    assert_int_equal(os_mkdir_p(f->repo, 0700), 0);
    shell(f->repo,
          "git init -q -b main . && mkdir -p templates/deep ci && echo 'one: 1' > ci/a.yml && "
          "echo 'x: 1' > templates/flat.yml && echo 'y: 1' > templates/deep/template.yml && "
          "git add . && " GIT_ME
          " commit -qm one && git tag 1.0.0 && echo 'one: 2' > ci/a.yml && " GIT_ME
          " commit -qam two && " GIT_ME " tag -am two v1.2.0 && echo 'one: 3' > ci/a.yml && " GIT_ME
          " commit -qam three && git tag 1.10.0 && git tag 2.0.0-rc1 && "
          "git checkout -q -b side && echo 'one: 4' > ci/a.yml && " GIT_ME
          " commit -qam four && git checkout -q main");
    f->project = (struct fetch_project){.name = STR("group/lib"), .from = f->repo};
    f->config = (struct fetch_config){
        .cache = f->cache, .projects = &f->project, .project_count = 1, .timeout_ms = 20000};
    f->fetcher = fetch_new(&f->config);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    fetch_free(f->fetcher);
    os_remove_tree(f->root);
    free(f->repo);
    free(f->cache);
    free(f->root);
    free(f);
    return 0;
}

static int get(struct fixture *f, struct include_ref ref, struct included *ret, const char **why)
{
    *ret = (struct included){0};
    *why = NULL;
    return fetch_include(f->fetcher, &ref, ret, why);
}

#define PROJECT(...) ((struct include_ref){.kind = INCLUDE_PROJECT, __VA_ARGS__})

static void expect_text(struct fixture *f, struct include_ref ref, const char *text)
{
    struct included got;
    const char *why;
    int r = get(f, ref, &got, &why);
    if (r < 0) {
        print_message("%s: %s\n", err_text(r), why ? why : "");
    }
    assert_int_equal(r, 0);
    assert_true(str_eqz(got.text, text));
    assert_int_equal(got.sha.n, 40);
}

static void a_file_comes_from_a_branch_a_tag_or_a_commit(void **state)
{
    struct fixture *f = *state;
    struct included got;
    const char *why;
    struct str name = STR("group/lib");
    expect_text(f, PROJECT(.project = name, .name = STR("ci/a.yml")), "one: 3\n");
    expect_text(f, PROJECT(.project = name, .name = STR("ci/a.yml"), .ref = STR("side")),
                "one: 4\n");
    expect_text(f, PROJECT(.project = name, .name = STR("ci/a.yml"), .ref = STR("v1.2.0")),
                "one: 2\n");
    assert_int_equal(
        get(f, PROJECT(.project = name, .name = STR("ci/a.yml"), .ref = STR("1.0.0")), &got, &why),
        0);
    expect_text(f, PROJECT(.project = name, .name = STR("ci/a.yml"), .ref = got.sha), "one: 1\n");
}

static void what_is_not_there_is_said(void **state)
{
    struct fixture *f = *state;
    struct included got;
    const char *why;
    struct str name = STR("group/lib");
    assert_int_equal(
        get(f, PROJECT(.project = name, .name = STR("a.yml"), .ref = STR("none")), &got, &why),
        -E_NOT_FOUND);
    assert_non_null(strstr(why, "no branch, tag or commit `none`"));
    assert_int_equal(get(f, PROJECT(.project = name, .name = STR("b.yml")), &got, &why),
                     -E_NOT_FOUND);
    assert_non_null(strstr(why, "no file b.yml"));
    assert_int_equal(get(f, PROJECT(.project = name, .name = STR("ci")), &got, &why), -E_NOT_FOUND);
    assert_int_equal(get(f,
                         PROJECT(.project = name, .name = STR("a"), .ref = STR("--upload-pack=x")),
                         &got, &why),
                     -E_NOT_FOUND);
    assert_int_equal(
        get(f, PROJECT(.project = STR("group/other"), .name = STR("a.yml")), &got, &why),
        -E_UNSUPPORTED);
    assert_non_null(strstr(why, "--include-project group/other="));
}

static void a_component_stands_in_either_of_two_places(void **state)
{
    struct fixture *f = *state;
    struct included got;
    const char *why;
    struct include_ref ref = {.kind = INCLUDE_COMPONENT, .name = STR("/group/lib/flat@1.0.0")};
    assert_int_equal(get(f, ref, &got, &why), 0);
    assert_true(str_eqz(got.text, "x: 1\n"));
    assert_true(str_eqz(got.version, "1.0.0"));
    ref.name = STR("/group/lib/deep@~latest");
    assert_int_equal(get(f, ref, &got, &why), 0);
    assert_true(str_eqz(got.text, "y: 1\n"));
    assert_true(str_eqz(got.version, "1.10.0"));
    ref.name = STR("/group/lib/deep@1");
    assert_int_equal(get(f, ref, &got, &why), 0);
    assert_true(str_eqz(got.version, "1.10.0"));
    ref.name = STR("/group/lib/deep@3");
    assert_int_equal(get(f, ref, &got, &why), -E_NOT_FOUND);
    ref.name = STR("/group/lib/none@1.0.0");
    assert_int_equal(get(f, ref, &got, &why), -E_NOT_FOUND);
}

static void a_commit_in_the_cache_needs_no_repository(void **state)
{
    struct fixture *f = *state;
    struct included got;
    const char *why;
    struct str name = STR("group/lib");
    assert_int_equal(get(f, PROJECT(.project = name, .name = STR("ci/a.yml")), &got, &why), 0);
    struct include_ref ref = PROJECT(.project = name, .name = STR("ci/a.yml"));
    char sha[64];
    snprintf(sha, sizeof(sha), STR_FMT, STR_ARG(got.sha));
    /* What a branch came to stays so for this fetcher; another one asks again. */
    shell(f->repo, "echo 'one: 5' > ci/a.yml && " GIT_ME " commit -qam five");
    expect_text(f, ref, "one: 3\n");
    fetch_free(f->fetcher);
    f->fetcher = fetch_new(&f->config);
    expect_text(f, ref, "one: 5\n");
    char *gone = os_path_join(f->root, "gone");
    assert_int_equal(rename(f->repo, gone), 0);
    fetch_free(f->fetcher);
    f->fetcher = fetch_new(&f->config);
    ref.ref = str_from(sha);
    expect_text(f, ref, "one: 3\n");
    ref.ref = STR("main");
    assert_int_equal(get(f, ref, &got, &why), -E_UNREACHABLE);
    free(gone);
}

static void a_cache_that_a_killed_git_left_locked_is_made_anew(void **state)
{
    struct fixture *f = *state;
    struct include_ref ref = PROJECT(.project = STR("group/lib"), .name = STR("ci/a.yml"));
    expect_text(f, ref, "one: 3\n");
    shell(f->cache, "for d in git-*/; do touch $d/shallow.lock; done");
    shell(f->repo, "echo 'one: 5' > ci/a.yml && " GIT_ME " commit -qam five");
    fetch_free(f->fetcher);
    f->fetcher = fetch_new(&f->config);
    expect_text(f, ref, "one: 5\n");
    shell(f->cache, "rm git-*/HEAD; rm -r git-*/refs");
    fetch_free(f->fetcher);
    f->fetcher = fetch_new(&f->config);
    expect_text(f, ref, "one: 5\n");
}

static void offline_takes_what_the_cache_has(void **state)
{
    struct fixture *f = *state;
    struct included got;
    const char *why;
    struct include_ref ref = PROJECT(.project = STR("group/lib"), .name = STR("ci/a.yml"));
    f->project.from = "https://127.0.0.1:1/group/lib.git";
    fetch_free(f->fetcher);
    f->config.offline = true;
    f->fetcher = fetch_new(&f->config);
    assert_int_equal(get(f, ref, &got, &why), -E_UNSUPPORTED);
    ref = (struct include_ref){.kind = INCLUDE_REMOTE, .name = STR("http://127.0.0.1:1/a.yml")};
    assert_int_equal(get(f, ref, &got, &why), -E_UNSUPPORTED);
}

static void projects_are_beside_the_own_one(void **state)
{
    static const struct {
        const char *origin;
        const char *project;
        const char *url; /* NULL: unknown */
    } cases[] = {
        {"https://git.example.org/a/b.git", "c/d", "https://git.example.org/c/d.git"},
        {"https://u@git.example.org:8443/a/b", "c/d", "https://u@git.example.org:8443/c/d.git"},
        {"ssh://git@git.example.org/a/b", "c/d", "ssh://git@git.example.org/c/d.git"},
        {"git@git.example.org:a/b.git", "c/d/e", "git@git.example.org:c/d/e.git"},
        {"git@git.example.org:a/b.git", "git.example.org/c/d", "git@git.example.org:c/d.git"},
        {"https://git.example.org/a/b.git", "example.net/c/d", NULL},
        {"https://git.example.org/a/b.git", "-c/d", NULL},
        {"/srv/git/a", "c/d", NULL},
        {"../a:b/c", "c/d", NULL},
        {"file:///srv/git/a", "c/d", NULL},
        {NULL, "c/d", NULL},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *url = NULL;
        const char *why = NULL;
        f->fetcher->config.origin = cases[i].origin;
        int r = address_of(f->fetcher, str_from(cases[i].project), &url, &why);
        assert_int_equal(r, cases[i].url ? 0 : -E_UNSUPPORTED);
        if (cases[i].url) {
            assert_string_equal(url, cases[i].url);
        }
    }
}

static void the_highest_version_is_no_pre_release(void **state)
{
    static const char tags[] =
        "aa\trefs/tags/1.2.0\nbb\trefs/tags/v1.10.0\ncc\trefs/tags/2.0.0-rc1\n"
        "dd\trefs/tags/1.9\nee\trefs/tags/0.9.9\n";
    struct str tag;
    (void)state;
    assert_true(semver_pick(STR(tags), STR("~latest"), &tag) && str_eqz(tag, "v1.10.0"));
    assert_true(semver_pick(STR(tags), STR("1.2"), &tag) && str_eqz(tag, "1.2.0"));
    assert_true(semver_pick(STR(tags), STR("0"), &tag) && str_eqz(tag, "0.9.9"));
    assert_false(semver_pick(STR(tags), STR("2"), &tag));
    assert_true(semver_is_partial(STR("1.2")));
    assert_false(semver_is_partial(STR("1.2.3")));
    assert_false(semver_is_partial(STR("main")));
}

static void a_template_stays_in_its_folder(void **state)
{
    struct fixture *f = *state;
    struct included got;
    const char *why;
    struct include_ref ref = {.kind = INCLUDE_TEMPLATE, .name = STR("flat.yml")};
    assert_int_equal(get(f, ref, &got, &why), -E_UNSUPPORTED);
    f->fetcher->config.templates = arena_printf(&f->fetcher->arena, "%s/templates", f->repo);
    assert_int_equal(get(f, ref, &got, &why), 0);
    assert_true(str_eqz(got.text, "x: 1\n"));
    ref.name = STR("deep/template.yml");
    assert_int_equal(get(f, ref, &got, &why), 0);
    ref.name = STR("../ci/a.yml");
    assert_int_equal(get(f, ref, &got, &why), -E_NOT_FOUND);
    ref.name = STR("none.yml");
    assert_int_equal(get(f, ref, &got, &why), -E_NOT_FOUND);
}

/* The answer to a GET of a remote file. */
static int get_remote(struct fixture *f, const char *answer, struct included *got, const char **why)
{
    const char *const pieces[] = {answer};
    struct server s = {.pieces = pieces, .piece_count = 1};
    server_start(&s);
    struct include_ref ref = {.kind = INCLUDE_REMOTE, .name = str_from(s.url)};
    int r = get(f, ref, got, why);
    server_stop(&s);
    server_release(&s);
    return r;
}

static void a_remote_file_is_the_body_of_a_good_answer(void **state)
{
    struct fixture *f = *state;
    struct included got;
    const char *why;
    assert_int_equal(
        get_remote(f, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na: 1\n", &got, &why), 0);
    assert_true(str_eqz(got.text, "a: 1\n"));
    assert_int_equal(get_remote(f, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", &got, &why),
                     -E_NOT_FOUND);
    assert_int_equal(get_remote(f, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", &got, &why),
                     -E_UNREACHABLE);
    assert_string_equal(why, "the server answers 500");
}

static void a_redirect_leads_to_web_servers_only(void **state)
{
    struct fixture *f = *state;
    struct included got;
    const char *why;
    assert_int_equal(get_remote(f,
                                "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n"
                                "Content-Length: 0\r\nConnection: close\r\n\r\n",
                                &got, &why),
                     -E_INVALID);
    /* It leads to itself: three times is enough. */
    assert_int_equal(get_remote(f,
                                "HTTP/1.1 302 Found\r\nLocation: /path?q=1\r\n"
                                "Content-Length: 0\r\nConnection: close\r\n\r\n",
                                &got, &why),
                     -E_UNREACHABLE);
}

static void private_addresses_can_be_refused(void **state)
{
    struct fixture *f = *state;
    struct included got;
    const char *why;
    f->fetcher->config.public_only = true;
    assert_int_equal(
        get_remote(f, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\na: 1\n", &got, &why),
        -E_FORBIDDEN);
    assert_non_null(strstr(why, "no public address"));
    struct include_ref ref = {.kind = INCLUDE_REMOTE, .name = STR("http://localhost:1/a.yml")};
    assert_int_equal(get(f, ref, &got, &why), -E_FORBIDDEN);
}

static void a_silent_server_takes_no_longer_than_the_deadline(void **state)
{
    struct fixture *f = *state;
    struct included got;
    const char *why;
    const char *const pieces[] = {"HTTP/1.1 200 OK\r\n"};
    struct server s = {.pieces = pieces, .piece_count = 1, .hangs = true};
    f->fetcher->config.timeout_ms = 100;
    server_start(&s);
    struct include_ref ref = {.kind = INCLUDE_REMOTE, .name = str_from(s.url)};
    assert_int_equal(get(f, ref, &got, &why), -E_TIMEOUT);
    server_stop(&s);
    server_release(&s);
}

static void the_map_is_read_as_people_write_it(void **state)
{
    struct fetch_project p;
    (void)state;
    assert_true(fetch_project_parse("group/lib=../lib", &p));
    assert_true(str_eqz(p.name, "group/lib"));
    assert_string_equal(p.from, "../lib");
    assert_false(fetch_project_parse("group/lib", &p));
    assert_false(fetch_project_parse("=x", &p));
    assert_false(fetch_project_parse("a/b=", &p));
    assert_false(fetch_project_parse("a/b=--upload-pack=x", &p));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_file_comes_from_a_branch_a_tag_or_a_commit),
        TEST(what_is_not_there_is_said),
        TEST(a_component_stands_in_either_of_two_places),
        TEST(a_commit_in_the_cache_needs_no_repository),
        TEST(a_cache_that_a_killed_git_left_locked_is_made_anew),
        TEST(offline_takes_what_the_cache_has),
        TEST(projects_are_beside_the_own_one),
        cmocka_unit_test(the_highest_version_is_no_pre_release),
        TEST(a_template_stays_in_its_folder),
        TEST(a_remote_file_is_the_body_of_a_good_answer),
        TEST(a_redirect_leads_to_web_servers_only),
        TEST(private_addresses_can_be_refused),
        TEST(a_silent_server_takes_no_longer_than_the_deadline),
        cmocka_unit_test(the_map_is_read_as_people_write_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
