/* Acting on what is there: cancel, retry, play, pause, drain. Each posts one command and answers
 * with the object as it is after the commit. */
#include "common/base.h"

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/object.h"
#include "broker/api/scope.h"
#include "broker/api/variables.h"

/* A refused command's error is the answer, with the core's line for people. */
static int refused(struct request *rq)
{
    return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                     : rq->result;
}

static int pipeline_done(struct request *rq)
{
    return rq->result < 0 ? refused(rq) : answer_pipeline(rq, MHD_HTTP_ACCEPTED, rq->args.id);
}

static int job_done(struct request *rq)
{
    return rq->result < 0 ? refused(rq) : answer_job(rq, MHD_HTTP_ACCEPTED, rq->args.id);
}

static int worker_done(struct request *rq)
{
    return rq->result < 0 ? refused(rq) : answer_worker(rq, MHD_HTTP_ACCEPTED, rq->args.id);
}

/* These requests say all in their path; a body may be `{}`. */
static int no_fields(struct request *rq)
{
    json_t *body;
    int r = body_parse(rq, true, &body);
    if (r < 0) {
        return r;
    }
    r = body_fields(rq, body, "", "");
    json_decref(body);
    return r;
}

int post_pipeline_cancel(struct request *rq)
{
    int r = no_fields(rq);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__PipelineCancel *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__pipeline_cancel__init(c);
    c->pipeline_id = rq->args.id;
    post_command(post)->body_case = PB__COMMAND__BODY_PIPELINE_CANCEL;
    post_command(post)->pipeline_cancel = c;
    return request_post(rq, post, pipeline_done);
}

int post_pipeline_retry(struct request *rq)
{
    int r = scope_ref_allowed(rq, ABOUT_PIPELINE, rq->args.id);
    r = r < 0 ? r : no_fields(rq);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__PipelineRetry *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__pipeline_retry__init(c);
    c->pipeline_id = rq->args.id;
    post_command(post)->body_case = PB__COMMAND__BODY_PIPELINE_RETRY;
    post_command(post)->pipeline_retry = c;
    return request_post(rq, post, pipeline_done);
}

int post_job_cancel(struct request *rq)
{
    int r = no_fields(rq);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__JobCancel *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__job_cancel__init(c);
    c->job_id = rq->args.id;
    post_command(post)->body_case = PB__COMMAND__BODY_JOB_CANCEL;
    post_command(post)->job_cancel = c;
    return request_post(rq, post, job_done);
}

int post_job_retry(struct request *rq)
{
    int r = scope_ref_allowed(rq, ABOUT_JOB, rq->args.id);
    r = r < 0 ? r : no_fields(rq);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__JobRetry *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__job_retry__init(c);
    c->job_id = rq->args.id;
    post_command(post)->body_case = PB__COMMAND__BODY_JOB_RETRY;
    post_command(post)->job_retry = c;
    return request_post(rq, post, job_done);
}

/* `{"variables":[...]}` gives the job variables that are stronger than all others;
 * `{"confirmed":true}` says that its manual_confirmation was seen. */
int post_job_play(struct request *rq)
{
    json_t *body;
    int r = scope_ref_allowed(rq, ABOUT_JOB, rq->args.id);
    r = r < 0 ? r : body_parse(rq, true, &body);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__JobPlay *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__job_play__init(c);
    c->job_id = rq->args.id;
    bool confirmed = false;
    r = body_fields(rq, body, "", "variables confirmed");
    r = r < 0 ? r : body_bool(rq, body, "confirmed", &confirmed);
    c->confirmed = confirmed;
    if (r == 0) {
        r = variables_read(rq, body, post_arena(post), &c->variables, &c->n_variables);
    }
    json_decref(body);
    if (r < 0) {
        post_free(post);
        return r;
    }
    post_command(post)->body_case = PB__COMMAND__BODY_JOB_PLAY;
    post_command(post)->job_play = c;
    return request_post(rq, post, job_done);
}

static int post_worker_set(struct request *rq, const Pb__WorkerSet *set)
{
    struct post *post = request_post_new(rq);
    Pb__WorkerSet *c = arena_alloc(post_arena(post), sizeof(*c));
    *c = *set;
    c->worker_id = rq->args.id;
    post_command(post)->body_case = PB__COMMAND__BODY_WORKER_SET;
    post_command(post)->worker_set = c;
    return request_post(rq, post, worker_done);
}

static int set_worker(struct request *rq, const Pb__WorkerSet *set)
{
    int r = no_fields(rq);
    return r < 0 ? r : post_worker_set(rq, set);
}

static int set_paused(struct request *rq, bool paused)
{
    Pb__WorkerSet set = PB__WORKER_SET__INIT;
    set.has_paused = true;
    set.paused = paused;
    return set_worker(rq, &set);
}

int post_worker_pause(struct request *rq)
{
    return set_paused(rq, true);
}

int post_worker_resume(struct request *rq)
{
    return set_paused(rq, false);
}

/* `{"deadline":"10m","leave":true}`: what runs then goes to other workers, and the worker's process
 * ends once it has no jobs. */
int post_worker_drain(struct request *rq)
{
    Pb__WorkerSet set = PB__WORKER_SET__INIT;
    bool leave = false;
    json_t *body;
    int r = body_parse(rq, true, &body);
    if (r < 0) {
        return r;
    }
    set.has_draining = true;
    set.draining = true;
    r = body_fields(rq, body, "", "deadline leave");
    r = r < 0 ? r : body_bool(rq, body, "leave", &leave);
    set.leave = leave;
    r = r < 0 ? r : body_duration(rq, body, "deadline", LIMIT_TIMEOUT_MS, &set.drain_for_ms);
    json_decref(body);
    return r < 0 ? r : post_worker_set(rq, &set);
}

int post_worker_undrain(struct request *rq)
{
    Pb__WorkerSet set = PB__WORKER_SET__INIT;
    set.has_draining = true;
    return set_worker(rq, &set);
}
