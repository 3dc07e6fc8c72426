/* Verb "load" of the driver `http`: see load.c. */
#ifndef DAVIT_WORKER_DRIVER_LOAD_H
#define DAVIT_WORKER_DRIVER_LOAD_H

#include "worker/driver/driver.h"

void load_begin(struct driver_call *call);

#endif
