/* What the command line of davit-worker says, checked. Ownership: the strings are the config's.
 * Threads: read only once parsed. */
#ifndef DAVIT_WORKER_CONFIG_H
#define DAVIT_WORKER_CONFIG_H

#include "common/buf.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/action/prefork.h"
#include "worker/action/reach.h"
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
    uint64_t actions; /* at a time, of the executor action */
    struct reach reach;
    struct prefork_config *preforks;
    size_t prefork_count;
    uint64_t prefork_jobs; /* then a process is replaced; 0: never */
    uint64_t cancel_grace_ms;
    uint64_t min_free_mb;
    uint32_t cpu_millis; /* what its jobs may take together; 0 in all three: it was not said, and */
    uint64_t memory_bytes; /* is what the machine has */
    uint64_t disk_bytes;
    uint64_t cache_bytes; /* of its copies of caches; 0: LIMIT_WORKER_CACHE_BYTES */
    struct docker_config {
        char *socket;
        char *image; /* NULL: none */
        char *auth;  /* NULL: none */
        struct name_list pull;
        struct name_list allow_pull;
        struct name_list allow_images;
        struct name_list allow_services;
        struct name_list volumes;
        uint64_t memory_bytes;
        uint64_t pids;
        uint64_t service_wait_s;
        uint32_t cpu_millis;
        bool privileged;
    } docker;
    struct sandbox_config {
        struct name_list read;
        struct name_list write;
        bool network;
    } sandbox;
    bool run_untagged;
    bool local_git; /* file:// is a source of jobs */
    bool help;
    enum log_level log_level;
};

extern const char worker_usage[];

/* argv without the program's name. -E_USAGE with a line in `why`. */
int worker_config_parse(struct worker_config *c, int argc, char **argv, struct buf *why);
void worker_config_release(struct worker_config *c);
bool worker_config_has_executor(const struct worker_config *c, const char *name);
/* Which of its executors a job is for that names one, or none (""), and may want containers.
 * One that the worker does not have, or "": it cannot run it. */
const char *worker_config_choose(const struct worker_config *c, const char *named, bool contained);

#endif
