#include "common/base.h"

#include "common/drivers.h"

#include "common/err.h"

#define REQUIRED true
#define OPTIONAL false

/* One list: a line without a text begins a driver. */
static const struct line {
    const char *driver;
    enum driver_role role;
    struct driver_setting_info setting;
} lines[] = {
#define DRIVER(role, name) {name, DRIVER_##role, {NULL, SETTING_TEXT, false, NULL}},
#define SETTING(name, kind, need, text) \
    {NULL, DRIVER_INSTANCES, {name, SETTING_##kind, need, text}},
#include "common/drivers.def"
#undef DRIVER
#undef SETTING
};

int driver_find(enum driver_role role, struct str name)
{
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        if (lines[i].driver != NULL && lines[i].role == role && str_eqz(name, lines[i].driver)) {
            return (int)i;
        }
    }
    return -E_NOT_FOUND;
}

size_t driver_names(enum driver_role role, const char **ret, size_t max)
{
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(lines) && n < max; i++) {
        if (lines[i].driver != NULL && lines[i].role == role) {
            ret[n++] = lines[i].driver;
        }
    }
    return n;
}

const struct driver_setting_info *driver_setting_at(int driver, size_t i)
{
    const size_t at = (size_t)driver + 1 + i;

    check(driver >= 0);
    for (size_t k = (size_t)driver + 1; k <= at; k++) {
        if (k >= ARRAY_LEN(lines) || lines[k].driver != NULL) {
            return NULL;
        }
    }
    return &lines[at].setting;
}

const char *driver_setting_check(const struct driver_setting_info *s, struct str value)
{
    uint32_t first, last;
    uint64_t n;

    switch (s->kind) {
    case SETTING_TEXT:
        return value.n > 0 ? NULL : "a text";
    case SETTING_COUNT:
        return str_to_u64(value, &n) == 0 && n > 0 && n <= UINT32_MAX ? NULL : "a number from 1 on";
    case SETTING_TIME:
        return str_to_duration_ms(value, &n) == 0 && n > 0 ? NULL : "a time as 5s";
    case SETTING_PORTS:
        return driver_ports_parse(value, &first, &last) == 0 ? NULL
                                                             : "a range of ports as 8100-8199";
    }
    return "nothing";
}

int driver_ports_parse(struct str text, uint32_t *ret_first, uint32_t *ret_last)
{
    struct str part;
    uint64_t first, last;

    if (!str_split(&text, '-', &part) || str_to_u64(part, &first) < 0 ||
        str_to_u64(text, &last) < 0 || first == 0 || first >= last || last > UINT16_MAX) {
        return -E_INVALID;
    }
    *ret_first = (uint32_t)first;
    *ret_last = (uint32_t)last;
    return 0;
}
