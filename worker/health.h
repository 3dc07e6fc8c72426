/* Should this worker take work? Not while its disk is low, and not for a while after several jobs
 * in a row failed for reasons of the machine (quarantine): a broken worker fails jobs faster than
 * any healthy one ends them, and would eat the whole queue. Pure: times are the caller's, monotonic
 * ms. */
#ifndef DAVIT_WORKER_HEALTH_H
#define DAVIT_WORKER_HEALTH_H

#include "common/base.h"

#define QUARANTINE_AFTER    3u
#define QUARANTINE_FIRST_MS 30000u
#define QUARANTINE_CAP_MS   (30u * 60 * 1000)

struct health {
    uint32_t failures; /* of the machine, in a row */
    uint64_t paused_until_ms;
    bool disk_low;
    uint64_t disk_free_bytes;
};

/* An attempt ended. Returns the length of the pause that begins with it; 0: none does. */
uint64_t health_job_ended(struct health *h, bool machine_failed, uint64_t now_ms);
bool health_paused(const struct health *h, uint64_t now_ms);

#endif
