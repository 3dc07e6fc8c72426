#include "common/base.h"

#include "worker/shim/record.h"

#include <limits.h>

void record_add(struct buf *out, struct str field)
{
    check(field.n > 0 && memchr(field.p, '\0', field.n) == NULL);
    buf_add_str(out, field);
    buf_add_char(out, '\0');
}

void record_addz(struct buf *out, const char *field)
{
    record_add(out, str_from(field));
}

void record_add_u64(struct buf *out, uint64_t value)
{
    buf_addf(out, "%" PRIu64, value);
    buf_add_char(out, '\0');
}

void record_add_int(struct buf *out, int value)
{
    buf_addf(out, "%d", value);
    buf_add_char(out, '\0');
}

void record_end(struct buf *out)
{
    buf_add_char(out, '\0');
}

bool record_next(struct str *rest, struct str *ret_record)
{
    size_t n = 0;
    while (n < rest->n) {
        const char *end = memchr(rest->p + n, '\0', rest->n - n);
        if (end == NULL) {
            return false;
        }
        size_t next = (size_t)(end - rest->p) + 1;
        if (next == n + 1) {
            *ret_record = str_of(rest->p, n);
            *rest = str_sub(*rest, next, rest->n);
            return true;
        }
        n = next;
    }
    return false;
}

const char *record_field(struct str *record)
{
    if (record->n == 0) {
        return NULL;
    }
    const char *field = record->p;
    *record = str_sub(*record, strlen(field) + 1, record->n);
    return field;
}

bool record_field_u64(struct str *record, uint64_t *ret)
{
    const char *field = record_field(record);
    return field != NULL && str_to_u64(str_from(field), ret) == 0;
}

bool record_field_int(struct str *record, int *ret)
{
    int64_t value;
    const char *field = record_field(record);
    if (field == NULL || str_to_i64(str_from(field), &value) < 0 || value < INT_MIN ||
        value > INT_MAX) {
        return false;
    }
    *ret = (int)value;
    return true;
}
