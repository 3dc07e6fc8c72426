#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/journal/disk.h"
#include "tests/unit/common/folder.h"

/* The journal's files on a real disk. */

#define FILE_BYTES (300u * 1024) /* no multiple of what is written at once */

static struct disk *open_disk(void **state)
{
    struct disk *d;

    assert_int_equal(disk_open(in(*state, "journal"), true, &d), 0);
    return d;
}

static void a_new_file_is_written_to_its_end(void **state)
{
    struct disk *d = open_disk(state);
    char *bytes = xmalloc(FILE_BYTES + 1);
    struct disk_file *f;
    uint64_t size;
    struct stat st;
    size_t n;

    assert_int_equal(disk_create(d, "a", FILE_BYTES, &f), 0);
    assert_int_equal(disk_size(f, &size), 0);
    assert_int_equal(size, FILE_BYTES);
    assert_int_equal(disk_read(f, bytes, FILE_BYTES + 1, 0, &n), 0);
    assert_int_equal(n, FILE_BYTES);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(bytes[i], 0);
    }
    assert_int_equal(stat(in(*state, "journal/a"), &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 >= FILE_BYTES);
    assert_int_equal(st.st_mode & 0777, 0600);
    disk_close_file(f);
    disk_close(d);
    free(bytes);
}

static void a_file_that_is_there_is_not_made_again(void **state)
{
    struct disk *d = open_disk(state);
    struct disk_file *f;

    file_write(in(*state, "journal/a"), "mine");
    assert_int_equal(disk_create(d, "a", FILE_BYTES, &f), -E_EXISTS);
    assert_file(in(*state, "journal/a"), "mine");
    assert_int_equal(access(in(*state, "journal/a.part"), F_OK), -1);
    disk_close(d);
}

/* Whoever was killed while it made one leaves a part of it, under no name that counts. */
static void what_a_killed_one_left_is_no_hindrance(void **state)
{
    struct disk *d = open_disk(state);
    struct disk_file *f;
    uint64_t size;

    file_write(in(*state, "journal/a.part"), "half of it");
    assert_int_equal(disk_create(d, "a", FILE_BYTES, &f), 0);
    assert_int_equal(disk_size(f, &size), 0);
    assert_int_equal(size, FILE_BYTES);
    assert_int_equal(access(in(*state, "journal/a.part"), F_OK), -1);
    disk_close_file(f);
    disk_close(d);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_set_up, folder_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_file_is_written_to_its_end),
        TEST(a_file_that_is_there_is_not_made_again),
        TEST(what_a_killed_one_left_is_no_hindrance),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
