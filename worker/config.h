/* What the command line of davit-worker says, checked. Ownership: the strings are the config's.
 * Threads: read only once parsed. */
#ifndef DAVIT_WORKER_CONFIG_H
#define DAVIT_WORKER_CONFIG_H

#include "common/buf.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/identity.h"

struct name_list {
    char **names;
    size_t count;
};

struct worker_config {
    char *broker;
    char *token_file;          /* NULL with an identity */
    struct identity *identity; /* of a worker that has joined; heap; NULL: it has not */
    char *state;
    char *name;
    char *pool;
    struct name_list tags;
    struct name_list executors;
    uint64_t slots;
    uint64_t cancel_grace_ms;
    uint64_t min_free_mb;
    uint32_t cpu_millis; /* what its jobs may take together; 0 in all three: it was not said, and */
    uint64_t memory_bytes; /* is what the machine has */
    uint64_t disk_bytes;
    bool run_untagged;
    bool help;
    enum log_level log_level;
};

extern const char worker_usage[];

/* argv without the program's name. -E_USAGE with a line in `why`. */
int worker_config_parse(struct worker_config *c, int argc, char **argv, struct buf *why);
void worker_config_release(struct worker_config *c);

#endif
