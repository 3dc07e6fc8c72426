/* The driver `http`: whatever is done by plain HTTP. */
#include "common/base.h"

#include "worker/driver/scrape.h"

static void act(struct driver_call *call)
{
    if (strcmp(call->what->verb, "sample") == 0) {
        scrape_sample(call);
    } else {
        driver_fail(call, "invalid", "http can sample, not %s", call->what->verb);
    }
}

const struct driver driver_web = {.name = "http", .act = act};
