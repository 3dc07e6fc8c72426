#include "common/base.h"

#include "broker/rollout/verdict.h"

static const char *restarting(const struct hard_look *look, struct arena *a)
{
    const uint32_t most = look->target->restart_failures != 0 ? look->target->restart_failures
                                                              : VERDICT_RESTARTS;

    for (size_t i = 0; i < look->instance_count; i++) {
        const Pb__InstanceState *s = look->instances[i];

        if (s->restarts >= most) {
            return arena_printf(a, "instance %u at %s has restarted %u times", s->index, s->address,
                                s->restarts);
        }
    }
    return NULL;
}

static const char *unready(const struct hard_look *look, struct arena *a, uint32_t *ret_looks)
{
    const uint32_t most = look->target->unready_failures != 0 ? look->target->unready_failures
                                                              : VERDICT_UNREADY_LOOKS;
    const Pb__InstanceState *first = NULL;

    for (size_t i = 0; i < look->instance_count && first == NULL; i++) {
        first = look->instances[i]->ready ? NULL : look->instances[i];
    }
    *ret_looks = first != NULL && look->ready_expected ? look->unready_looks + 1 : 0;
    if (*ret_looks < most) {
        return NULL;
    }
    return arena_printf(a, "instance %u at %s was not ready %u times in a row%s%s", first->index,
                        first->address, *ret_looks, first->detail[0] != '\0' ? ": " : "",
                        first->detail);
}

/* Traffic that nobody would answer. */
static const char *without_server(const struct hard_look *look, struct arena *a)
{
    const Pb__RouterAnswer *router = look->router;
    uint32_t weight_bp;

    if (router == NULL || router->unknown || router->n_servers == 0) {
        return NULL; /* a router that names no servers keeps them elsewhere */
    }
    weight_bp = look->slot == ROLLOUT_SLOT_B ? router->weight_b_bp : 10000 - router->weight_b_bp;
    for (size_t i = 0; i < router->n_servers; i++) {
        if (router->servers[i]->slot == look->slot && router->servers[i]->up) {
            return NULL;
        }
    }
    if (weight_bp == 0) {
        return NULL;
    }
    return arena_printf(a,
                        "the router sends %.4g%% of the traffic to the new version, and has no "
                        "server of it that is up",
                        weight_bp / 100.0);
}

static const char *killed(const struct hard_look *look, struct arena *a)
{
    for (size_t i = 0; i < look->row_count; i++) {
        if (look->rows[i] != NULL && look->rows[i]->verdict == VERDICT_KILL) {
            return arena_printf(a, "over the kill line: %s", look->rows[i]->text);
        }
    }
    return NULL;
}

const char *hard_check(const struct hard_look *look, struct arena *a, uint32_t *ret_unready_looks)
{
    const char *why = unready(look, a, ret_unready_looks);

    why = why != NULL ? why : restarting(look, a);
    why = why != NULL ? why : without_server(look, a);
    return why != NULL ? why : killed(look, a);
}
