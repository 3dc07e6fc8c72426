/* The driver `http`: whatever is done by plain HTTP. */
#include "common/base.h"

#include "worker/driver/load.h"
#include "worker/driver/scrape.h"

static void act(struct driver_call *call)
{
    if (strcmp(call->what->verb, "sample") == 0) {
        scrape_sample(call);
    } else if (strcmp(call->what->verb, "load") == 0) {
        load_begin(call);
    } else {
        driver_fail(call, "invalid", "http can sample and load, not %s", call->what->verb);
    }
}

const struct driver driver_web = {.name = "http", .act = act};
