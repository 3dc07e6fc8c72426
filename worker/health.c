#include "common/base.h"

#include "worker/health.h"

uint64_t health_job_ended(struct health *h, bool machine_failed, uint64_t now_ms)
{
    if (!machine_failed) {
        h->failures = 0;
        return 0;
    }
    h->failures++;
    if (h->failures < QUARANTINE_AFTER) {
        return 0;
    }
    uint32_t doublings = MIN(h->failures - QUARANTINE_AFTER, 16u);
    uint64_t pause = MIN((uint64_t)QUARANTINE_FIRST_MS << doublings, QUARANTINE_CAP_MS);
    h->paused_until_ms = now_ms + pause;
    return pause;
}

bool health_paused(const struct health *h, uint64_t now_ms)
{
    return now_ms < h->paused_until_ms;
}
