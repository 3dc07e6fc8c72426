/* Amounts of processor time and bytes as container tools write them: "500m" and "1.5" processors,
 * "512Mi" (of 1024), "2G" (of 1000), and bytes where there is no unit. */
#include "common/base.h"

#include "common/err.h"
#include "common/str.h"

#define FRACTION_DIGITS 9u

/* "1.5": the number in units of `unit`, rounded down. */
static int read_amount(struct str s, uint64_t unit, uint64_t max, uint64_t *ret)
{
    struct str whole_text;
    uint64_t whole;
    bool point = str_chr(s, '.') >= 0;
    if (!str_split(&s, '.', &whole_text) || str_to_u64(whole_text, &whole) < 0 ||
        whole > max / unit || point != (s.n > 0) || s.n > FRACTION_DIGITS) {
        return -E_INVALID;
    }
    uint64_t amount = whole * unit;
    uint64_t parts = 1;
    uint64_t fraction = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') {
            return -E_INVALID;
        }
        parts *= 10;
        fraction = fraction * 10 + (uint64_t)(s.p[i] - '0');
    }
    /* unit / parts first would lose all of "0.5" of one; the product of both fits for any unit. */
    amount += unit / parts * fraction + unit % parts * fraction / parts;
    if (amount > max) {
        return -E_INVALID;
    }
    *ret = amount;
    return 0;
}

int str_to_cpu_millis(struct str s, uint32_t *ret)
{
    uint64_t millis;
    bool thousandths = s.n > 0 && s.p[s.n - 1] == 'm';
    int r = thousandths ? str_to_u64(str_sub(s, 0, s.n - 1), &millis)
                        : read_amount(s, 1000, UINT32_MAX, &millis);
    if (r < 0 || millis > UINT32_MAX) {
        return -E_INVALID;
    }
    *ret = (uint32_t)millis;
    return 0;
}

/* 0: no such unit. */
static uint64_t size_unit(struct str name)
{
    static const char letters[] = "kmgt";
    uint64_t base = name.n == 2 && name.p[1] == 'i' ? 1024 : 1000;
    if (name.n == 0 || (name.n == 1 && name.p[0] == 'B')) {
        return 1;
    }
    const char *letter = strchr(letters, name.p[0] | 0x20);
    if (letter == NULL || *letter == '\0' || (name.n > 1 && base == 1000 && name.p[1] != 'B') ||
        name.n > 2) {
        return 0;
    }
    uint64_t unit = base;
    for (const char *p = letters; p < letter; p++) {
        unit *= base;
    }
    return unit;
}

int str_to_size(struct str s, uint64_t *ret_bytes)
{
    size_t n = 0;
    while (n < s.n && ((s.p[n] >= '0' && s.p[n] <= '9') || s.p[n] == '.')) {
        n++;
    }
    uint64_t unit = size_unit(str_sub(s, n, s.n));
    return unit == 0 ? -E_INVALID : read_amount(str_sub(s, 0, n), unit, INT64_MAX, ret_bytes);
}
