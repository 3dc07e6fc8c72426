/* Counting of answers, and the text of /metrics. Threads: all safe. */
#ifndef DAVIT_API_METRICS_H
#define DAVIT_API_METRICS_H

#include "broker/api/server.h"

void metrics_init(struct api *a);
void metrics_free(struct api *a);
uint64_t metrics_open_fds(void);
void metrics_count_answer(struct api *a, const struct route *route, unsigned status);

#endif
