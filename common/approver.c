#include "common/base.h"

#include "common/approver.h"

static const struct str by_token = {"token:", 6};

int approver_rank(struct str role)
{
    static const char *const names[] = {"developer", "user", "maintainer", "admin"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_eqz(role, names[i])) {
            return (int)i + 1;
        }
    }
    return 0;
}

bool approver_ok(struct str approver)
{
    return approver_rank(approver) > 0 ||
           (str_starts(approver, by_token) && approver.n > by_token.n);
}

bool approver_is(struct str approver, const char *token, const char *role)
{
    const int rank = approver_rank(approver);

    if (str_starts(approver, by_token)) {
        return str_eqz(str_sub(approver, by_token.n, approver.n), token);
    }
    return rank > 0 && approver_rank(str_from(role)) >= rank;
}
