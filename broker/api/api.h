/* The HTTP API under /api/v1 (docs/http-api.md), /metrics, /healthz, /readyz: libmicrohttpd with
 * epoll threads and suspend/resume. Reads use read transactions of their own; writes suspend the
 * connection, post a command to the turn and answer when it has committed.
 * Routes stand in one table (routes.def). Threads: MHD's; api_start and api_stop from main. */
#ifndef DAVIT_API_H
#define DAVIT_API_H

#include "broker/blob/blob.h"
#include "broker/blob/logs.h"
#include "broker/bus.h"
#include "broker/net/fleet.h"
#include "broker/pages/pages.h"
#include "broker/store/store.h"
#include "broker/turn.h"
#include "broker/vault/authority.h"
#include "broker/vault/signer.h"
#include "broker/vault/vault.h"

struct api;
struct fetch_config;
struct https;
struct api_config {
    struct store *store;
    struct turn *turn;
    struct fleet *fleet;
    struct blobs *blobs;
    struct logs *logs;
    struct bus *bus;
    struct pages *pages;
    const struct signer *signer;         /* of id tokens: its public key is shown */
    struct vault *vault;                 /* of stored variables */
    const struct fetch_config *includes; /* for files that did not come along; NULL: none are */
    /* POST /reload, on a work thread: lines as of broker/reload.h. NULL: nothing is to reload. */
    int (*reload)(void *ctx, struct buf *changed, struct buf *restart, struct buf *why);
    /* The same without doing it: what would be another, what waits for a restart. -E_CONFLICT:
     * there is no file. */
    int (*check_config)(void *ctx, struct buf *changed, struct buf *restart, struct buf *why);
    void *reload_ctx;            /* of both */
    struct authority *authority; /* lets workers in, and certifies the server; NULL: none */
    struct https *https;         /* speaks TLS; NULL: plain */
    bool plain_anywhere;         /* without TLS: not on loopback only, else -E_USAGE */
    const char *host;            /* numeric, or localhost */
    const char *public_name;     /* in URLs of this server instead of host; NULL: host */
    bool fleet_tls;              /* workers are told so when they join */
    uint16_t port;               /* 0: any */
    uint32_t ping_ms;            /* silence of a follower until it gets a ping; 0: 15 s */
    uint32_t head_ms; /* time for the head of a request, a quarter of a body's; 0: 15 s */
    const char *trusted_proxies; /* addresses, with commas between; NULL: none */
    uint32_t rate;             /* requests a second of one token, but an administrator's; 0: any */
    uint64_t job_uploads;      /* bytes with one job's token; 0: LIMIT_JOB_UPLOADS */
    uint64_t pipeline_uploads; /* of all its jobs; 0: LIMIT_PIPELINE_UPLOADS */
};
int api_start(const struct api_config *config, struct api **ret, struct buf *why);
uint16_t api_port(const struct api *a);
/* Where workers find the fleet's listener, on whatever host they find this one. */
void api_set_fleet_port(struct api *a, uint16_t port);
/* From now on /readyz says yes: whoever else has to listen does. */
void api_set_ready(struct api *a);
/* Refuses new requests, wakes all followers, waits for the rest. */
void api_stop(struct api *a);

/* The token of an assignment: HMAC over (job, attempt, epoch) with the store's key. It is valid as
 * long as that assignment is, and opens the blobs of the job's pipeline. Heap. */
char *job_token(struct str key, uint64_t job_id, uint64_t attempt, uint64_t epoch);

#endif
