/* What a Docker Engine answers, as far as Davit wants to know it. All of it is foreign: nothing is
 * taken for granted but that it has been read into memory, and every text is bounded. Results live
 * in the arena. Functions return 0 or -E_PROTOCOL: no such answer. Pure. */
#ifndef DAVIT_ENGINE_ANSWERS_H
#define DAVIT_ENGINE_ANSWERS_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"

/* GET /version: the minor numbers of the API's version 1.N, the newest and the oldest it speaks. */
int answer_version(struct str text, unsigned *ret_newest, unsigned *ret_oldest);

/* Any error: appends one bounded line for people, also of what is no JSON. */
void answer_error(struct str text, struct buf *why);

/* POST /containers/create, /networks/create */
int answer_id(struct str text, struct arena *arena, const char **ret_id);

/* GET /images/NAME/json */
struct answer_image {
    const char *id;
    const char *user; /* "": root */
    const char **entrypoint;
    size_t entrypoint_count;
    const uint16_t *ports; /* of TCP that it says it listens on, lowest first */
    size_t port_count;
    bool health; /* it says how to find out whether it is well */
};
int answer_image(struct str text, struct arena *arena, struct answer_image *ret);

/* GET /containers/NAME/json */
struct answer_container {
    bool running;
    bool oom_killed;
    int64_t exit_code;
    const char *error;  /* of the Engine, or "" */
    const char *health; /* "", starting, healthy, unhealthy */
    const char *ipv4;   /* in its first network that has one, or "" */
};
int answer_container(struct str text, struct arena *arena, struct answer_container *ret);

/* GET /containers/json and /networks: who is there and whose it is. */
struct answer_item {
    const char *id;
    const char *job; /* the label davit.job, or "" */
};
int answer_list(struct str text, struct arena *arena, struct answer_item **ret, size_t *ret_count);

/* POST /images/create: a stream of lines, each a JSON object, which ends well or not only by what
 * they say. */
struct answer_pull {
    struct buf line;   /* not whole yet */
    bool skipping;     /* a line too long to be of interest */
    struct buf error;  /* of the last line that held one */
    struct buf status; /* "Digest: ..." and "Status: ..." lines, for the log */
};
void answer_pull_init(struct answer_pull *p);
void answer_pull_add(struct answer_pull *p, struct str bytes);
void answer_pull_end(struct answer_pull *p); /* takes the last line, where it has no end */
void answer_pull_release(struct answer_pull *p);

/* GET /containers/NAME/logs: frames of a header and some bytes, in pieces as they come; the output
 * of a container with a terminal has none and is not understood. */
struct answer_logs {
    uint8_t header[8];
    size_t header_bytes;
    uint32_t left; /* of this frame */
    bool broken;
};
void answer_logs_add(struct answer_logs *l, struct str bytes, struct buf *out);

#endif
