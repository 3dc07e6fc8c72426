/* Verb "sample" of the driver `http`: see scrape.c. */
#ifndef DAVIT_WORKER_DRIVER_SCRAPE_H
#define DAVIT_WORKER_DRIVER_SCRAPE_H

#include "worker/driver/driver.h"

void scrape_sample(struct driver_call *call);

#endif
