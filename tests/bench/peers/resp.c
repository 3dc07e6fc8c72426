#include "common/base.h"

#include "tests/bench/peers/resp.h"

#include "tests/bench/peers/peer.h"

static int64_t number_of(struct str s)
{
    int64_t n;

    if (str_to_i64(s, &n) < 0) {
        driver_fail("redis: no number", s);
    }
    return n;
}

bool resp_take(struct str *rest, struct resp *ret)
{
    struct str at = *rest;
    struct str line;

    if (!peer_line(&at, &line)) {
        return false;
    }
    check(line.n > 0);
    *ret = (struct resp){.type = line.p[0], .text = str_sub(line, 1, line.n)};
    if (ret->type == ':' || ret->type == '*' || ret->type == '$') {
        ret->number = number_of(ret->text);
    }
    if (ret->type == '$' && ret->number < 0) {
        ret->text = STR_NULL;
    } else if (ret->type == '$') {
        size_t n = (size_t)ret->number;
        if (at.n < n + 2) {
            return false;
        }
        ret->text = str_sub(at, 0, n);
        at = str_sub(at, n + 2, at.n);
    }
    *rest = at;
    return true;
}

void resp_begin(struct buf *out, size_t arguments)
{
    buf_addf(out, "*%zu\r\n", arguments);
}

void resp_add(struct buf *out, struct str argument)
{
    buf_addf(out, "$%zu\r\n", argument.n);
    buf_add_str(out, argument);
    buf_addz(out, "\r\n");
}
