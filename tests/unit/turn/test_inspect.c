#include "common/base.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/inspect.h"
#include "common/log.h"
#include "common/os.h"
#include "tests/unit/turn/fixture.h"

/* fsck and backup of a broker that was killed before the store had all that it had acknowledged. */

static const struct fixture_options stepped = {.stepped = true};

static void killed(struct fixture *f)
{
    fixture_up(f, &stepped);
    for (unsigned i = 0; i < 3; i++) {
        struct reply reply;
        assert_int_equal(fixture_call(f, fixture_pipeline_post("group/test", 1), &reply), 0);
    }
    fixture_end(f);
}

static void find_segment(void *ctx, const char *name)
{
    if (strstr(name, ".journal") != NULL) {
        snprintf(ctx, 64, "%s", name);
    }
}

/* Of the first record: the head of the segment takes 4 KiB. */
static void damage(struct fixture *f)
{
    char name[64] = "";
    char byte;

    assert_int_equal(os_list_dir(f->journal_dir, find_segment, name), 0);
    char *path = os_path_join(f->journal_dir, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, 4096 + 100), 1);
    byte = (char)(byte ^ 1);
    assert_int_equal(pwrite(fd, &byte, 1, 4096 + 100), 1);
    close(fd);
    free(path);
}

static void fsck_reads_the_journal_to_its_end(void **state)
{
    struct fixture f;

    killed(&f);
    assert_int_equal(inspect_fsck(f.dir), 0);
    damage(&f);
    assert_int_equal(inspect_fsck(f.dir), -E_CORRUPT);
    assert_int_equal(os_remove_tree(f.dir), 0);
}

static void a_backup_without_what_was_acknowledged_is_not_made(void **state)
{
    struct fixture f;
    struct fixture copy;

    killed(&f);
    char *target = os_path_join(f.dir, "backup");
    assert_int_equal(inspect_backup(f.dir, target), -E_CONFLICT);
    fixture_start(&f);
    turn_stop(f.turn);
    fixture_end(&f);
    assert_int_equal(inspect_backup(f.dir, target), 0);
    copy = f;
    snprintf(copy.dir, sizeof(copy.dir), "%.50s/backup", f.dir);
    snprintf(copy.journal_dir, sizeof(copy.journal_dir), "%s/journal", copy.dir);
    fixture_start(&copy);
    fixture_submit(&copy, 1);
    fixture_audit(&copy);
    fixture_end(&copy);
    free(target);
    assert_int_equal(os_remove_tree(f.dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fsck_reads_the_journal_to_its_end),
        cmocka_unit_test(a_backup_without_what_was_acknowledged_is_not_made),
    };
    log_init("test", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
