/* A running davitd: everything opened in order, closed in the reverse order, and the wait between.
 * Threads: main's. */
#ifndef DAVIT_SERVE_H
#define DAVIT_SERVE_H

#include "common/err.h"

struct fetch_project;
struct serve_options {
    const char *data;      /* the folder: store/, journal/, logs/, blobs/, tokens, endpoints.json */
    const char *fleet_url; /* tcp://ADDRESS:PORT */
    const char *http;      /* ADDRESS:PORT */
    uint32_t heartbeat_ms; /* 0: the default */
    uint32_t lease_ms;     /* 0: the default */
    uint32_t relaxed_ms;   /* what is acknowledged may wait so long for the disk; 0: not at all */
    uint64_t keep_pipelines_ms; /* after their end; 0: for ever */
    bool fetch_includes;        /* files that a submit does not bring along */
    bool fetch_private;         /* from private addresses, too */
    const char *templates;      /* a folder; NULL: what is installed */
    const struct fetch_project *projects;
    size_t project_count;
};

/* Serves until SIGTERM or SIGINT. 0, or an error that was logged. */
int serve(const struct serve_options *o);

#endif
