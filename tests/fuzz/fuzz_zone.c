/* The bytes of a time zone file, as somebody may have put it in the folder of zones. */
#include "common/base.h"

#include "common/tz.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(const uint8_t *p, size_t n)
{
    static const int64_t times[] = {INT64_MIN / 4, -5000000000, -1,           0,
                                    1774749600,    32503680000, INT64_MAX / 4};
    struct arena arena;
    struct tz tz;
    arena_init(&arena, 0);
    if (tz_parse(&arena, str_of(p, n), &tz) == 0) {
        for (size_t i = 0; i < ARRAY_LEN(times); i++) {
            int64_t from_s = 0;
            int64_t until_s = 0;
            int32_t offset_s = tz_offset(&tz, times[i], &from_s, &until_s);
            check(from_s <= times[i] && times[i] < until_s);
            check(offset_s > -8 * 86400 && offset_s < 8 * 86400);
        }
    }
    arena_release(&arena);
}
