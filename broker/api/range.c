#include "common/base.h"

#include "broker/api/range.h"

#include "common/str.h"

/* "first-pos "-" [ last-pos ]" or "-" suffix-length. False: it is neither. */
static bool read_spec(struct str spec, uint64_t total, uint64_t *ret_first, uint64_t *ret_end)
{
    uint64_t first, last;
    ptrdiff_t dash = str_chr(spec, '-');
    if (dash < 0) {
        return false;
    }
    struct str left = str_sub(spec, 0, (size_t)dash);
    struct str right = str_sub(spec, (size_t)dash + 1, spec.n);
    if (left.n == 0) {
        if (str_to_u64(right, &last) < 0) {
            return false;
        }
        *ret_first = total - MIN(last, total);
        *ret_end = total;
        return true;
    }
    if (str_to_u64(left, &first) < 0) {
        return false;
    }
    last = UINT64_MAX - 1;
    if (right.n > 0 && (str_to_u64(right, &last) < 0 || last < first || last == UINT64_MAX)) {
        return false;
    }
    *ret_first = first;
    *ret_end = MIN(last + 1, total);
    return true;
}

int range_parse(const char *text, uint64_t total, struct range *ret)
{
    struct str spec = str_from(text);
    uint64_t first, end;
    if (!text || !str_starts(spec, STR("bytes=")) || str_chr(spec, ',') >= 0 ||
        !read_spec(str_trim(str_sub(spec, 6, spec.n)), total, &first, &end)) {
        *ret = (struct range){.offset = 0, .size = total, .partial = false};
        return 0;
    }
    if (first >= end) {
        return -E_RANGE;
    }
    *ret = (struct range){.offset = first, .size = end - first, .partial = true};
    return 0;
}
