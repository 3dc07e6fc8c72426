/* Published folders: paths to files, hostile paths, hostile archives, sweeps. */
#include "common/base.h"

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

#include "broker/pages/pages.h"
#include "common/limits.h"
#include "common/os.h"

struct fixture {
    char *dir;
    char *pages_dir;
    struct blobs *blobs;
    struct pages *pages;
};

/* One entry of an archive. */
struct entry {
    const char *name;
    const char *text;   /* of a file */
    const char *target; /* of a symlink */
};

static int setup(void **state)
{
    struct fixture *x = xcalloc(1, sizeof(*x));
    struct buf why = BUF_INIT;
    x->dir = os_make_temp_dir("davit-pages");
    x->pages_dir = os_path_join(x->dir, "pages");
    char *blobs_dir = os_path_join(x->dir, "blobs");
    assert_int_equal(blobs_open(blobs_dir, &x->blobs, &why), 0);
    assert_int_equal(pages_open(x->pages_dir, x->blobs, &x->pages, &why), 0);
    free(blobs_dir);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    pages_close(x->pages);
    blobs_close(x->blobs);
    assert_int_equal(os_remove_tree(x->dir), 0);
    free(x->pages_dir);
    free(x->dir);
    free(x);
    return 0;
}

static void put_bytes(struct fixture *x, const void *p, size_t n, uint8_t ret[SHA256_BYTES])
{
    struct blob_upload *u;
    uint64_t size;
    assert_int_equal(blob_upload_begin(x->blobs, 1u << 30, &u), 0);
    assert_int_equal(blob_upload_write(u, p, n), 0);
    assert_int_equal(blob_upload_commit(u, ret, &size), 0);
}

static void put_archive(struct fixture *x, const struct entry *entries, size_t count,
                        uint8_t ret[SHA256_BYTES])
{
    struct archive *a = archive_write_new();
    size_t used = 0;
    char *bytes = xmalloc(1u << 20);
    assert_int_equal(archive_write_add_filter_zstd(a), ARCHIVE_OK);
    assert_int_equal(archive_write_set_format_pax(a), ARCHIVE_OK);
    assert_int_equal(archive_write_open_memory(a, bytes, 1u << 20, &used), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        struct archive_entry *e = archive_entry_new();
        size_t n = entries[i].text != NULL ? strlen(entries[i].text) : 0;
        archive_entry_set_pathname(e, entries[i].name);
        archive_entry_set_filetype(e, entries[i].target != NULL ? AE_IFLNK : AE_IFREG);
        archive_entry_set_perm(e, 0644);
        archive_entry_set_size(e, (la_int64_t)n);
        if (entries[i].target != NULL) {
            archive_entry_set_symlink(e, entries[i].target);
        }
        assert_true(archive_write_header(a, e) >= ARCHIVE_WARN); /* of bytes in a name */
        if (n > 0) {
            assert_int_equal(archive_write_data(a, entries[i].text, n), n);
        }
        archive_entry_free(e);
    }
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
    put_bytes(x, bytes, used, ret);
    free(bytes);
}

static const struct entry site[] = {
    {.name = "index.html", .text = "top"},       {.name = "about.html", .text = "about"},
    {.name = "docs/index.html", .text = "docs"}, {.name = "docs/deep/style.CSS", .text = "css"},
    {.name = "empty/note.txt", .text = "note"},  {.name = "docs.html", .text = "not this"},
    {.name = "out", .target = "/etc/passwd"},    {.name = "away", .target = ".."},
    {.name = "same", .target = "docs"},          {.name = "odd name\xff", .text = "odd"},
};

static void unpack_site(struct fixture *x, uint8_t digest[SHA256_BYTES])
{
    struct buf why = BUF_INIT;
    put_archive(x, site, ARRAY_LEN(site), digest);
    assert_int_equal(pages_unpack(x->pages, digest, &why), 0);
    assert_true(pages_ready(x->pages, digest));
    buf_release(&why);
}

/* What stands at the path; "" for nothing, "/" for a folder that wants a slash. */
static const char *at(struct fixture *x, const uint8_t *digest, struct str path, const char **type)
{
    static char text[64];
    struct buf why = BUF_INIT;
    struct page page;
    int r = page_open(x->pages, digest, path, &page, &why);
    buf_release(&why);
    memset(text, 0, sizeof(text));
    if (r < 0) {
        assert_int_equal(r, -E_NOT_FOUND);
        return "";
    }
    if (page.is_folder) {
        assert_int_equal(page.fd, -1);
        return "/";
    }
    assert_int_equal(read(page.fd, text, sizeof(text) - 1), page.size);
    close(page.fd);
    if (type != NULL) {
        *type = page.type;
    }
    return text;
}

static void paths_lead_to_files_and_indexes(void **state)
{
    static const struct {
        const char *path;
        const char *text;
        const char *type;
    } cases[] = {
        {"", "top", "text/html; charset=utf-8"},
        {"index.html", "top", "text/html; charset=utf-8"},
        {"about", "about", "text/html; charset=utf-8"},
        {"docs/", "docs", "text/html; charset=utf-8"},
        {"docs", "/", NULL},
        {"docs/deep/style.CSS", "css", "text/css; charset=utf-8"},
        {"empty/note.txt", "note", "text/plain; charset=utf-8"},
        {"odd name\xff", "odd", "application/octet-stream"},
        {"empty/", "", NULL},
        {"empty", "", NULL},
        {"docs/deep", "", NULL},
        {"nothing", "", NULL},
        {"index.html/", "", NULL},
        {"index.html/x", "", NULL},
    };
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    unpack_site(x, digest);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *type = NULL;
        const char *text = at(x, digest, str_from(cases[i].path), &type);
        if (strcmp(text, cases[i].text) != 0) {
            fail_msg("`%s`: `%s`", cases[i].path, text);
        }
        if (cases[i].type != NULL) {
            assert_string_equal(type, cases[i].type);
        }
    }
}

static void no_path_leads_out(void **state)
{
    static const char *const paths[] = {
        "..",           "../blobs",          "docs/../index.html",
        "./index.html", "docs/./index.html", "/etc/passwd",
        "//index.html", "docs//index.html",  "out",
        "away/",        "away/blobs/",       "same/index.html",
        "same/",        "docs/..",           ".",
    };
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    unpack_site(x, digest);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        const char *text = at(x, digest, str_from(paths[i]), NULL);
        if (text[0] != '\0') {
            fail_msg("`%s`: `%s`", paths[i], text);
        }
    }
    assert_string_equal(at(x, digest, str_of("index.html\0x", 12), NULL), "");
}

static void endless_paths_are_not_found(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    char *path = xmalloc(LIMIT_PAGE_PATH + 2);
    unpack_site(x, digest);
    memset(path, 'a', LIMIT_PAGE_PATH + 2);
    assert_string_equal(at(x, digest, str_of(path, LIMIT_PAGE_PATH + 1), NULL), "");
    assert_string_equal(at(x, digest, str_of(path, 256), NULL), "");
    assert_string_equal(at(x, digest, str_of(path, 255), NULL), "");
    for (size_t i = 0; i < LIMIT_PAGE_PATH; i += 2) {
        path[i + 1] = '/';
    }
    assert_string_equal(at(x, digest, str_of(path, LIMIT_PAGE_PATH), NULL), "");
    free(path);
}

static void what_is_not_unpacked_is_not_found(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    struct buf why = BUF_INIT;
    put_archive(x, site, ARRAY_LEN(site), digest);
    assert_false(pages_ready(x->pages, digest));
    assert_string_equal(at(x, digest, STR(""), NULL), "");
    memset(digest, 0, sizeof(digest));
    assert_int_equal(pages_unpack(x->pages, digest, &why), -E_NOT_FOUND);
    buf_release(&why);
}

static void assert_refused(struct fixture *x, const uint8_t digest[SHA256_BYTES])
{
    struct page page;
    struct buf why = BUF_INIT;
    assert_int_equal(pages_unpack(x->pages, digest, &why), 0);
    assert_true(pages_ready(x->pages, digest));
    buf_clear(&why);
    assert_int_equal(page_open(x->pages, digest, STR(""), &page, &why), -E_GONE);
    assert_true(why.n > 0);
    buf_release(&why);
}

static void a_hostile_archive_is_remembered_as_refused(void **state)
{
    static const struct entry escapes[] = {{.name = "ok", .text = "x"},
                                           {.name = "../../escaped", .text = "x"}};
    static const struct entry through[] = {{.name = "link", .target = ".."},
                                           {.name = "link/escaped", .text = "x"}};
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    put_archive(x, escapes, ARRAY_LEN(escapes), digest);
    assert_refused(x, digest);
    put_archive(x, through, ARRAY_LEN(through), digest);
    assert_refused(x, digest);
    put_bytes(x, "no archive", 10, digest);
    assert_refused(x, digest);
    char *escaped = os_path_join(x->dir, "escaped");
    assert_false(os_exists(escaped));
    free(escaped);
}

static bool is_wanted(void *ctx, const uint8_t digest[SHA256_BYTES])
{
    return memcmp(ctx, digest, SHA256_BYTES) == 0;
}

static void a_sweep_takes_what_is_published_no_more(void **state)
{
    struct fixture *x = *state;
    uint8_t kept[SHA256_BYTES];
    uint8_t old[SHA256_BYTES];
    uint8_t bad[SHA256_BYTES];
    struct buf why = BUF_INIT;
    unpack_site(x, kept);
    put_archive(x, site, 1, old);
    assert_int_equal(pages_unpack(x->pages, old, &why), 0);
    put_bytes(x, "bad", 3, bad);
    assert_refused(x, bad);
    assert_int_equal(pages_sweep(x->pages, is_wanted, kept), 2);
    assert_true(pages_ready(x->pages, kept));
    assert_false(pages_ready(x->pages, old));
    assert_false(pages_ready(x->pages, bad));
    buf_release(&why);
}

/* Those who asked at the same time must not all do the same work. */
static void what_is_there_is_not_unpacked_again(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    struct buf why = BUF_INIT;
    struct stat before;
    struct stat after;
    unpack_site(x, digest);
    assert_int_equal(stat(x->pages_dir, &before), 0);
    assert_int_equal(pages_unpack(x->pages, digest, &why), 0);
    assert_int_equal(stat(x->pages_dir, &after), 0);
    assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim));
    buf_release(&why);
}

static void a_start_removes_what_was_left_half_unpacked(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    struct buf why = BUF_INIT;
    unpack_site(x, digest);
    char *half = os_path_join(x->pages_dir, "tmp-0123/docs");
    assert_int_equal(os_mkdir_p(half, 0700), 0);
    pages_close(x->pages);
    assert_int_equal(pages_open(x->pages_dir, x->blobs, &x->pages, &why), 0);
    assert_false(os_exists(half));
    assert_string_equal(at(x, digest, STR("about"), NULL), "about");
    free(half);
    buf_release(&why);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(paths_lead_to_files_and_indexes),
        TEST(no_path_leads_out),
        TEST(endless_paths_are_not_found),
        TEST(what_is_not_unpacked_is_not_found),
        TEST(a_hostile_archive_is_remembered_as_refused),
        TEST(a_sweep_takes_what_is_published_no_more),
        TEST(what_is_there_is_not_unpacked_again),
        TEST(a_start_removes_what_was_left_half_unpacked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
