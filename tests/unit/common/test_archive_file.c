/* One file out of an archive. */
#include "common/base.h"

#include "common/archive.h"
#include "tests/unit/common/folder.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const paths[] = {"dir", "dir/child.yml", "empty", "link", "long"};

static int set_up(void **state)
{
    int r = folder_set_up(state);
    const char *folder = *state;
    struct archive_info info;
    struct buf why = BUF_INIT;
    if (r < 0 || os_mkdir_p(in(folder, "from/dir"), 0755) < 0) {
        return -1;
    }
    file_write(in(folder, "from/dir/child.yml"), "a: {script: x}\n");
    file_write(in(folder, "from/empty"), "");
    char *text = xmalloc(200001);
    memset(text, 'x', 200000);
    text[200000] = '\0';
    file_write(in(folder, "from/long"), text);
    free(text);
    assert_int_equal(symlink("dir/child.yml", in(folder, "from/link")), 0);
    int fd = open(in(folder, "a"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    r = archive_pack(in(folder, "from"), paths, ARRAY_LEN(paths), fd, &info, &why);
    close(fd);
    buf_release(&why);
    return r;
}

static int read_one(const char *folder, const char *name, size_t limit, struct buf *out)
{
    struct buf why = BUF_INIT;
    int fd = open(in(folder, "a"), O_RDONLY | O_CLOEXEC);
    int r = archive_read_file(fd, name, limit, out, &why);
    assert_true(r == 0 || why.n > 0);
    close(fd);
    buf_release(&why);
    return r;
}

static void test_a_file_is_found_by_its_name(void **state)
{
    static const char *const names[] = {"dir/child.yml", "./dir//child.yml", "dir/./child.yml"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct buf out = BUF_INIT;
        assert_int_equal(read_one(*state, names[i], 15, &out), 0);
        assert_string_equal(buf_cstr(&out), "a: {script: x}\n");
        buf_release(&out);
    }
}

static void test_an_empty_and_a_long_file_come_whole(void **state)
{
    struct buf out = BUF_INIT;
    assert_int_equal(read_one(*state, "empty", 0, &out), 0);
    assert_int_equal(out.n, 0);
    assert_int_equal(read_one(*state, "long", 200000, &out), 0);
    assert_int_equal(out.n, 200000);
    buf_release(&out);
}

static void test_what_is_no_file_or_too_long_is_refused(void **state)
{
    struct buf out = BUF_INIT;
    buf_addz(&out, "before");
    assert_int_equal(read_one(*state, "dir", 100, &out), -E_INVALID);
    assert_int_equal(read_one(*state, "link", 100, &out), -E_INVALID);
    assert_int_equal(read_one(*state, "none", 100, &out), -E_NOT_FOUND);
    assert_int_equal(read_one(*state, "../a", 100, &out), -E_INVALID);
    assert_int_equal(read_one(*state, "", 100, &out), -E_INVALID);
    assert_int_equal(read_one(*state, "long", 199999, &out), -E_TOO_BIG);
    assert_string_equal(buf_cstr(&out), "before");
    buf_release(&out);
}

static void test_damage_is_found(void **state)
{
    struct buf out = BUF_INIT;
    file_write(in(*state, "a"), "no archive at all, but more than a few bytes of text");
    assert_int_equal(read_one(*state, "dir/child.yml", 100, &out), -E_CORRUPT);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_file_is_found_by_its_name, set_up, folder_tear_down),
        cmocka_unit_test_setup_teardown(test_an_empty_and_a_long_file_come_whole, set_up,
                                        folder_tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_file_or_too_long_is_refused, set_up,
                                        folder_tear_down),
        cmocka_unit_test_setup_teardown(test_damage_is_found, set_up, folder_tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
