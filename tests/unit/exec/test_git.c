/* Sources from git, from local repositories and over plain HTTP. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/os.h"
#include "tests/unit/exec/server.h"

static Pb__GitSource git;

/* A repository with 30 commits on main, commit N writing N into `file`; a tag and a side branch. */
static int setup(void **state)
{
    fixture_setup(state);
    ((struct fixture *)*state)->cx.local_git = true;
    struct fixture *f = *state;
    setenv("GIT_CONFIG_GLOBAL", "/dev/null", 1);
    run_command(f,
                "git init -q -b main repo && cd repo && git config user.email a@b && "
                "git config user.name A && { for i in $(seq 30); do "
                "printf 'commit refs/heads/main\\ncommitter A <a@b> %d +0000\\ndata 1\\nc\\n' $i; "
                "printf 'M 644 inline file\\ndata <<E\\n%d\\nE\\n' $i; done; } | "
                "git fast-import --quiet && git checkout -q -f main && git tag v1 HEAD~5 && "
                "git checkout -q -b side HEAD~3 && echo side > file && git commit -qam side && "
                "git checkout -q main");
    return 0;
}

static int teardown(void **state)
{
    unsetenv("GIT_CONFIG_GLOBAL");
    return fixture_teardown(state);
}

static void use_commit(struct fixture *f, const char *revision, const char *ref)
{
    char *command = arena_printf(&f->arena, "git -C repo rev-parse '%s^{commit}'", revision);
    pb__git_source__init(&git);
    git.url = pb_bytes(&f->arena, str_from(arena_printf(&f->arena, "file://%s/repo", f->root)));
    git.sha = pb_bytes(&f->arena, str_from(run_command(f, command)));
    git.ref = pb_bytes(&f->arena, str_from(ref));
    f->source.from_case = PB__SOURCE__FROM_GIT;
    f->source.git = &git;
    spec_variable(f, "GET_SOURCES_ATTEMPTS", "1");
}

static void next_job(struct fixture *f, const char *revision, const char *ref)
{
    fixture_new_job(f);
    use_commit(f, revision, ref);
}

static void assert_runs(struct fixture *f, const char *in_log)
{
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, in_log);
}

static void a_commit_is_cloned_with_twenty_commits(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "main", "main");
    SCRIPT(f, "git rev-list --count HEAD", "git rev-parse origin/main HEAD | uniq | wc -l",
           "git status --porcelain", "test $CI_REPOSITORY_URL = $(git remote get-url origin)");
    assert_runs(f, "\n20\n");
    assert_in_log(f, "\n1\n");
    assert_in_log(f, "Created a fresh repository.\nFetching changes at ");
    assert_in_log(f, " with depth 20...\nChecking out ");
    assert_in_log(f, " as detached HEAD (ref is main)...\n");
}

static void the_depth_is_as_asked_for(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "main", "main");
    spec_variable(f, "GIT_DEPTH", "3");
    SCRIPT(f, "git rev-list --count HEAD");
    assert_runs(f, "\n3\n");
    next_job(f, "main", "main");
    spec_variable(f, "GIT_DEPTH", "0");
    SCRIPT(f, "git rev-list --count HEAD", "git describe --tags", "git rev-parse origin/side");
    assert_runs(f, "\n30\n");
    assert_in_log(f, "\nv1-5-g");
}

static void a_commit_behind_the_tip_is_found(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "main~25", "main");
    SCRIPT(f, "cat file", "git log --oneline | wc -l");
    assert_runs(f, "\n5\n");
}

static void a_commit_of_no_branch_is_found(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "side", "side");
    run_command(f, "git -C repo branch -qD side");
    SCRIPT(f, "cat file");
    assert_runs(f, "\nside\n");
}

static void a_tag_is_fetched_as_a_tag(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "v1", "v1");
    spec_variable(f, "CI_COMMIT_TAG", "v1");
    SCRIPT(f, "git describe --tags");
    assert_runs(f, "\nv1\n");
}

static void the_next_job_reuses_and_cleans_the_tree(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "main~1", "main");
    SCRIPT(f, "echo changed > file", "mkdir -p junk cache; touch junk/x cache/y",
           "git checkout -q -b mine",
           "echo 'exit 1' > .git/hooks/post-checkout || mkdir .git/hooks",
           "touch .git/index.lock .git/shallow.lock", "git config core.hooksPath /nowhere || true");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    next_job(f, "main", "main");
    spec_variable(f, "GIT_CLEAN_FLAGS", "-ffdx -e cache/");
    SCRIPT(f, "cat file", "ls", "git config core.hooksPath || echo no hooks");
    assert_runs(f, "\n30\n");
    assert_in_log(f, "Using the repository of the job before.\n");
    assert_in_log(f, "\ncache\nfile\n");
    assert_in_log(f, "\nno hooks\n");
}

static void a_job_cannot_make_the_git_of_the_next_one_run_its_programs(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "main~1", "main");
    SCRIPT(f, "mkdir -p .git/evil/hooks && cp -r .git/objects .git/refs .git/evil",
           "git config -f .git/evil/config core.repositoryformatversion 0",
           "git config -f .git/evil/config core.fsmonitor 'echo evil monitor >&2; false'",
           "printf '#!/bin/sh\necho evil hook\n' > .git/evil/hooks/post-checkout",
           "chmod +x .git/evil/hooks/post-checkout", "echo evil > .git/commondir");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    next_job(f, "main", "main");
    SCRIPT(f, "cat file");
    assert_runs(f, "\n30\n");
    assert_not_in_log(f, "evil");
}

/* By what a job put in the place of git's own files: `victim` is of somebody else, `out` too. */
static void a_job_cannot_make_the_git_of_the_next_one_write_elsewhere(void **state)
{
    static const char *const traps[] = {
        "ln -sf $ROOT/victim .git/FETCH_HEAD",
        "ln -sf $ROOT/victim .git/logs/HEAD",
        "ln -sf $ROOT/victim .git/index",
        "ln -sf $ROOT/victim .git/shallow",
        "ln -sf $ROOT/victim .git/packed-refs; git pack-refs --all || true",
        "rm -rf .git/logs; ln -s $ROOT/out .git/logs",
        "rm -rf .git/refs/davit; ln -s $ROOT/out .git/refs/davit",
        "rm -rf .git/refs/remotes; ln -s $ROOT/out .git/refs/remotes",
        "rm -rf .git/objects/pack; ln -s $ROOT/out .git/objects/pack",
        "rm -f .git/FETCH_HEAD; mkfifo .git/FETCH_HEAD",
    };
    struct fixture *f = *state;
    run_command(f, "mkdir out");
    for (size_t i = 0; i < ARRAY_LEN(traps); i++) {
        next_job(f, "main~1", "main");
        SCRIPT(f, traps[i]);
        spec_variable(f, "ROOT", f->root);
        run_job(f);
        run_command(f, "rm -f victim; echo mine > victim; touch -d @0 victim");
        next_job(f, "main", "main");
        f->spec.timeout_ms = 20000;
        SCRIPT(f, "cat file");
        assert_runs(f, "\n30\n");
        assert_string_equal(run_command(f, "cat victim; stat -c %Y victim; ls -A out"), "mine\n0");
    }
}

static void files_that_git_was_told_to_overlook_are_as_committed(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "main", "main");
    SCRIPT(f, "echo mine > file", "git update-index --skip-worktree file");
    run_job(f);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    next_job(f, "main", "main");
    SCRIPT(f, "cat file");
    assert_runs(f, "\n30\n");
    assert_in_log(f, "Using the repository of the job before.\n");
}

static void strategy_clone_begins_anew(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "main", "main");
    SCRIPT(f, "touch .git/left");
    assert_runs(f, "Created a fresh repository.");
    next_job(f, "main", "main");
    spec_variable(f, "GIT_STRATEGY", "clone");
    SCRIPT(f, "ls .git");
    assert_runs(f, "Created a fresh repository.");
    assert_not_in_log(f, "\nleft\n");
}

static void strategy_none_and_checkout_false_leave_the_tree(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "main~1", "main");
    SCRIPT(f, "touch mine");
    run_job(f);
    next_job(f, "main", "main");
    spec_variable(f, "GIT_STRATEGY", "none");
    SCRIPT(f, "cat file; ls");
    assert_runs(f, "\n29\nfile\nmine\n");
    next_job(f, "main", "main");
    spec_variable(f, "GIT_CHECKOUT", "false");
    SCRIPT(f, "cat file; ls; git show HEAD@{0}:file; git show origin/main:file");
    assert_runs(f, "\n29\nfile\nmine\n29\n30\n");
    next_job(f, "main", "main");
    spec_variable(f, "GIT_STRATEGY", "empty");
    SCRIPT(f, "ls -A | wc -l");
    assert_runs(f, "\n0\n");
}

static void a_broken_repository_is_cloned_anew(void **state)
{
    static const char *const damage[] = {
        "rm -r .git/objects/??",
        "find .git/objects -type f | while read -r o; do chmod u+w $o; echo junk > $o; done",
        "echo junk > .git/HEAD",
        "rm -rf .git; echo file > .git",
        "echo junk > .git/index",
        "rm .git/shallow; echo 1234 > .git/shallow",
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(damage); i++) {
        next_job(f, "main~1", "main");
        spec_variable(f, "GIT_DEPTH", "5");
        SCRIPT(f, damage[i]);
        run_job(f);
        assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
        next_job(f, "main", "main");
        spec_variable(f, "GIT_DEPTH", "5");
        SCRIPT(f, "cat file", "git fsck");
        run_job(f);
        assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
        assert_in_log(f, "\n30\n");
    }
}

static void a_commit_that_is_not_there_is_a_source_failure(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "main", "main");
    git.sha = pb_bytes(&f->arena, STR("0123456789012345678901234567890123456789"));
    SCRIPT(f, "echo never");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SOURCE_FAILURE, 0);
    assert_in_log(f, "ERROR: commit 01234567 cannot be had from the repository");
}

static void a_missing_repository_is_tried_again_and_keeps_the_tree(void **state)
{
    struct fixture *f = *state;
    use_commit(f, "main", "main");
    SCRIPT(f, "true");
    run_job(f);
    run_command(f, "mv repo away");
    Pb__GitSource before = git;
    fixture_new_job(f);
    f->source.from_case = PB__SOURCE__FROM_GIT;
    f->source.git = &before;
    before.sha = pb_bytes(&f->arena, STR("0123456789012345678901234567890123456789"));
    spec_variable(f, "GET_SOURCES_ATTEMPTS", "2");
    SCRIPT(f, "echo never");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SOURCE_FAILURE, 0);
    assert_in_log(f, "attempt 1 of 2");
    assert_not_in_log(f, "cloning anew");
    assert_string_equal(run_command(f, "cat builds/3/group/project/file"), "30");
}

/* Neither as the source nor as a submodule of one: the repository is there, and would be good. */
static void repositories_of_this_machine_have_to_be_allowed(void **state)
{
    struct fixture *f = *state;
    f->cx.local_git = false;
    next_job(f, "main", "main");
    spec_variable(f, "DAVIT_LOCAL_GIT", "yes"); /* a job does not allow itself */
    SCRIPT(f, "echo never");
    run_job(f);
    assert_outcome(f, JOB_FAILED, REASON_SOURCE_FAILURE, 0);
    assert_in_log(f, "this worker reads no repositories of its own machine: file:///");
    assert_in_log(f, "--allow-local-git");
    f->cx.local_git = true;
    next_job(f, "main", "main");
    SCRIPT(f, "echo got it");
    assert_runs(f, "got it");
}

static void other_urls_are_refused(void **state)
{
    static const char *const bad[] = {"ext::sh -c touch% /tmp/x",
                                      "/etc",
                                      "--upload-pack=x",
                                      "-cprotocol.ext.allow=always",
                                      "ssh://h/r",
                                      "ssh://-oProxyCommand=touch/r",
                                      "h:r",
                                      "FILE:///r",
                                      "https://h/r\nhost=other",
                                      "http://h/r x"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        next_job(f, "main", "main");
        git.url = pb_bytes(&f->arena, str_from(bad[i]));
        SCRIPT(f, "echo never");
        run_job(f);
        assert_outcome(f, JOB_FAILED, REASON_SOURCE_FAILURE, 0);
        assert_in_log(f, "a git source needs a file://, http:// or https:// URL");
    }
}

/* `lib` is a submodule of `repo`, and `lib/in` one of it. */
static void add_submodules(struct fixture *f)
{
    run_command(f,
                "git init -q -b main inner && git -C inner -c user.name=A -c user.email=a@b commit "
                "-q --allow-empty -m i && "
                "git init -q -b main sub && cd sub && git config user.email a@b && "
                "git config user.name A && echo content > subfile && git add . && "
                "git -c protocol.file.allow=always submodule --quiet add ../inner in && "
                "git commit -qm s && cd ../repo && "
                "git -c protocol.file.allow=always submodule --quiet add ../sub lib && "
                "git commit -qm sub");
}

static void submodules_come_when_asked_for(void **state)
{
    struct fixture *f = *state;
    add_submodules(f);
    use_commit(f, "main", "main");
    SCRIPT(f, "ls lib | wc -l");
    assert_runs(f, "\n0\n");
    next_job(f, "main", "main");
    spec_variable(f, "GIT_SUBMODULE_STRATEGY", "normal");
    SCRIPT(f, "cat lib/subfile", "ls lib/in -A | wc -l",
           "echo dirty > lib/subfile; touch lib/junk");
    assert_runs(f, "\ncontent\n");
    assert_in_log(f, "Updating submodules...");
    assert_in_log(f, "\n0\n");
    next_job(f, "main", "main");
    spec_variable(f, "GIT_SUBMODULE_STRATEGY", "recursive");
    SCRIPT(f, "cat lib/subfile", "ls -A lib/in | wc -l", "ls lib");
    assert_runs(f, "\ncontent\n");
    assert_in_log(f, "\n1\n");
    assert_not_in_log(f, "junk\n");
}

/* A new commit of the submodule, so that the next job has to fetch and to check out. */
static void change_submodule(struct fixture *f, const char *content)
{
    run_command(f, arena_printf(&f->arena,
                                "cd inner && git -c user.name=A -c user.email=a@b commit -q "
                                "--allow-empty -m i && cd ../sub/in && git pull -q && cd .. && "
                                "echo %s > subfile && git commit -qam s && "
                                "cd ../repo/lib && git pull -q ../../sub main && cd .. && "
                                "git commit -qam sub",
                                content));
}

/* What a job may leave for the git of the next one. Each line touches `pwned` when it is run. */
static void nothing_left_in_a_submodule_is_run(void **state)
{
    static const char *const traps[] = {
        "for h in .git/modules/lib .git/modules/lib/modules/in; do mkdir -p $h/hooks; "
        "for n in post-checkout reference-transaction post-index-change; do "
        "cp $ROOT/trap $h/hooks/$n; done; done",
        "for m in .git/modules/lib .git/modules/lib/modules/in; do "
        "git config -f $m/config core.fsmonitor $ROOT/trap; "
        "git config -f $m/config core.hooksPath $ROOT/hooks; "
        "git config -f $m/config submodule.in.update '!'$ROOT/trap; "
        "git config -f $m/config remote.origin.uploadpack $ROOT/trap; done",
        "git init -q $ROOT/evil; mkdir -p $ROOT/evil/.git/hooks; "
        "cp $ROOT/trap $ROOT/evil/.git/hooks/post-checkout; "
        "echo $ROOT/evil/.git > .git/modules/lib/commondir",
        "rm -rf $ROOT/real; cp -r .git/modules/lib $ROOT/real; mkdir -p $ROOT/real/hooks; "
        "git config -f $ROOT/real/config --unset core.worktree || true; "
        "cp $ROOT/trap $ROOT/real/hooks/post-checkout; rm lib/.git; cp -r $ROOT/real lib/.git",
        "echo gitdir: $ROOT/real > lib/.git",
        "echo gitdir: ../.git/modules/../../../../../../real > lib/.git",
        "rm -rf $ROOT/linked; mv lib $ROOT/linked; rm $ROOT/linked/.git; "
        "cp -r $ROOT/real $ROOT/linked/.git; ln -s $ROOT/linked lib",
        "cp -r .git/modules/lib/modules/in $ROOT/deep; mkdir -p $ROOT/deep/hooks; "
        "git config -f $ROOT/deep/config --unset core.worktree || true; "
        "cp $ROOT/trap $ROOT/deep/hooks/post-checkout; rm lib/in/.git; cp -r $ROOT/deep "
        "lib/in/.git",
        "mv .git/modules $ROOT/moved; mkdir -p $ROOT/moved/lib/hooks; "
        "cp $ROOT/trap $ROOT/moved/lib/hooks/post-checkout; ln -s $ROOT/moved .git/modules",
        "mv .git/modules/lib $ROOT/moved2; mkdir -p $ROOT/moved2/hooks; "
        "cp $ROOT/trap $ROOT/moved2/hooks/post-checkout; ln -s $ROOT/moved2 .git/modules/lib",
    };
    struct fixture *f = *state;
    add_submodules(f);
    run_command(f, "printf '#!/bin/sh\\ntouch %s/pwned\\n' $PWD > trap; chmod 755 trap; "
                   "mkdir hooks; cp trap hooks/post-checkout");
    for (size_t i = 0; i < ARRAY_LEN(traps); i++) {
        const char *content = arena_printf(&f->arena, "content-%zu", i);
        next_job(f, "main", "main");
        spec_variable(f, "GIT_SUBMODULE_STRATEGY", "recursive");
        spec_variable(f, "ROOT", f->root);
        SCRIPT(f, "true", traps[i]);
        assert_runs(f, "");
        run_command(f, "rm -f pwned");
        change_submodule(f, content);
        next_job(f, "main", "main");
        spec_variable(f, "GIT_SUBMODULE_STRATEGY", "recursive");
        SCRIPT(f, "cat lib/subfile", "git -C lib/in rev-parse HEAD", "echo done");
        assert_runs(f, arena_printf(&f->arena, "\n%s\n", content));
        assert_in_log(f, "\ndone\n");
        if (os_exists(fixture_path(f, "pwned"))) {
            fail_msg("trap %zu was run: %s", i, f->log);
        }
    }
}

/* What is not suspicious stays, so that little has to be fetched again. */
static void submodules_are_fetched_and_not_cloned_again(void **state)
{
    struct fixture *f = *state;
    add_submodules(f);
    for (unsigned i = 0; i < 2; i++) {
        next_job(f, "main", "main");
        spec_variable(f, "GIT_SUBMODULE_STRATEGY", "recursive");
        SCRIPT(f,
               "stat -c %i .git/modules/lib/objects .git/modules/lib/modules/in/objects "
               "> ../../../../inodes.new",
               "cd ../../../..; test ! -e inodes || cmp inodes inodes.new", "mv inodes.new inodes");
        assert_runs(f, "");
        assert_not_in_log(f, "cloning anew");
        change_submodule(f, arena_printf(&f->arena, "c%u", i));
    }
}

static void plain_http_serves_a_repository(void **state)
{
    struct fixture *f = *state;
    run_command(f, "mkdir files && git clone -q --bare repo files/repo.git && "
                   "git -C files/repo.git update-server-info");
    struct server server = server_start(f, 0);
    use_commit(f, "main~2", "main");
    git.url = pb_bytes(
        &f->arena,
        str_from(arena_printf(&f->arena, "http://127.0.0.1:%d/files/repo.git", server.port)));
    SCRIPT(f, "cat file");
    run_job(f);
    server_stop(&server);
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\n28\n");
}

static void a_server_that_gives_no_commit_by_name_gives_its_branch(void **state)
{
    struct fixture *f = *state;
    run_command(f, "git config -f gitconfig protocol.version 0");
    setenv("GIT_CONFIG_SYSTEM", fixture_path(f, "gitconfig"), 1);
    use_commit(f, "main~10", "main");
    spec_variable(f, "GIT_CONFIG_SYSTEM", fixture_path(f, "gitconfig"));
    SCRIPT(f, "cat file");
    run_job(f);
    unsetenv("GIT_CONFIG_SYSTEM");
    assert_outcome(f, JOB_SUCCESS, REASON_NONE, 0);
    assert_in_log(f, "\n20\n");
}

static void a_repository_of_somebody_else_may_be_used(void **state)
{
    struct fixture *f = *state;
    if (run_command(f, "id -u")[0] != '0') {
        print_message("only root can give files away: skipped\n");
        skip();
    }
    use_commit(f, "main", "main");
    run_command(f, "chown -R 65534:65534 repo");
    SCRIPT(f, "cat file");
    assert_runs(f, "\n30\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_commit_is_cloned_with_twenty_commits),
        TEST(the_depth_is_as_asked_for),
        TEST(a_commit_behind_the_tip_is_found),
        TEST(a_commit_of_no_branch_is_found),
        TEST(a_tag_is_fetched_as_a_tag),
        TEST(the_next_job_reuses_and_cleans_the_tree),
        TEST(a_job_cannot_make_the_git_of_the_next_one_run_its_programs),
        TEST(a_job_cannot_make_the_git_of_the_next_one_write_elsewhere),
        TEST(files_that_git_was_told_to_overlook_are_as_committed),
        TEST(strategy_clone_begins_anew),
        TEST(strategy_none_and_checkout_false_leave_the_tree),
        TEST(a_broken_repository_is_cloned_anew),
        TEST(a_commit_that_is_not_there_is_a_source_failure),
        TEST(a_missing_repository_is_tried_again_and_keeps_the_tree),
        TEST(repositories_of_this_machine_have_to_be_allowed),
        TEST(other_urls_are_refused),
        TEST(submodules_come_when_asked_for),
        TEST(nothing_left_in_a_submodule_is_run),
        TEST(submodules_are_fetched_and_not_cloned_again),
        TEST(plain_http_serves_a_repository),
        TEST(a_server_that_gives_no_commit_by_name_gives_its_branch),
        TEST(a_repository_of_somebody_else_may_be_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
