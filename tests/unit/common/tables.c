#include "common/base.h"

#include "common/os.h"
#include "tests/unit/common/tables.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

json_t *table_load(const char *name)
{
    const char *corpora = getenv("DAVIT_CORPORA");
    struct buf path = BUF_INIT;
    json_error_t error;
    buf_addf(&path, "%s/tables/%s",
             corpora != NULL ? corpora : DAVIT_SOURCE_ROOT "/../shared/corpora", name);
    bool there = os_exists(path.p);
    json_t *table = json_load_file(path.p, 0, &error);
    if (!there) {
        print_message("no %s: skipped\n", path.p);
    }
    buf_release(&path);
    if (!there) {
        skip();
    }
    assert_non_null(table);
    return table;
}
