/* What a job prints arrives byte by byte, or is counted as left out. */
#include "common/base.h"

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/unit/shim/fixture.h"

static void assert_file_is_log(struct fixture *f, const struct shim_status *s, const char *name)
{
    struct buf expected = BUF_INIT;
    char *path = job_path(f, name);
    char *log = job_log(f, s);
    assert_int_equal(os_read_file(path, PLENTY, &expected), 0);
    assert_int_equal(expected.n, s->head_bytes + s->tail_bytes);
    assert_memory_equal(expected.p, log, expected.n);
    free(log);
    free(path);
    buf_release(&expected);
}

static void random_bytes_come_as_they_are(void **state)
{
    struct fixture *f = *state;
    struct shim_status s = job_run_script(f, "head -c 3000001 /dev/urandom | tee bytes; "
                                             "head -c 2000000 /dev/urandom | tee -a bytes >&2");
    assert_step(&s, 0, "script", "exit", 0);
    assert_int_equal(s.head_bytes, 5000001);
    assert_file_is_log(f, &s, "bytes");
}

static void the_head_and_the_tail_together_are_the_log(void **state)
{
    struct fixture *f = *state;
    job_limits(f, 1000, 100000, 1000, 30000);
    job_step(f, "script", "main", "head -c 60000 /dev/urandom | tee bytes");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_int_equal(s.head_bytes, 1000);
    assert_int_equal(s.tail_bytes, 59000);
    assert_int_equal(s.elided_bytes, 0);
    assert_file_is_log(f, &s, "bytes");
}

static void a_step_behind_the_script_can_read_all_of_the_log(void **state)
{
    static const struct {
        unsigned printed;
        const char *tail;
    } rows[] = {{500, "0 0 "}, {1500, "500 0 "}, {4000, "2000 1000 "}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (i > 0) {
            assert_int_equal(fixture_teardown(state), 0);
            fixture_setup(state); /* a folder is run once */
        }
        struct fixture *f = *state;
        struct shim_status now = {0};
        struct buf said = BUF_INIT;
        char script[64];
        snprintf(script, sizeof(script), "head -c %u /dev/zero; echo [$DAVIT_JOB_TAIL] >main",
                 rows[i].printed);
        job_limits(f, 1000, 2000, 1000, 30000);
        job_step(f, "script", "main", script);
        job_step(f, "after", "after", "printf %s \"$DAVIT_JOB_TAIL\" >said");
        job_start(f);
        struct shim_status s = job_wait(f);
        char *path = job_path(f, "said");
        assert_int_equal(os_read_file(path, PLENTY, &said), 0);
        assert_true(str_starts(buf_str(&said), str_from(rows[i].tail)));
        assert_int_equal(shim_tail_parse(buf_str(&said), &now), 0);
        assert_int_equal(now.tail_bytes, s.tail_bytes);
        assert_int_equal(now.elided_bytes, s.elided_bytes);
        assert_int_equal(now.tail_start, s.tail_start);
        free(path);
        path = job_path(f, "main");
        buf_clear(&said);
        assert_int_equal(os_read_file(path, PLENTY, &said), 0);
        assert_string_equal(said.p, "[]\n");
        free(path);
        buf_release(&said);
    }
    assert_int_equal(shim_tail_parse(STR("1 2"), &(struct shim_status){0}), -E_INVALID);
}

/* Line i of the long output is "%015d\n". */
static void assert_numbered(const char *p, uint64_t offset, size_t n)
{
    char line[32];
    for (size_t i = 0; i < n; i += 16 - (offset + i) % 16) {
        uint64_t at = offset + i;
        snprintf(line, sizeof(line), "%015" PRIu64 "\n", at / 16);
        size_t skip = (size_t)(at % 16);
        assert_memory_equal(p + i, line + skip, MIN(16 - skip, n - i));
    }
}

static void of_100_mb_the_head_the_mark_and_the_tail_are_kept(void **state)
{
    struct fixture *f = *state;
    enum { HEAD = 1000003, TAIL = 500009, LINES = 6250000 };
    const uint64_t total = (uint64_t)LINES * 16;
    job_limits(f, HEAD, TAIL, 1000, 120000);
    job_step(f, "script", "main", "seq -f %015.0f 0 6249999");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "exit", 0);
    assert_int_equal(s.head_bytes, HEAD);
    assert_int_equal(s.tail_bytes, TAIL);
    assert_int_equal(s.elided_bytes, total - HEAD - TAIL);
    char *log = job_log(f, &s);
    size_t n = strlen(log);
    assert_numbered(log, 0, HEAD);
    assert_numbered(log + n - TAIL, total - TAIL, TAIL);
    char *mark = str_dup(str_of(log + HEAD, n - HEAD - TAIL));
    assert_string_equal(mark, "\n\033[33;1m[98499988 bytes of output are left out here: the log is "
                              "too long, or the worker's disk was full]\033[0;m\n");
    free(mark);
    free(log);
}

static void output_is_readable_while_the_job_runs(void **state)
{
    struct fixture *f = *state;
    struct spool_reader reader;
    struct buf log = BUF_INIT;
    uint64_t deadline_ms = os_monotonic_ms() + 10000;
    job_limits(f, PLENTY, 0, 1000, 30000);
    job_step(f, "script", "main", "printf 'no line'; until [ -e go ]; do sleep 0.01; done; echo .");
    job_start(f);
    assert_int_equal(spool_open(&reader, f->folder), 0);
    while (log.n < 7) {
        assert_int_equal(spool_read(&reader, log.n, PLENTY, &log), 0);
        assert_true(os_monotonic_ms() < deadline_ms);
        os_sleep_ms(1);
    }
    assert_string_equal(log.p, "no line");
    char *go = job_path(f, "go");
    assert_int_equal(os_write_file(go, "", 0, 0600), 0);
    free(go);
    struct shim_status s = job_wait(f);
    assert_int_equal(spool_read(&reader, log.n, PLENTY, &log), 0);
    assert_string_equal(log.p, "no line.\n");
    assert_int_equal(s.head_bytes, 9);
    spool_close(&reader);
    buf_release(&log);
}

static void a_spool_is_read_from_any_offset_in_any_portion(void **state)
{
    struct fixture *f = *state;
    struct spool_reader reader;
    struct shim_status s = job_run_script(
        f, "for i in 1 2 3 4 5 6 7 8 9; do printf 'piece %d.' $i; sleep 0.002; done; "
           "head -c 200000 /dev/zero | tr '\\0' z");
    char *log = job_log(f, &s);
    assert_int_equal(spool_open(&reader, f->folder), 0);
    for (size_t from = 0; from < 200; from++) {
        for (size_t max = 1; max < 40; max += 3) {
            struct buf part = BUF_INIT;
            assert_int_equal(spool_read(&reader, from, max, &part), 0);
            assert_int_equal(part.n, max);
            assert_memory_equal(part.p, log + from, max);
            buf_release(&part);
        }
    }
    struct buf rest = BUF_INIT;
    assert_int_equal(spool_read(&reader, 150000, PLENTY, &rest), 0);
    assert_int_equal(rest.n, s.head_bytes - 150000);
    assert_memory_equal(rest.p, log + 150000, rest.n);
    buf_clear(&rest);
    assert_int_equal(spool_read(&reader, s.head_bytes, PLENTY, &rest), 0);
    assert_int_equal(spool_read(&reader, s.head_bytes + 1000, PLENTY, &rest), 0);
    assert_int_equal(rest.n, 0);
    buf_release(&rest);
    spool_close(&reader);
    free(log);
}

static void change_byte(struct fixture *f, off_t at)
{
    char byte;
    char *path = job_path(f, "spool");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte = (char)(byte ^ 1);
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    free(path);
}

static void a_torn_frame_at_the_end_is_not_there_yet(void **state)
{
    struct fixture *f = *state;
    struct spool_reader reader;
    struct buf log = BUF_INIT;
    job_run_script(f, "echo first; sleep 0.05; echo second");
    char *path = job_path(f, "spool");
    assert_int_equal(truncate(path, 2 * 24 + 6 + 3), 0);
    free(path);
    assert_int_equal(spool_open(&reader, f->folder), 0);
    assert_int_equal(spool_read(&reader, 0, PLENTY, &log), 0);
    assert_string_equal(log.p, "first\n");
    change_byte(f, 24);
    buf_clear(&log);
    assert_int_equal(spool_read(&reader, 0, PLENTY, &log), 0);
    assert_int_equal(log.n, 0);
    spool_close(&reader);
    buf_release(&log);
}

static void a_damaged_frame_with_much_behind_it_is_told(void **state)
{
    struct fixture *f = *state;
    struct spool_reader reader;
    struct buf log = BUF_INIT;
    job_run_script(f, "echo first; sleep 0.05; head -c 1000000 /dev/zero");
    change_byte(f, 24);
    assert_int_equal(spool_open(&reader, f->folder), 0);
    assert_int_equal(spool_read(&reader, 0, PLENTY, &log), -E_CORRUPT);
    spool_close(&reader);
    buf_release(&log);
}

static void a_full_disk_holds_nothing_up(void **state)
{
    struct fixture *f = *state;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", f->folder, "tmpfs", 0, "size=256k") < 0) {
        print_message("only root can make a small disk: skipped\n");
        skip();
    }
    job_limits(f, PLENTY, 65536, 1000, 30000);
    job_step(f, "script", "main",
             "seq -f %015.0f 0 62499; echo $$ > full 2>/dev/null || true; exit 5");
    job_step(f, "always", "always", "echo then");
    job_start(f);
    struct shim_status s = job_wait(f);
    assert_step(&s, 0, "script", "exit", 5);
    assert_step(&s, 1, "always", "exit", 0);
    assert_true(s.head_bytes > 100000 && s.head_bytes < 256 * 1024);
    assert_true(s.elided_bytes > 500000);
    char *log = job_log(f, &s);
    assert_numbered(log, 0, (size_t)s.head_bytes);
    assert_non_null(strstr(log, "bytes of output are left out here"));
    free(log);
    assert_int_equal(umount2(f->folder, MNT_DETACH), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(random_bytes_come_as_they_are),
        TEST(the_head_and_the_tail_together_are_the_log),
        TEST(a_step_behind_the_script_can_read_all_of_the_log),
        TEST(of_100_mb_the_head_the_mark_and_the_tail_are_kept),
        TEST(output_is_readable_while_the_job_runs),
        TEST(a_spool_is_read_from_any_offset_in_any_portion),
        TEST(a_torn_frame_at_the_end_is_not_there_yet),
        TEST(a_damaged_frame_with_much_behind_it_is_told),
        TEST(a_full_disk_holds_nothing_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
