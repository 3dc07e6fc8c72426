#include "common/base.h"

#include "common/str.h"

#include <time.h>

const char *str_time(uint64_t realtime_ms, char *ret_text, size_t n)
{
    time_t seconds = (time_t)(realtime_ms / 1000);
    struct tm tm;
    check(n >= 32);
    if (gmtime_r(&seconds, &tm) == NULL || tm.tm_year > 9999 - 1900) {
        memcpy(ret_text, "9999-12-31T23:59:59Z", sizeof("9999-12-31T23:59:59Z"));
    } else {
        check(strftime(ret_text, n, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0);
    }
    return ret_text;
}
