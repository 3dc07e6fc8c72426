/* What a rollout tells, as the JSON object that commands and webhooks get. */
#ifndef DAVIT_WORKER_DRIVER_NOTICE_H
#define DAVIT_WORKER_DRIVER_NOTICE_H

#include <jansson.h>

#include "proto/rollout.h"

/* The caller's. NULL: a text of it is no UTF-8. */
json_t *notice_json(const Pb__NotifyArgs *args);

#endif
