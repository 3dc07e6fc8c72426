/* A whole broker with HTTP, in a folder of its own, and no workers but those that a test plays by
 * posting their commands. cmocka's setup and teardown: a test's *state is its struct fixture.
 *
 * Two clients: `call` (libcurl, for requests as they should be) and struct plug (a bare socket, for
 * all others). */
#ifndef DAVIT_TEST_API_FIXTURE_H
#define DAVIT_TEST_API_FIXTURE_H

#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "broker/api/api.h"
#include "broker/turn_run.h"
#include "common/log.h"
#include "common/os.h"

#define ADMIN_TOKEN      "dva_admin-of-the-test"
#define USER_TOKEN       "dvu_user-of-the-test"
#define WORKER_TOKEN     "dvw_worker-of-the-test"
#define JOB_KEY          "0123456789abcdef0123456789abcdef"

#define PING_MS          100u
#define HEAD_MS          300u

#define JOB_UPLOADS      (1024u * 1024)
#define PIPELINE_UPLOADS (1536u * 1024)

struct fixture {
    char dir[64];
    char *journal_dir;
    struct store *store;
    struct bus *bus;
    struct inbox *inbox;
    struct blobs *blobs;
    struct logs *logs;
    struct pages *pages;
    struct signer *signer;
    struct vault *vault;
    struct fleet *fleet;
    struct turn *turn;
    struct api *api;
    uint64_t worker_id; /* of worker_hello */
};

int setup(void **state);
int teardown(void **state);
/* Ends the API and starts it again on another port. head_ms 0: the default. */
void fixture_restart_api(struct fixture *x, uint32_t head_ms);

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* --- requests --- */

struct answer {
    int status;
    struct buf head; /* all header lines */
    struct buf body;
    json_t *json; /* NULL: the body is none */
};

struct call {
    const char *method; /* NULL: GET, or POST with a body */
    const char *path;
    const char *token; /* NULL: the admin's; "": none */
    const char *body;  /* NULL: none */
    size_t body_size;  /* 0: strlen(body) */
    const char *headers[4];
};

void answer_release(struct answer *a);
void call(struct fixture *x, const struct call *c, struct answer *ret);
/* Short forms: checks the status and returns the JSON, which is the caller's. */
json_t *get_json(struct fixture *x, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);
json_t *post_json(struct fixture *x, int status, const char *body, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* Checks status and code of a problem. */
void assert_problem(struct fixture *x, const struct call *c, int status, const char *code);
const char *text_of(const json_t *object, const char *name); /* "" for null and absent */
uint64_t id_of(const json_t *object, const char *name);      /* 0 for null and absent */

/* --- a bare socket --- */

struct plug {
    int fd;
    struct buf in;
};

void plug_open(struct plug *w, struct fixture *x);
void plug_close(struct plug *w);
void plug_send(struct plug *w, const void *p, size_t n);
void plug_sendf(struct plug *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Reads until `text` came (true), the other side closed, or wait_ms are over. */
bool plug_until(struct plug *w, const char *text, uint64_t wait_ms);
bool plug_closed(struct plug *w, uint64_t wait_ms); /* reads on until the end */
int plug_status(struct plug *w); /* of the answer, or 0 when the connection ended without one */

/* --- what a worker would do --- */

/* Submits one job `build` with a script; its ids. */
uint64_t submit(struct fixture *x, const char *yaml, uint64_t *ret_first_job);
uint64_t submit_ref(struct fixture *x, const char *yaml, const char *ref, uint64_t *ret_first_job);
/* A pipeline of group/test whose one job deploys there, without the compiler; the job's id. */
uint64_t submit_deploy(struct fixture *x, const char *environment);
void worker_hello(struct fixture *x);
void worker_hello_pool(struct fixture *x, const char *pool); /* another one for each pool */
void job_assign(struct fixture *x, uint64_t job_id);
void job_start(struct fixture *x, uint64_t job_id);
void job_finish(struct fixture *x, uint64_t job_id, Pb__JobState result, const uint8_t *artifact);
/* A good end with all that `o` says. */
void job_finish_with(struct fixture *x, uint64_t job_id, const Pb__Outcome *o);
void job_log(struct fixture *x, uint64_t job_id, uint64_t offset, const char *text);
char *token_of_job(struct fixture *x, uint64_t job_id); /* heap */

#endif
