#include "common/base.h"

#include "broker/core/apply.h"
#include "common/limits.h"

int variables_check(struct core *c, Pb__Variable *const *v, size_t n, const char *of)
{
    if (n > LIMIT_VARIABLES) {
        return reject(c, -E_LIMIT, "%s: more than %u variables", of, LIMIT_VARIABLES);
    }
    for (size_t i = 0; i < n; i++) {
        if (!name_ok(v[i]->name) || strchr(v[i]->name, '=') != NULL) {
            return reject(c, -E_INVALID, "%s: bad name of variable %zu", of, i);
        }
        if (v[i]->value.len > LIMIT_VARIABLE_VALUE) {
            return reject(c, -E_LIMIT, "%s: variable %.60s is too long", of, v[i]->name);
        }
    }
    return 0;
}

size_t variables_size(Pb__Variable *const *v, size_t n)
{
    size_t size = 0;

    for (size_t i = 0; i < n; i++) {
        size += 8 + pb__variable__get_packed_size(v[i]); /* its tag and length before it */
    }
    return size;
}
