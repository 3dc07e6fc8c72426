#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/core/apply.h"
#include "broker/core/query.h"
#include "broker/first_start.h"
#include "broker/janitor.h"
#include "common/os.h"
#include "tests/unit/turn/fixture.h"

static const struct fixture_options empty = {.empty = true};

static uint64_t token_count(struct fixture *f)
{
    struct tx *tx;

    fixture_read(f, &tx);
    uint64_t count = tx_count(tx, T_TOKEN);
    tx_abort(tx);
    return count;
}

static char *token_path(struct fixture *f, const char *role)
{
    char name[64];

    snprintf(name, sizeof(name), "%s.token", role);
    return os_path_join(f->dir, name);
}

/* The role that the store gives to the token in the file; "" for none. */
static void check_token(struct fixture *f, const char *role)
{
    struct buf text = BUF_INIT;
    char *path = token_path(f, role);
    uint8_t hash[SHA256_BYTES];
    struct stat st;
    struct tx *tx;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(os_read_file(path, 256, &text), 0);
    struct str token = str_trim(buf_str(&text));
    assert_true(token.n >= 43);
    crypto_sha256(token.p, token.n, hash);
    fixture_read(f, &tx);
    const Pb__TokenRecord *record = token_get(tx, hash);
    assert_non_null(record);
    assert_string_equal(record->role, role);
    tx_abort(tx);
    buf_release(&text);
    free(path);
}

static int start(struct fixture *f)
{
    struct buf why = BUF_INIT;
    int r = first_start(f->dir, f->store, f->turn, &why);

    buf_release(&why);
    return r;
}

static void a_new_folder_gets_a_token_for_each_role_and_keeps_them(void **state)
{
    struct fixture f;

    fixture_up(&f, &empty);
    assert_int_equal(start(&f), 0);
    check_token(&f, "admin");
    check_token(&f, "user");
    check_token(&f, "worker");
    assert_int_equal(token_count(&f), 3);
    assert_int_equal(start(&f), 0);
    assert_int_equal(token_count(&f), 3);
    check_token(&f, "admin");
    fixture_down(&f);
}

static void a_start_cut_off_before_the_store_knew_the_token_is_finished(void **state)
{
    struct fixture f;
    char *path;

    fixture_up(&f, &empty);
    path = token_path(&f, "worker");
    const char text[] = "dvw_0123456789012345678901234567890123456789012\n";
    assert_int_equal(os_write_file(path, text, sizeof(text) - 1, 0600), 0);
    assert_int_equal(start(&f), 0);
    check_token(&f, "admin");
    check_token(&f, "worker");
    free(path);
    fixture_down(&f);
}

static void a_file_that_somebody_removed_is_not_made_again(void **state)
{
    struct fixture f;
    char *path;

    fixture_up(&f, &empty);
    assert_int_equal(start(&f), 0);
    path = token_path(&f, "admin");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(start(&f), 0);
    assert_false(os_exists(path));
    assert_int_equal(token_count(&f), 3);
    free(path);
    fixture_down(&f);
}

static void put_blob(struct blobs *b, const char *text, uint8_t ret_digest[SHA256_BYTES])
{
    struct blob_upload *u;
    uint64_t size;

    assert_int_equal(blob_upload_begin(b, 1000, &u), 0);
    assert_int_equal(blob_upload_write(u, text, strlen(text)), 0);
    assert_int_equal(blob_upload_commit(u, ret_digest, &size), 0);
}

/* As if the blob had been unpacked. */
static void put_folder(const char *dir, const uint8_t digest[SHA256_BYTES])
{
    char hex[2 * SHA256_BYTES + 1];

    str_to_hex(digest, SHA256_BYTES, hex);
    char *path = os_path_join(dir, hex);
    assert_int_equal(os_mkdir_p(path, 0700), 0);
    free(path);
}

/* As the core does when a site is published. */
static void publish(struct store *store, const uint8_t digest[SHA256_BYTES])
{
    struct key k = blob_ref_key(str_of(digest, SHA256_BYTES), BLOB_PAGES, 1);
    struct tx *tx;

    assert_int_equal(tx_begin(store, true, &tx), 0);
    tx_put(tx, T_BLOB_REF, &k, STR_NULL);
    assert_int_equal(tx_commit(tx), 0);
}

static void unpublish(struct store *store, const uint8_t digest[SHA256_BYTES])
{
    struct key k = blob_ref_key(str_of(digest, SHA256_BYTES), BLOB_PAGES, 1);
    struct tx *tx;

    assert_int_equal(tx_begin(store, true, &tx), 0);
    tx_del(tx, T_BLOB_REF, &k);
    assert_int_equal(tx_commit(tx), 0);
}

static void put_log(struct logs *logs, uint64_t job_id)
{
    assert_int_equal(logs_append(logs, job_id, 1, 1, 0, "line", 4), 0);
    for (unsigned i = 0; i < 1000 && logs_durable(logs, job_id, 1) < 4; i++) {
        os_sleep_ms(5);
    }
}

static void a_sweep_keeps_what_the_store_refers_to(void **state)
{
    const struct fixture_options quiet = {.listen = false};
    uint8_t wanted[SHA256_BYTES];
    uint8_t unwanted[SHA256_BYTES];
    struct buf why = BUF_INIT;
    struct blobs *blobs;
    struct pages *pages;
    struct fixture f;

    fixture_up(&f, &quiet);
    char *dir = os_path_join(f.dir, "blobs");
    assert_int_equal(blobs_open(dir, &blobs, &why), 0);
    put_blob(blobs, "wanted", wanted);
    put_blob(blobs, "unwanted", unwanted);
    struct post *p = fixture_pipeline_post("group/test", 1);
    Pb__Source source = PB__SOURCE__INIT;
    Pb__SnapshotSource snapshot = PB__SNAPSHOT_SOURCE__INIT;
    snapshot.digest = pb_bytes_ref(str_of(wanted, sizeof(wanted)));
    snapshot.size = 6;
    source.from_case = PB__SOURCE__FROM_SNAPSHOT;
    source.snapshot = &snapshot;
    post_command(p)->pipeline_create->source = &source;
    uint64_t job_id = fixture_submit_post(&f, p);

    char *pages_dir = os_path_join(f.dir, "pages");
    assert_int_equal(pages_open(pages_dir, blobs, &pages, &why), 0);
    put_folder(pages_dir, wanted);
    put_folder(pages_dir, unwanted);
    publish(f.store, wanted);

    struct vault *vault;
    char *key_path = os_path_join(f.dir, "master.key");
    assert_int_equal(vault_open(NULL, key_path, &vault, &why), 0);
    struct janitor *j = janitor_new(f.store, f.turn, blobs, pages, f.logs, vault, NULL);
    assert_int_equal(janitor_sweep_pages(j), 1);
    assert_true(pages_ready(pages, wanted));
    assert_false(pages_ready(pages, unwanted));
    unpublish(f.store, wanted); /* the blob stays wanted: it is the pipeline's source */
    assert_int_equal(janitor_sweep_pages(j), 1);
    assert_false(pages_ready(pages, wanted));
    assert_int_equal(janitor_sweep(j, 3600u * 1000), 0); /* both are young */
    os_sleep_ms(5);
    assert_int_equal(janitor_sweep(j, 1), 8);
    assert_true(blob_exists(blobs, wanted));
    assert_false(blob_exists(blobs, unwanted));
    put_log(f.logs, job_id);
    put_log(f.logs, 77777); /* a job of that number was never there, or is not any more */
    os_sleep_ms(5);
    assert_int_equal(janitor_sweep_logs(j, 3600u * 1000), 0);
    assert_int_equal(janitor_sweep_logs(j, 1), 4);
    assert_int_equal(logs_durable(f.logs, job_id, 1), 4);
    assert_int_equal(logs_durable(f.logs, 77777, 1), 0);
    janitor_free(j);
    vault_close(vault);
    free(key_path);
    pages_close(pages);
    free(pages_dir);
    blobs_close(blobs);
    buf_release(&why);
    free(dir);
    fixture_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_folder_gets_a_token_for_each_role_and_keeps_them),
        cmocka_unit_test(a_start_cut_off_before_the_store_knew_the_token_is_finished),
        cmocka_unit_test(a_file_that_somebody_removed_is_not_made_again),
        cmocka_unit_test(a_sweep_keeps_what_the_store_refers_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
