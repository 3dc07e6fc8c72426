#include "common/base.h"

#include "common/archive.h"
#include "tests/unit/common/folder.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_FILES 1000
#define MAX_BYTES (1u << 20)

static int open_archive(const char *folder, const char *name, int flags)
{
    int fd = open(in(folder, name), flags | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static int pack(const char *folder, const char *name, const char *const *paths, size_t count,
                struct archive_info *ret, struct buf *why)
{
    int fd = open_archive(folder, name, O_WRONLY | O_CREAT | O_TRUNC);
    int r = archive_pack(in(folder, "from"), paths, count, fd, ret, why);
    close(fd);
    return r;
}

static int unpack(const char *folder, const char *name, uint64_t max_files, uint64_t max_bytes,
                  struct archive_info *ret, struct buf *why)
{
    int fd = open_archive(folder, name, O_RDONLY);
    int r = archive_unpack(fd, in(folder, "to"), max_files, max_bytes, ret, why);
    close(fd);
    return r;
}

static int set_up(void **state)
{
    int r = folder_set_up(state);
    return r < 0 || os_mkdir_p(in(*state, "from/dir"), 0755) < 0 ||
                   os_mkdir_p(in(*state, "to"), 0755) < 0
               ? -1
               : 0;
}

static void make_tree(const char *folder)
{
    const struct timespec times[2] = {{.tv_sec = 1000000000}, {1000000001, 123456789}};
    file_write(in(folder, "from/dir/file"), "content");
    file_write(in(folder, "from/gr\xc3\xbc\xc3\x9f\x65 \xff"), "bytes in the name");
    file_write(in(folder, "from/run"), "#!/bin/sh\n");
    assert_int_equal(chmod(in(folder, "from/run"), 0755), 0);
    assert_int_equal(utimensat(AT_FDCWD, in(folder, "from/run"), times, 0), 0);
    assert_int_equal(symlink("dir/file", in(folder, "from/link")), 0);
    assert_int_equal(symlink("/no/where", in(folder, "from/dangling")), 0);
    assert_int_equal(mkfifo(in(folder, "from/pipe"), 0600), 0);
    assert_int_equal(mkdir(in(folder, "from/empty"), 0755), 0);
    assert_int_equal(chmod(in(folder, "from/empty"), 0555), 0);
    assert_int_equal(utimensat(AT_FDCWD, in(folder, "from/empty"), times, 0), 0);
}

static const char *const tree_paths[] = {
    "run",  "dir",      "dir/file", "link", "dangling", "gr\xc3\xbc\xc3\x9f\x65 \xff",
    "pipe", "./empty/", "gone",     "run",
};

static void assert_tree(const char *folder)
{
    struct stat st;
    char target[64] = "";
    assert_file(in(folder, "to/dir/file"), "content");
    assert_file(in(folder, "to/link"), "content");
    assert_file(in(folder, "to/gr\xc3\xbc\xc3\x9f\x65 \xff"), "bytes in the name");
    assert_int_equal(readlink(in(folder, "to/dangling"), target, sizeof(target) - 1), 9);
    assert_string_equal(target, "/no/where");
    assert_int_equal(stat(in(folder, "to/run"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(st.st_mtim.tv_sec, 1000000001);
    assert_int_equal(st.st_mtim.tv_nsec, 123456789);
    assert_int_equal(stat(in(folder, "to/empty"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0555);
    assert_int_equal(st.st_mtim.tv_sec, 1000000001);
    assert_false(os_exists(in(folder, "to/pipe")));
}

static void test_a_tree_comes_back_and_packs_the_same_again(void **state)
{
    struct archive_info packed;
    struct archive_info again;
    struct archive_info unpacked;
    struct buf why = BUF_INIT;
    struct buf bytes = BUF_INIT;
    uint8_t digest[SHA256_BYTES];
    make_tree(*state);
    assert_int_equal(pack(*state, "a", tree_paths, ARRAY_LEN(tree_paths), &packed, &why), 0);
    assert_int_equal(packed.file_count, 7);
    assert_int_equal(os_read_file(in(*state, "a"), MAX_BYTES, &bytes), 0);
    crypto_sha256(bytes.p, bytes.n, digest);
    assert_memory_equal(digest, packed.digest, SHA256_BYTES);
    assert_int_equal(bytes.n, packed.size);
    assert_int_equal(unpack(*state, "a", MAX_FILES, MAX_BYTES, &unpacked, &why), 0);
    assert_memory_equal(&unpacked, &packed, sizeof(packed));
    assert_tree(*state);
    const char *reversed[ARRAY_LEN(tree_paths)];
    for (size_t i = 0; i < ARRAY_LEN(tree_paths); i++) {
        reversed[i] = tree_paths[ARRAY_LEN(tree_paths) - 1 - i];
    }
    assert_int_equal(pack(*state, "b", reversed, ARRAY_LEN(reversed), &again, &why), 0);
    assert_memory_equal(&again, &packed, sizeof(packed));
    assert_int_equal(why.n, 0);
    /* Over what is there already. */
    assert_int_equal(unpack(*state, "b", MAX_FILES, MAX_BYTES, &unpacked, &why), 0);
    assert_tree(*state);
    buf_release(&bytes);
    buf_release(&why);
}

static void test_nothing_is_an_archive_too(void **state)
{
    struct archive_info info;
    struct buf why = BUF_INIT;
    assert_int_equal(pack(*state, "a", NULL, 0, &info, &why), 0);
    assert_int_equal(unpack(*state, "a", 0, 0, &info, &why), 0);
    assert_int_equal(info.file_count, 0);
    buf_release(&why);
}

static void assert_not_packed(const char *folder, const char *path)
{
    struct archive_info info = {.size = 77};
    struct buf why = BUF_INIT;
    assert_int_equal(pack(folder, "a", &path, 1, &info, &why), -E_INVALID);
    assert_int_equal(info.size, 77);
    assert_true(why.n > 0);
    buf_release(&why);
}

static void test_nothing_outside_is_packed(void **state)
{
    assert_int_equal(mkdir(in(*state, "secret"), 0755), 0);
    file_write(in(*state, "secret/key"), "secret");
    assert_int_equal(symlink("../secret", in(*state, "from/way")), 0);
    assert_not_packed(*state, "../secret/key");
    assert_not_packed(*state, "dir/../../secret/key");
    assert_not_packed(*state, "/etc/passwd");
    assert_not_packed(*state, "way/key");
}

static void test_a_full_disk_is_reported(void **state)
{
    const char *const path = "dir/file";
    struct archive_info info;
    struct buf why = BUF_INIT;
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    file_write(in(*state, "from/dir/file"), "content");
    assert_int_equal(archive_pack(in(*state, "from"), &path, 1, fd, &info, &why), -E_NO_SPACE);
    assert_string_equal(why.p, "cannot write the archive: No space left on device");
    close(fd);
    buf_release(&why);
}

/* One entry of a hostile archive. */
struct hostile {
    const char *name;
    mode_t type;
    const char *target; /* of a symlink */
    const char *hardlink;
    size_t size;
};

static void write_hostile(const char *folder, const struct hostile *entries, size_t count)
{
    struct archive *a = archive_write_new();
    assert_int_equal(archive_write_add_filter_zstd(a), ARCHIVE_OK);
    assert_int_equal(archive_write_set_format_pax(a), ARCHIVE_OK);
    assert_int_equal(archive_write_open_filename(a, in(folder, "a")), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        struct archive_entry *entry = archive_entry_new();
        char *zeros = xcalloc(1, entries[i].size);
        archive_entry_set_pathname(entry, entries[i].name);
        archive_entry_set_filetype(entry, entries[i].type);
        archive_entry_set_perm(entry, 04777);
        archive_entry_set_size(entry, (la_int64_t)entries[i].size);
        if (entries[i].target != NULL) {
            archive_entry_set_symlink(entry, entries[i].target);
        }
        if (entries[i].hardlink != NULL) {
            archive_entry_set_hardlink(entry, entries[i].hardlink);
        }
        assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
        assert_int_equal(archive_write_data(a, zeros, entries[i].size), entries[i].size);
        archive_entry_free(entry);
        free(zeros);
    }
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
}

static void assert_refused(const char *folder, const struct hostile *entries, size_t count, int r)
{
    struct archive_info info = {.size = 77};
    struct buf why = BUF_INIT;
    write_hostile(folder, entries, count);
    assert_int_equal(unpack(folder, "a", 100, MAX_BYTES, &info, &why), r);
    assert_int_equal(info.size, 77);
    assert_true(why.n > 0);
    buf_release(&why);
}

static void test_names_that_leave_the_folder_are_refused(void **state)
{
    const char *const names[] = {"/tmp/davit-escaped", "../escaped", "a/../../escaped", "..",
                                 "a/.."};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct hostile entry = {.name = names[i], .type = AE_IFREG};
        assert_refused(*state, &entry, 1, -E_INVALID);
    }
    assert_false(os_exists(in(*state, "escaped")));
    assert_false(os_exists("/tmp/davit-escaped"));
}

static void test_symlinks_are_no_way_out(void **state)
{
    const struct hostile through[] = {
        {.name = "way", .type = AE_IFLNK, .target = ".."},
        {.name = "way/escaped", .type = AE_IFREG},
    };
    const struct hostile folder_on_link[] = {
        {.name = "way2", .type = AE_IFLNK, .target = ".."},
        {.name = "way2", .type = AE_IFDIR},
    };
    const struct hostile below[] = {
        {.name = "way3", .type = AE_IFLNK, .target = ".."},
        {.name = "way3/dir/escaped", .type = AE_IFREG},
    };
    assert_refused(*state, through, 2, -E_INVALID);
    assert_refused(*state, folder_on_link, 2, -E_INVALID);
    assert_refused(*state, below, 2, -E_INVALID);
    assert_false(os_exists(in(*state, "escaped")));
    assert_false(os_exists(in(*state, "dir")));
}

static void test_a_symlink_that_stands_there_is_replaced_not_followed(void **state)
{
    const struct hostile file = {.name = "file", .type = AE_IFREG, .size = 3};
    struct archive_info info;
    struct buf why = BUF_INIT;
    struct stat st;
    file_write(in(*state, "victim"), "untouched");
    assert_int_equal(symlink("../victim", in(*state, "to/file")), 0);
    write_hostile(*state, &file, 1);
    assert_int_equal(unpack(*state, "a", 100, MAX_BYTES, &info, &why), 0);
    assert_file(in(*state, "victim"), "untouched");
    assert_int_equal(lstat(in(*state, "to/file"), &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0777); /* nothing is set-user-id */
    buf_release(&why);
}

static void test_hard_links_and_devices_are_refused(void **state)
{
    const struct hostile link[] = {
        {.name = "file", .type = AE_IFREG},
        {.name = "other", .type = AE_IFREG, .hardlink = "file"},
    };
    const struct hostile device = {.name = "device", .type = AE_IFCHR};
    const struct hostile pipe = {.name = "pipe", .type = AE_IFIFO};
    assert_refused(*state, link, 2, -E_INVALID);
    assert_refused(*state, &device, 1, -E_INVALID);
    assert_refused(*state, &pipe, 1, -E_INVALID);
}

static void test_bombs_are_stopped(void **state)
{
    const struct hostile large = {.name = "large", .type = AE_IFREG, .size = 16 * MAX_BYTES};
    struct hostile many[101];
    char names[ARRAY_LEN(many)][8];
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        snprintf(names[i], sizeof(names[i]), "f%zu", i);
        many[i] = (struct hostile){.name = names[i], .type = AE_IFREG};
    }
    struct buf deep = BUF_INIT;
    for (int i = 0; i < 200; i++) {
        buf_addz(&deep, "d/");
    }
    const struct hostile folders = {.name = deep.p, .type = AE_IFDIR};
    struct stat st;
    assert_refused(*state, &large, 1, -E_TOO_BIG);
    assert_int_equal(stat(in(*state, "to/large"), &st), 0);
    assert_true(st.st_size <= MAX_BYTES);
    assert_refused(*state, many, ARRAY_LEN(many), -E_LIMIT);
    assert_refused(*state, &folders, 1, -E_LIMIT);
    buf_release(&deep);
}

static void test_damage_is_found(void **state)
{
    struct archive_info info;
    struct buf why = BUF_INIT;
    struct buf bytes = BUF_INIT;
    make_tree(*state);
    assert_int_equal(pack(*state, "good", tree_paths, ARRAY_LEN(tree_paths), &info, &why), 0);
    assert_int_equal(os_read_file(in(*state, "good"), MAX_BYTES, &bytes), 0);
    assert_int_equal(os_write_file(in(*state, "short"), bytes.p, bytes.n / 2, 0600), 0);
    assert_int_equal(unpack(*state, "short", MAX_FILES, MAX_BYTES, &info, &why), -E_CORRUPT);
    file_write(in(*state, "noise"), "this was never an archive");
    assert_int_equal(unpack(*state, "noise", MAX_FILES, MAX_BYTES, &info, &why), -E_CORRUPT);
    file_write(in(*state, "nothing"), "");
    assert_int_equal(unpack(*state, "nothing", MAX_FILES, MAX_BYTES, &info, &why), -E_CORRUPT);
    buf_release(&bytes);
    buf_release(&why);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, folder_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_tree_comes_back_and_packs_the_same_again),
        TEST(test_nothing_is_an_archive_too),
        TEST(test_nothing_outside_is_packed),
        TEST(test_a_full_disk_is_reported),
        TEST(test_names_that_leave_the_folder_are_refused),
        TEST(test_symlinks_are_no_way_out),
        TEST(test_a_symlink_that_stands_there_is_replaced_not_followed),
        TEST(test_hard_links_and_devices_are_refused),
        TEST(test_bombs_are_stopped),
        TEST(test_damage_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
