#include "common/base.h"

#include "broker/rollout/inside.h"

#include "common/cron.h"

static bool window_holds(const struct decision *d, const Pb__FreezeWindow *w,
                         uint64_t *ret_until_ms)
{
    const int64_t now_s = (int64_t)(d->now_ms / 1000);
    const char *why;
    struct cron cron;
    struct tz tz;
    int64_t began_s;

    if (w->cron[0] == '\0') {
        *ret_until_ms = w->until_ms;
        return w->from_ms <= d->now_ms && d->now_ms < w->until_ms;
    }
    tz_utc(&tz);
    if ((w->zone_data.len > 0 && tz_parse(d->a, pb_str(w->zone_data), &tz) < 0) ||
        cron_parse(str_from(w->cron), &cron, &why) < 0 ||
        cron_previous(&cron, &tz, now_s + 1, &began_s) < 0 || began_s < 0) {
        return false; /* the configuration was checked when it was read */
    }
    *ret_until_ms = (uint64_t)began_s * 1000 + w->for_ms;
    return d->now_ms < *ret_until_ms;
}

const Pb__FreezeWindow *gate_frozen(const struct decision *d, uint64_t *ret_until_ms)
{
    const Pb__RolloutTarget *t = d->v->plan->target;

    for (size_t i = 0; i < t->n_freezes && !d->r->freeze_overridden; i++) {
        if (window_holds(d, t->freezes[i], ret_until_ms)) {
            return t->freezes[i];
        }
    }
    return NULL;
}

static bool has_role(const char *role, char *const *roles, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(roles[i], role) == 0) {
            return true;
        }
    }
    return false;
}

uint32_t gate_approvals(const struct decision *d, uint32_t step, char *const *roles,
                        size_t role_count)
{
    uint32_t count = 0;

    for (size_t i = 0; i < d->r->n_approvals; i++) {
        const Pb__RolloutApproval *a = d->r->approvals[i];
        bool again = a->step != step || !has_role(a->role, roles, role_count);
        for (size_t k = 0; k < i && !again; k++) {
            const Pb__RolloutApproval *b = d->r->approvals[k];
            again = b->step == step && strcmp(a->by, b->by) == 0 &&
                    has_role(b->role, roles, role_count);
        }
        count += again ? 0 : 1;
    }
    return count;
}
