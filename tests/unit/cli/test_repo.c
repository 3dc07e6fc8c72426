/* A working tree and what git knows of it; the repositories are real. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "cli/repo.h"
#include "common/os.h"

struct fixture {
    char *dir;
    struct cli cli;
    struct repo repo;
};

static void shell(const char *folder, const char *script)
{
    const char *const argv[] = {"sh", "-ec", script, NULL};
    struct os_spawn spawn = {
        .argv = argv, .cwd = folder, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    int status = -1;
    assert_int_equal(os_run(&spawn, 0, NULL, &status), 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define COMMIT "git -c user.name=a -c user.email=a@example.org commit -q"

/* main went on after the branch was made; the branch has one commit, and work that is in none. */
static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    f->dir = os_make_temp_dir("davit-repo");
    f->cli = (struct cli){.program = "davit", .command = "test"};
    shell(f->dir, "git init -q -b main . && touch a b c && git add . && " COMMIT "m one && "
                  "git checkout -q -b topic && echo 1 > a && " COMMIT "am two && "
                  "git checkout -q main && echo 1 > b && " COMMIT "am three && git tag v1 && "
                  "git checkout -q topic && echo 2 > c && touch new");
    assert_int_equal(repo_open(&f->cli, f->dir, &f->repo), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    repo_release(&f->repo);
    os_remove_tree(f->dir);
    free(f->dir);
    free(f);
    return 0;
}

static void what_differs_from_a_ref_counts_from_where_they_parted(void **state)
{
    struct fixture *f = *state;
    static const char *const want[] = {"a", "c", "new"};
    static const char *const refs[] = {"main", "v1", "refs/heads/main"};
    for (size_t i = 0; i < ARRAY_LEN(refs); i++) {
        struct str *paths = NULL;
        size_t count = 0;
        assert_true(repo_compare(&f->repo, refs[i], &paths, &count));
        assert_int_equal(count, ARRAY_LEN(want));
        for (size_t k = 0; k < count; k++) {
            assert_true(str_eqz(paths[k], want[k]));
        }
    }
}

static void the_branch_of_the_server_is_meant_before_the_own_one(void **state)
{
    struct fixture *f = *state;
    struct str *paths = NULL;
    size_t count = 0;
    shell(f->dir, "git update-ref refs/remotes/origin/main topic");
    assert_true(repo_compare(&f->repo, "main", &paths, &count));
    assert_int_equal(count, 2); /* c and new */
}

static void a_ref_that_is_not_there_compares_with_nothing(void **state)
{
    struct fixture *f = *state;
    struct str *paths = NULL;
    size_t count = 0;
    assert_false(repo_compare(&f->repo, "none", &paths, &count));
    assert_false(repo_compare(&f->repo, "--all", &paths, &count));
    assert_false(repo_compare(&f->repo, "", &paths, &count));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_differs_from_a_ref_counts_from_where_they_parted),
        TEST(the_branch_of_the_server_is_meant_before_the_own_one),
        TEST(a_ref_that_is_not_there_compares_with_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
