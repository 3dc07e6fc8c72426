#include "common/base.h"

#include "common/notify.h"

#include "common/os.h"

#ifdef DAVIT_SYSTEMD
#include <systemd/sd-daemon.h>

void notify_ready(const char *status)
{
    sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void notify_reloading(void)
{
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, os_monotonic_us());
}

void notify_reloaded(void)
{
    sd_notify(0, "READY=1");
}

void notify_stopping(void)
{
    sd_notify(0, "STOPPING=1");
}

void notify_alive(void)
{
    static uint64_t interval_us; /* UINT64_MAX: nobody watches */
    static uint64_t next_us;

    if (interval_us == 0) {
        uint64_t timeout_us;
        interval_us = sd_watchdog_enabled(0, &timeout_us) > 0 ? timeout_us / 3 : UINT64_MAX;
    }
    if (interval_us == UINT64_MAX) {
        return;
    }
    uint64_t now_us = os_monotonic_us();
    if (now_us >= next_us) {
        next_us = now_us + interval_us;
        sd_notify(0, "WATCHDOG=1");
    }
}
#else
void notify_ready(const char *status)
{
}

void notify_reloading(void)
{
}

void notify_reloaded(void)
{
}

void notify_stopping(void)
{
}

void notify_alive(void)
{
}
#endif
