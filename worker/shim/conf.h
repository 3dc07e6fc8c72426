/* shim.conf as davit-shim reads it. Everything points into the file's text. */
#ifndef DAVIT_SHIM_CONF_H
#define DAVIT_SHIM_CONF_H

#include "common/mask.h"
#include "worker/shim/shim.h"

enum step_kind { STEP_MAIN, STEP_AFTER, STEP_ALWAYS };

struct conf_step {
    const char *name;
    enum step_kind kind;
    uint64_t timeout_ms; /* 0: none of its own */
    const char *cwd;
    const char **argv; /* NULL-terminated */
    size_t arg_count;
    const char *
        *either; /* NULL, or NULL-terminated: the programs of which one is argv[either_at] */
    size_t either_count;
    size_t either_at;
    bool quiet;
    const char **envp; /* NULL-terminated, with room for CONF_ENV_EXTRA more */
    size_t env_count;
};
#define CONF_ENV_EXTRA 3u

struct conf {
    struct buf text;
    uint64_t head_bytes;
    uint64_t tail_bytes;
    uint64_t grace_ms;
    uint64_t timeout_ms;
    uint64_t open_files; /* 0: was not said */
    struct mask *mask;
    bool inherit;
    struct conf_step steps[SHIM_STEPS_MAX];
    size_t step_count;
};

int conf_load(struct conf *c, const char *folder); /* -E_CORRUPT: not as shim.h says */
void conf_release(struct conf *c);

#endif
