#include "common/base.h"

#include "broker/blob/logs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"

/* Faults of the disk, by the linker's --wrap; counted, so that a group's fsyncs can be seen. */
static _Atomic int write_errno;
static _Atomic int sync_errno;
static _Atomic unsigned syncs;
static _Atomic bool hold_sync; /* fdatasync waits until it is false */

ssize_t __real_pwrite64(int fd, const void *p, size_t n, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t offset)
{
    if (write_errno != 0) {
        /* As a real disk: some bytes still fit. */
        if (n > 1) {
            __real_pwrite64(fd, p, n / 2, offset);
        }
        errno = write_errno;
        return -1;
    }
    return __real_pwrite64(fd, p, n, offset);
}

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    syncs++;
    while (hold_sync) {
        os_sleep_ms(1);
    }
    if (sync_errno != 0) {
        errno = sync_errno;
        return -1;
    }
    return __real_fdatasync(fd);
}

struct fixture {
    char dir[64];
    struct logs *logs;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned answers;
    uint64_t job_id;
    uint64_t attempt;
    uint64_t epoch;
    uint64_t durable;
};

static void on_durable(void *ctx, uint64_t job_id, uint64_t attempt, uint64_t epoch,
                       uint64_t durable)
{
    struct fixture *x = ctx;
    pthread_mutex_lock(&x->lock);
    x->answers++;
    x->job_id = job_id;
    x->attempt = attempt;
    x->epoch = epoch;
    x->durable = durable;
    pthread_cond_signal(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

static int setup(void **state)
{
    struct fixture *x = xcalloc(1, sizeof(*x));
    struct buf why = BUF_INIT;
    snprintf(x->dir, sizeof(x->dir), "/tmp/davit-logs-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->changed, NULL);
    write_errno = sync_errno = 0;
    hold_sync = false;
    assert_int_equal(logs_open(x->dir, on_durable, x, &x->logs, &why), 0);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    logs_close(x->logs);
    os_remove_tree(x->dir);
    pthread_mutex_destroy(&x->lock);
    pthread_cond_destroy(&x->changed);
    free(x);
    return 0;
}

static void reopen(struct fixture *x)
{
    struct buf why = BUF_INIT;
    logs_close(x->logs);
    assert_int_equal(logs_open(x->dir, on_durable, x, &x->logs, &why), 0);
}

/* Appends and waits for the answer, which it returns. */
static uint64_t append(struct fixture *x, uint64_t job_id, uint64_t offset, const char *text)
{
    pthread_mutex_lock(&x->lock);
    unsigned before = x->answers;
    pthread_mutex_unlock(&x->lock);
    assert_int_equal(logs_append(x->logs, job_id, 1, 7, offset, text, strlen(text)), 0);
    pthread_mutex_lock(&x->lock);
    while (x->answers == before) {
        pthread_cond_wait(&x->changed, &x->lock);
    }
    assert_int_equal(x->job_id, job_id);
    assert_int_equal(x->epoch, 7);
    uint64_t durable = x->durable;
    pthread_mutex_unlock(&x->lock);
    return durable;
}

static void assert_log(struct fixture *x, uint64_t job_id, const char *text)
{
    char got[256] = {0};
    assert_int_equal(logs_durable(x->logs, job_id, 1), strlen(text));
    assert_int_equal(logs_read(x->logs, job_id, 1, 0, got, sizeof(got)), strlen(text));
    assert_string_equal(got, text);
}

static void chunks_in_order_make_the_log(void **state)
{
    struct fixture *x = *state;
    assert_int_equal(append(x, 1, 0, "one "), 4);
    assert_int_equal(append(x, 1, 4, "two"), 7);
    assert_log(x, 1, "one two");
    assert_int_equal(logs_written_bytes(x->logs), 7);
}

static void a_chunk_that_came_before_changes_nothing(void **state)
{
    struct fixture *x = *state;
    append(x, 1, 0, "abcdef");
    assert_int_equal(append(x, 1, 0, "abc"), 6);
    assert_int_equal(append(x, 1, 0, "abcdef"), 6);
    assert_log(x, 1, "abcdef");
}

static void an_overlapping_chunk_adds_only_its_new_end(void **state)
{
    struct fixture *x = *state;
    append(x, 1, 0, "abc");
    assert_int_equal(append(x, 1, 1, "XXdef"), 6);
    assert_log(x, 1, "abcdef");
}

static void a_chunk_behind_a_gap_is_answered_with_the_present_size(void **state)
{
    struct fixture *x = *state;
    assert_int_equal(append(x, 1, 5, "late"), 0);
    append(x, 1, 0, "abc");
    assert_int_equal(append(x, 1, 4, "e"), 3);
    assert_log(x, 1, "abc");
}

static void an_empty_chunk_is_a_question(void **state)
{
    struct fixture *x = *state;
    assert_int_equal(append(x, 1, 0, ""), 0);
    append(x, 1, 0, "abc");
    assert_int_equal(append(x, 1, 0, ""), 3);
}

static void reads_stop_at_the_durable_end(void **state)
{
    struct fixture *x = *state;
    char got[8];
    append(x, 1, 0, "abcdef");
    assert_int_equal(logs_read(x->logs, 1, 1, 4, got, sizeof(got)), 2);
    assert_memory_equal(got, "ef", 2);
    assert_int_equal(logs_read(x->logs, 1, 1, 6, got, sizeof(got)), 0);
    assert_int_equal(logs_read(x->logs, 1, 1, 1000, got, sizeof(got)), 0);
}

static void bytes_that_are_not_on_the_disk_yet_are_not_shown(void **state)
{
    struct fixture *x = *state;
    char got[8];
    append(x, 1, 0, "abc");
    hold_sync = true;
    unsigned before = syncs;
    assert_int_equal(logs_append(x->logs, 1, 1, 7, 3, "def", 3), 0);
    while (syncs == before) {
        os_sleep_ms(1);
    }
    assert_int_equal(logs_durable(x->logs, 1, 1), 3);
    assert_int_equal(logs_read(x->logs, 1, 1, 0, got, sizeof(got)), 3);
    hold_sync = false;
    assert_int_equal(append(x, 1, 6, ""), 6);
}

static void chunks_that_arrive_during_an_fsync_share_the_next_one(void **state)
{
    struct fixture *x = *state;
    append(x, 1, 0, "a");
    hold_sync = true;
    unsigned before = syncs;
    assert_int_equal(logs_append(x->logs, 1, 1, 7, 1, "b", 1), 0);
    while (syncs == before) {
        os_sleep_ms(1);
    }
    for (uint64_t i = 2; i < 50; i++) {
        assert_int_equal(logs_append(x->logs, 1, 1, 7, i, "c", 1), 0);
    }
    hold_sync = false;
    logs_close(x->logs);
    x->logs = NULL;
    assert_int_equal(syncs, before + 2);
    assert_int_equal(x->durable, 50);
}

static void a_full_disk_answers_with_the_old_size_and_goes_on_later(void **state)
{
    struct fixture *x = *state;
    append(x, 1, 0, "abc");
    write_errno = ENOSPC;
    assert_int_equal(append(x, 1, 3, "defghi"), 3);
    assert_log(x, 1, "abc");
    write_errno = 0;
    sync_errno = ENOSPC;
    assert_int_equal(append(x, 1, 3, "def"), 3);
    sync_errno = 0;
    assert_log(x, 1, "abc");
    reopen(x);
    assert_log(x, 1, "abc"); /* nothing of the failed writes is left in the file */
    assert_int_equal(append(x, 1, 3, "def"), 6);
    assert_log(x, 1, "abcdef");
}

/* A process of its own, so that it may die: this program with a folder as its argument. */
static int die_of_a_failed_fsync(const char *dir)
{
    struct buf why = BUF_INIT;
    struct fixture x = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    if (logs_open(dir, on_durable, &x, &x.logs, &why) < 0) {
        return 1;
    }
    append(&x, 9, 0, "abc");
    sync_errno = EIO;
    logs_append(x.logs, 9, 1, 7, 3, "def", 3);
    logs_close(x.logs);
    return 0;
}

static void a_failed_fsync_ends_the_process(void **state)
{
    struct fixture *x = *state;
    const char *const argv[] = {"/proc/self/exe", x->dir, NULL};
    int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = null_fd};
    int status = 0;
    assert_int_equal(os_run(&spawn, 4096, NULL, &status), 0);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    close(null_fd);
}

static char *path_of(struct fixture *x, uint64_t job_id)
{
    char name[64];
    snprintf(name, sizeof(name), "%" PRIu64 "/%" PRIu64 "-1.log", job_id / 4096, job_id);
    return os_path_join(x->dir, name);
}

static void a_log_is_whole_after_a_restart(void **state)
{
    struct fixture *x = *state;
    append(x, 5000, 0, "abc");
    reopen(x);
    assert_log(x, 5000, "abc");
    assert_int_equal(append(x, 5000, 3, "def"), 6);
    assert_log(x, 5000, "abcdef");
}

static void bytes_found_behind_the_last_answer_are_fsynced_before_they_count(void **state)
{
    struct fixture *x = *state;
    append(x, 1, 0, "abc");
    logs_close(x->logs);
    /* A broker that died between write and fsync leaves this. */
    char *path = path_of(x, 1);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(os_write_file(path, "abcde", 5, 0600), 0);
    free(path);
    struct buf why = BUF_INIT;
    assert_int_equal(logs_open(x->dir, on_durable, x, &x->logs, &why), 0);
    unsigned before = syncs;
    assert_int_equal(logs_durable(x->logs, 1, 1), 5);
    assert_int_equal(syncs, before + 1);
    assert_int_equal(append(x, 1, 3, "defg"), 7);
    assert_log(x, 1, "abcdefg");
}

static void a_torn_log_asks_for_the_lost_bytes_again(void **state)
{
    struct fixture *x = *state;
    append(x, 1, 0, "abcdef");
    logs_close(x->logs);
    char *path = path_of(x, 1);
    assert_int_equal(truncate(path, 2), 0);
    free(path);
    struct buf why = BUF_INIT;
    assert_int_equal(logs_open(x->dir, on_durable, x, &x->logs, &why), 0);
    assert_int_equal(append(x, 1, 6, "g"), 2);
    assert_int_equal(append(x, 1, 2, "cdefg"), 7);
    assert_log(x, 1, "abcdefg");
}

static void a_log_that_is_not_there_is_not_found(void **state)
{
    struct fixture *x = *state;
    char got[8];
    assert_int_equal(logs_read(x->logs, 1, 1, 0, got, sizeof(got)), -E_NOT_FOUND);
    assert_int_equal(logs_durable(x->logs, 1, 1), 0);
    assert_int_equal(logs_remove(x->logs, 1, 1), -E_NOT_FOUND);
    logs_close_one(x->logs, 1, 1);
}

static void a_removed_log_is_gone(void **state)
{
    struct fixture *x = *state;
    char got[8];
    append(x, 1, 0, "abc");
    assert_int_equal(logs_remove(x->logs, 1, 1), 0);
    assert_int_equal(logs_read(x->logs, 1, 1, 0, got, sizeof(got)), -E_NOT_FOUND);
}

static void a_closed_log_opens_again_by_itself(void **state)
{
    struct fixture *x = *state;
    append(x, 1, 0, "abc");
    logs_close_one(x->logs, 1, 1);
    assert_log(x, 1, "abc");
    logs_close_one(x->logs, 1, 1);
    assert_int_equal(append(x, 1, 3, "d"), 4);
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 4096; fd++) {
        struct stat st;
        n += fstat(fd, &st) == 0;
    }
    return n;
}

static void more_logs_than_descriptors_can_be_written_and_read(void **state)
{
    struct fixture *x = *state;
    unsigned before = open_descriptors();
    for (uint64_t job = 1; job <= 2 * LIMIT_LOG_FILES; job++) {
        assert_int_equal(logs_append(x->logs, job, 1, 7, 0, &job, sizeof(job)), 0);
    }
    reopen(x); /* all is written */
    for (uint64_t job = 1; job <= 2 * LIMIT_LOG_FILES; job++) {
        uint64_t got = 0;
        assert_int_equal(logs_read(x->logs, job, 1, 0, &got, sizeof(got)), sizeof(got));
        assert_int_equal(got, job);
    }
    assert_in_range(open_descriptors(), before, before + LIMIT_LOG_FILES + 1);
}

static void what_is_too_much_is_refused(void **state)
{
    struct fixture *x = *state;
    char *big = xcalloc(1, LIMIT_LOG_CHUNK + 1);
    assert_int_equal(logs_append(x->logs, 1, 1, 7, 0, big, LIMIT_LOG_CHUNK + 1), -E_TOO_BIG);
    assert_int_equal(logs_append(x->logs, 1, 1, 7, UINT64_MAX, "x", 1), -E_TOO_BIG);
    append(x, 1, 0, "");
    hold_sync = true; /* the writer stands still */
    int r = 0;
    uint64_t taken = 0;
    for (uint64_t i = 0; r == 0 && i < 2 * LIMIT_LOG_QUEUE / LIMIT_LOG_CHUNK; i++) {
        r = logs_append(x->logs, 1, 1, 7, (i % 512) * LIMIT_LOG_CHUNK, big, LIMIT_LOG_CHUNK);
        taken += r == 0 ? LIMIT_LOG_CHUNK : 0;
    }
    hold_sync = false;
    assert_int_equal(r, -E_BUSY);
    assert_in_range(taken, LIMIT_LOG_QUEUE / 2, LIMIT_LOG_QUEUE);
    logs_close(x->logs);
    x->logs = NULL;
    free(big);
}

struct stream {
    struct fixture *x;
    uint64_t job_id;
    uint64_t bytes;
};

/* Sends numbers in ragged chunks with overlaps until all are durable, as a nervous worker would. */
static void *stream_main(void *arg)
{
    struct stream *s = arg;
    uint64_t durable;
    while ((durable = logs_durable(s->x->logs, s->job_id, 1)) < s->bytes) {
        uint8_t chunk[997];
        uint64_t from = durable - MIN(durable, durable % 100);
        size_t n = (size_t)MIN(sizeof(chunk), s->bytes - from);
        for (size_t i = 0; i < n; i++) {
            chunk[i] = (uint8_t)((from + i) * 31);
        }
        assert_int_equal(logs_append(s->x->logs, s->job_id, 1, 7, from, chunk, n), 0);
        os_sleep_ms(1);
    }
    return NULL;
}

static void many_threads_write_and_read_whole_logs(void **state)
{
    struct stream s[8];
    pthread_t threads[ARRAY_LEN(s)];
    for (size_t i = 0; i < ARRAY_LEN(s); i++) {
        s[i] = (struct stream){.x = *state, .job_id = i + 1, .bytes = 20000};
        assert_int_equal(pthread_create(&threads[i], NULL, stream_main, &s[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(s); i++) {
        pthread_join(threads[i], NULL);
        uint8_t *got = xmalloc(s[i].bytes);
        assert_int_equal(logs_read(s[i].x->logs, s[i].job_id, 1, 0, got, s[i].bytes), s[i].bytes);
        for (uint64_t at = 0; at < s[i].bytes; at++) {
            assert_int_equal(got[at], (uint8_t)(at * 31));
        }
        free(got);
    }
}

/* Jobs with even numbers stay. */
static void even_ones(void *ctx, const uint64_t *job_ids, bool *ret_wanted, size_t count)
{
    unsigned *asked = ctx;

    *asked += (unsigned)count;
    for (size_t i = 0; i < count; i++) {
        ret_wanted[i] = job_ids[i] % 2 == 0;
    }
}

static bool is_there(struct fixture *x, const char *name)
{
    char *path = os_path_join(x->dir, name);
    bool there = os_exists(path);

    free(path);
    return there;
}

static void a_sweep_takes_the_logs_of_jobs_that_are_gone(void **state)
{
    struct fixture *x = *state;
    const uint64_t now_ms = os_realtime_ms();
    unsigned asked = 0;

    append(x, 2, 0, "stays");
    append(x, 3, 0, "goes");
    append(x, 4097, 0, "goes, too");
    char *stranger = os_path_join(x->dir, "1/notes.txt");
    assert_int_equal(os_write_file(stranger, "?", 1, 0600), 0);
    assert_int_equal(logs_sweep(x->logs, now_ms, 3600u * 1000, even_ones, &asked), 0);
    assert_int_equal(asked, 0); /* all are young */
    assert_int_equal(logs_sweep(x->logs, now_ms + 10000, 1, even_ones, &asked), 13);
    assert_int_equal(asked, 3);
    assert_int_equal(logs_durable(x->logs, 2, 1), 5);
    assert_int_equal(logs_durable(x->logs, 3, 1), 0);
    assert_true(is_there(x, "1")); /* something of somebody else is in it */
    assert_int_equal(unlink(stranger), 0);
    assert_int_equal(logs_sweep(x->logs, now_ms + 10000, 1, even_ones, &asked), 0);
    assert_false(is_there(x, "1"));
    append(x, 4098, 0, "the folder comes back");
    assert_int_equal(logs_durable(x->logs, 4098, 1), 21);
    free(stranger);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        return die_of_a_failed_fsync(argv[1]);
    }
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(chunks_in_order_make_the_log),
        TEST(a_chunk_that_came_before_changes_nothing),
        TEST(an_overlapping_chunk_adds_only_its_new_end),
        TEST(a_chunk_behind_a_gap_is_answered_with_the_present_size),
        TEST(an_empty_chunk_is_a_question),
        TEST(reads_stop_at_the_durable_end),
        TEST(bytes_that_are_not_on_the_disk_yet_are_not_shown),
        TEST(chunks_that_arrive_during_an_fsync_share_the_next_one),
        TEST(a_full_disk_answers_with_the_old_size_and_goes_on_later),
        TEST(a_failed_fsync_ends_the_process),
        TEST(a_log_is_whole_after_a_restart),
        TEST(bytes_found_behind_the_last_answer_are_fsynced_before_they_count),
        TEST(a_torn_log_asks_for_the_lost_bytes_again),
        TEST(a_log_that_is_not_there_is_not_found),
        TEST(a_removed_log_is_gone),
        TEST(a_closed_log_opens_again_by_itself),
        TEST(a_sweep_takes_the_logs_of_jobs_that_are_gone),
        TEST(more_logs_than_descriptors_can_be_written_and_read),
        TEST(what_is_too_much_is_refused),
        TEST(many_threads_write_and_read_whole_logs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
