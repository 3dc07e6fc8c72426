#include "common/base.h"

#include "common/log.h"
#include "common/os.h"
#include "tests/unit/common/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void test_time(void **state)
{
    char text[32];
    assert_string_equal(str_time(1770091506789, text, sizeof(text)), "2026-02-03T04:05:06Z");
    assert_string_equal(str_time(0, text, sizeof(text)), "1970-01-01T00:00:00Z");
    assert_string_equal(str_time(UINT64_MAX, text, sizeof(text)), "9999-12-31T23:59:59Z");
    uint64_t before = os_monotonic_ms();
    os_sleep_ms(5);
    assert_true(os_monotonic_ms() - before >= 5);
    assert_true(os_realtime_ms() > 1700000000000);
}

static void test_files_are_replaced_as_a_whole(void **state)
{
    const char *path = in(*state, "file");
    struct stat st;
    file_write(path, "one");
    assert_int_equal(os_write_file(path, "two", 3, 0640), 0);
    assert_file(path, "two");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(os_write_file(in(*state, "no/file"), "x", 1, 0600), -E_NOT_FOUND);
    assert_int_equal(errno, ENOENT);
    /* Nothing temporary may be left: the folder holds one entry. */
    unlink(path);
    assert_int_equal(rmdir(*state), 0);
    assert_int_equal(mkdir(*state, 0700), 0);
}

static void test_reading_stops_at_the_limit(void **state)
{
    struct buf out = BUF_INIT;
    const char *path = in(*state, "file");
    file_write(path, "12345");
    buf_addz(&out, ">");
    assert_int_equal(os_read_file(path, 4, &out), -E_TOO_BIG);
    assert_string_equal(out.p, ">");
    assert_int_equal(os_read_file(path, 5, &out), 0);
    assert_string_equal(out.p, ">12345");
    assert_int_equal(os_read_file(in(*state, "none"), 5, &out), -E_NOT_FOUND);
    assert_int_equal(os_read_file(*state, 5, &out), -E_IO);
    buf_release(&out);
}

static void test_folders_are_made_on_the_way(void **state)
{
    assert_int_equal(os_mkdir_p(in(*state, "a//b/c/"), 0755), 0);
    assert_int_equal(os_mkdir_p(in(*state, "a/b/c"), 0755), 0);
    assert_true(os_exists(in(*state, "a/b/c")));
    file_write(in(*state, "a/file"), "");
    assert_int_equal(os_mkdir_p(in(*state, "a/file/x"), 0755), -E_EXISTS);
    assert_int_equal(os_mkdir_p(in(*state, "a/file"), 0755), -E_EXISTS);
}

static void test_removal_does_not_follow_symlinks(void **state)
{
    assert_int_equal(os_mkdir_p(in(*state, "keep"), 0755), 0);
    file_write(in(*state, "keep/file"), "kept");
    assert_int_equal(os_mkdir_p(in(*state, "tree/sub"), 0755), 0);
    assert_int_equal(symlink("../keep", in(*state, "tree/link")), 0);
    assert_int_equal(symlink("keep", in(*state, "top")), 0);
    assert_int_equal(os_remove_tree(in(*state, "tree")), 0);
    assert_int_equal(os_remove_tree(in(*state, "top")), 0);
    assert_false(os_exists(in(*state, "tree")));
    assert_false(os_exists(in(*state, "top")));
    assert_file(in(*state, "keep/file"), "kept");
    assert_int_equal(os_remove_tree(in(*state, "tree")), 0);
}

/* Deeper than a path can be long, with folders in it that nobody may change. */
static void test_removal_of_a_very_deep_tree(void **state)
{
    const char *const name = "a-folder-with-a-long-name-below-another";
    const char *root = in(*state, "deep");
    assert_int_equal(mkdir(root, 0755), 0);
    int fd = open(root, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < 150; i++) {
        assert_int_equal(mkdirat(fd, name, 0755), 0);
        int below = openat(fd, name, O_RDONLY | O_DIRECTORY);
        assert_true(below >= 0);
        assert_int_equal(mkdirat(fd, "locked", 0755), 0);
        int locked = openat(fd, "locked", O_RDONLY | O_DIRECTORY);
        assert_int_equal(mkdirat(locked, "x", 0000), 0);
        assert_int_equal(fchmod(locked, 0555), 0);
        close(locked);
        close(fd);
        fd = below;
    }
    close(fd);
    assert_int_equal(os_remove_tree(root), 0);
    assert_false(os_exists(root));
}

static void test_a_lock_is_held_by_one(void **state)
{
    const char *path = in(*state, "lock");
    int first = -1;
    int second = -1;
    assert_int_equal(os_lock_file(path, &first), 0);
    assert_int_equal(os_lock_file(path, &second), -E_BUSY);
    assert_int_equal(second, -1);
    close(first);
    assert_int_equal(os_lock_file(path, &second), 0);
    close(second);
}

static void test_paths(void **state)
{
    char *joined = os_path_join("a", "b");
    assert_string_equal(joined, "a/b");
    free(joined);
    joined = os_path_join("/", "b");
    assert_string_equal(joined, "/b");
    free(joined);
    uint64_t available = 0;
    uint64_t total = 0;
    assert_int_equal(os_disk_free(*state, &available, &total), 0);
    assert_true(available <= total && total > 0);
}

static void test_programs_are_found_where_the_variable_says(void **state)
{
    char *own = os_program_dir();
    assert_int_equal(own[0], '/');
    free(own);
    file_write(in(*state, "davit-probe"), "#!/bin/sh\n");
    assert_int_equal(setenv("DAVIT_BIN_DIR", *state, 1), 0);
    assert_null(os_find_program("davit-probe"));
    assert_int_equal(chmod(in(*state, "davit-probe"), 0755), 0);
    char *found = os_find_program("davit-probe");
    unsetenv("DAVIT_BIN_DIR");
    assert_string_equal(found, in(*state, "davit-probe"));
    free(found);
}

static int run(const char *script, size_t limit, struct buf *out, int *ret_status)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct os_spawn s = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    return os_run(&s, limit, out, ret_status);
}

static void test_a_process_gives_output_and_status(void **state)
{
    struct buf out = BUF_INIT;
    int status = -1;
    assert_int_equal(run("echo hello; exit 3", 100, &out, &status), 0);
    assert_string_equal(out.p, "hello\n");
    assert_int_equal(WEXITSTATUS(status), 3);
    buf_clear(&out);
    assert_int_equal(run("exit 0", 0, NULL, &status), 0);
    assert_int_equal(status, 0);
    assert_int_equal(run("while :; do echo endless; done", 1000, &out, &status), -E_TOO_BIG);
    const char *const argv[] = {"/no/such/program", NULL};
    struct os_spawn s = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    assert_int_equal(os_run(&s, 10, &out, &status), -E_NOT_FOUND);
    buf_release(&out);
}

static void test_a_process_inherits_neither_signals_nor_descriptors(void **state)
{
    struct buf out = BUF_INIT;
    sigset_t mask;
    sigset_t old;
    int status = -1;
    int extra = open("/dev/null", O_RDONLY); /* without close-on-exec */
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    assert_int_equal(sigprocmask(SIG_BLOCK, &mask, &old), 0);
    void (*handler)(int) = signal(SIGPIPE, SIG_IGN);
    /* The last digits: glibc's spawn leaves its own two signals, 32 and 33, ignored. */
    assert_int_equal(run("sed -En 's/^Sig(Blk|Ign):.*(.{7})$/\\1 \\2/p' /proc/self/status;"
                         "ls /proc/self/fd | wc -l",
                         4096, &out, &status),
                     0);
    signal(SIGPIPE, handler);
    sigprocmask(SIG_SETMASK, &old, NULL);
    close(extra);
    /* Three streams and the folder that ls reads. */
    assert_string_equal(out.p, "Blk 0000000\nIgn 0000000\n4\n");
    buf_release(&out);
}

static void test_a_process_gets_its_folder_environment_and_session(void **state)
{
    const char *const argv[] = {"/bin/sh", "-c", "pwd; echo $ONLY; echo $HOME; cat", NULL};
    const char *const envp[] = {"ONLY=this", NULL};
    struct buf out = BUF_INIT;
    int status = -1;
    struct os_spawn s = {.argv = argv,
                         .envp = envp,
                         .cwd = "/",
                         .stdin_fd = -1,
                         .stdout_fd = -1,
                         .stderr_fd = -1,
                         .new_session = true};
    assert_int_equal(os_run(&s, 100, &out, &status), 0);
    assert_string_equal(out.p, "/\nthis\n\n");
    buf_release(&out);
}

static void test_the_start_time_tells_processes_apart(void **state)
{
    uint64_t first = 0;
    uint64_t again = 1;
    assert_int_equal(os_process_start_time(getpid(), &first), 0);
    assert_int_equal(os_process_start_time(getpid(), &again), 0);
    assert_true(first > 0 && first == again);
    assert_int_equal(os_process_start_time(0x3fffffff, &first), -E_NOT_FOUND);
}

static void test_a_log_line_is_one_line(void **state)
{
    int saved = dup(STDERR_FILENO);
    int fd = open(in(*state, "log"), O_WRONLY | O_CREAT, 0600);
    assert_true(saved >= 0 && fd >= 0);
    enum log_level level = LOG_DEBUG;
    assert_int_equal(log_level_from("warn", &level), 0);
    assert_int_equal(log_level_from("loud", &level), -E_INVALID);
    log_init("probe", level);
    dup2(fd, STDERR_FILENO);
    log_info("not this");
    log_warn("job %s", "a\nb\033[0m");
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fd);
    struct buf text = BUF_INIT;
    assert_int_equal(os_read_file(in(*state, "log"), 1000, &text), 0);
    assert_string_equal(text.p + strlen("2026-02-03T04:05:06Z"), " warn  probe: job a b [0m\n");
    buf_release(&text);
}

static void test_open_files_are_raised_and_what_was_before_is_told(void **state)
{
    struct rlimit usual;
    struct rlimit files;
    uint64_t before = 0;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
    files = (struct rlimit){.rlim_cur = 100, .rlim_max = usual.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    assert_int_equal(os_raise_open_files(&before), 0);
    assert_int_equal(before, 100);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    assert_int_equal(files.rlim_cur, usual.rlim_max);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_set_up, folder_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_time),
        TEST(test_files_are_replaced_as_a_whole),
        TEST(test_reading_stops_at_the_limit),
        TEST(test_folders_are_made_on_the_way),
        TEST(test_removal_does_not_follow_symlinks),
        TEST(test_removal_of_a_very_deep_tree),
        TEST(test_a_lock_is_held_by_one),
        TEST(test_paths),
        TEST(test_programs_are_found_where_the_variable_says),
        TEST(test_a_process_gives_output_and_status),
        TEST(test_a_process_inherits_neither_signals_nor_descriptors),
        TEST(test_a_process_gets_its_folder_environment_and_session),
        TEST(test_the_start_time_tells_processes_apart),
        TEST(test_open_files_are_raised_and_what_was_before_is_told),
        TEST(test_a_log_line_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
