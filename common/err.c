#include "common/base.h"

#include "common/err.h"

#include <errno.h>

struct err_row {
    const char *code;
    const char *text;
    int http_status;
    int exit_code;
};

static const struct err_row rows[E_COUNT] = {
    [E_OK] = {"ok", "ok", 200, 0},
#define ERR(name, code, http, exit_code, text) [name] = {code, text, http, exit_code},
#include "common/err.def"
#undef ERR
};

static const struct err_row *err_row(int r)
{
    return r <= 0 && r > -E_COUNT ? &rows[-r] : &rows[E_INTERNAL];
}

const char *err_code(int r)
{
    return err_row(r)->code;
}

const char *err_text(int r)
{
    return err_row(r)->text;
}

int err_http_status(int r)
{
    return err_row(r)->http_status;
}

int err_exit_code(int r)
{
    return err_row(r)->exit_code;
}

int err_from_code(const char *s)
{
    for (int i = 0; i < E_COUNT; i++) {
        if (strcmp(rows[i].code, s) == 0) {
            return -i;
        }
    }
    return -E_INTERNAL;
}

int err_from_errno(int e)
{
    switch (e) {
    case ENOENT:
    case ESRCH:
        return -E_NOT_FOUND;
    case ENOSPC:
    case EDQUOT:
        return -E_NO_SPACE;
    case EMFILE:
    case ENFILE:
        return -E_BUSY; /* descriptors come back */
    default:
        return -E_IO;
    }
}
