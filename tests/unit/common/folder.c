#include "common/base.h"

#include "tests/unit/common/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

int folder_set_up(void **state)
{
    char *path = xstrdup("/tmp/davit-test-XXXXXX");
    *state = mkdtemp(path);
    return *state != NULL ? 0 : -1;
}

int folder_tear_down(void **state)
{
    int r = os_remove_tree(*state);
    free(*state);
    return r;
}

const char *in(const char *path, const char *name)
{
    static char texts[8][4096];
    static unsigned next;
    char *text = texts[next++ % ARRAY_LEN(texts)];
    snprintf(text, sizeof(texts[0]), "%s/%s", path, name);
    return text;
}

void file_write(const char *path, const char *text)
{
    assert_int_equal(os_write_file(path, text, strlen(text), 0644), 0);
}

void assert_file(const char *path, const char *text)
{
    struct buf content = BUF_INIT;
    assert_int_equal(os_read_file(path, 1 << 20, &content), 0);
    assert_string_equal(buf_cstr(&content), text);
    buf_release(&content);
}
