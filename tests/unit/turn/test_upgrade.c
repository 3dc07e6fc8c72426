/* A store is brought up to date only by a program that can apply what its journal has. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/turn_run.h"
#include "common/os.h"

static const uint8_t store_id[] = "0123456789abcdef";

/* One command, of that version, with the index 1. */
static void write_journal(const char *dir, uint32_t version)
{
    const struct journal_options o = {
        .dir = dir, .store_id = store_id, .secret = STR("secret"), .command_version = version};
    struct journal *j;
    struct buf why = BUF_INIT;
    Pb__Command cmd = PB__COMMAND__INIT;

    cmd.version = version;
    cmd.actor = (char *)"somebody";
    assert_int_equal(journal_open(&o, &j, &why), 0);
    assert_int_equal(journal_restart(j, 0), 0);
    journal_add(j, 1, &cmd);
    assert_int_equal(journal_write(j), 0);
    assert_int_equal(journal_flush(j), 0);
    journal_close(j);
    buf_release(&why);
}

static int ask(char *dir, uint64_t applied, struct buf *why)
{
    Pb__MetaRecord meta = PB__META_RECORD__INIT;

    meta.store_id = pb_bytes_ref(str_of(store_id, JOURNAL_STORE_ID_BYTES));
    meta.job_token_key = pb_bytes_ref(STR("secret"));
    meta.applied_index = applied;
    return turn_may_migrate(dir, &meta, why);
}

static void a_journal_of_other_commands_is_refused_before_the_store_changes(void **state)
{
    char *root = os_make_temp_dir("davit-upgrade");
    char *dir = os_path_join(root, "journal");
    struct buf why = BUF_INIT;

    (void)state;
    assert_int_equal(ask(dir, 0, &why), 0); /* there is none */
    assert_false(os_exists(dir));
    write_journal(dir, COMMAND_VERSION + 1);
    assert_int_equal(ask(dir, 0, &why), -E_VERSION);
    assert_non_null(strstr(buf_cstr(&why), "holds commands of version 2, this program knows 1"));
    assert_int_equal(ask(dir, 1, &why), 0); /* the store has all of it */
    assert_int_equal(os_remove_tree(dir), 0);
    write_journal(dir, COMMAND_VERSION);
    assert_int_equal(ask(dir, 0, &why), 0);
    assert_int_equal(os_remove_tree(root), 0);
    buf_release(&why);
    free(dir);
    free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_journal_of_other_commands_is_refused_before_the_store_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
