/* What drivers there are for targets of rollouts, and what settings they have, from drivers.def.
 * The broker checks its configuration by it, workers have the code. Pure. Threads: all safe. */
#ifndef DAVIT_DRIVERS_H
#define DAVIT_DRIVERS_H

#include "common/str.h"

enum driver_role { DRIVER_INSTANCES, DRIVER_ROUTER, DRIVER_METRIC, DRIVER_NOTIFY, DRIVER_LOAD };

enum setting_kind { SETTING_TEXT, SETTING_COUNT, SETTING_TIME, SETTING_PORTS };

struct driver_setting_info {
    const char *name;
    enum setting_kind kind;
    bool required;
    const char *text; /* for people: what it is, or its default */
};

/* The driver of that name in the role, as a number for the calls below; negative: there is none. */
int driver_find(enum driver_role role, struct str name);
/* The names of a role's drivers, at most max; count. */
size_t driver_names(enum driver_role role, const char **ret, size_t max);
/* Its settings one by one; NULL: no more. */
const struct driver_setting_info *driver_setting_at(int driver, size_t i);

/* NULL: the value is one of that kind; else what is expected: "a number". */
const char *driver_setting_check(const struct driver_setting_info *s, struct str value);

/* "8100-8199": two ports at least, one for each slot. 0 or -E_INVALID. */
int driver_ports_parse(struct str text, uint32_t *ret_first, uint32_t *ret_last);

#endif
