#include "common/base.h"

#include "broker/api/scope.h"

#include <stdlib.h>

#include "broker/api/server.h"
#include "broker/core/query.h"

int scope_limit(struct request *rq, uint64_t *ret)
{
    int r = request_query_u64(rq, "limit", SCOPE_LIMIT_DEFAULT, ret);
    if (r == 0 && (*ret == 0 || *ret > LIMIT_PAGE)) {
        r = request_fail(rq, -E_INVALID, "`limit` is 1 to %u", LIMIT_PAGE);
    }
    return r;
}

int scope_project(struct request *rq, struct tx *tx, const char *name,
                  const Pb__ProjectRecord **ret)
{
    int r = 0;
    *ret = project_by_name(tx, name);
    if (!*ret) {
        r = tx_ok(tx) ? request_fail(rq, -E_NOT_FOUND, "there is no project `%.255s`", name)
                      : tx_error(tx);
        tx_abort(tx);
    }
    return r;
}

int scope_open(struct request *rq, struct tx **ret_tx, const Pb__ProjectRecord **ret)
{
    const char *name = request_query(rq, "project");
    if (!name) {
        return request_fail(rq, -E_INVALID, "`project` is missing in the query");
    }
    int r = api_read(rq->api, ret_tx);
    return r < 0 ? r : scope_project(rq, *ret_tx, name, ret);
}

/* --- tokens of some projects --- */

bool scope_sees(struct request *rq, struct tx *tx, uint64_t project_id)
{
    if (!rq->who.some) {
        return true;
    }
    const Pb__ProjectRecord *p = project_get(tx, project_id);
    return p && principal_sees(&rq->who, p->name);
}

int scope_project_allowed(struct request *rq, const char *project)
{
    return principal_sees(&rq->who, project)
               ? 0
               : request_fail(rq, -E_NOT_FOUND, "there is no project `%.255s`", project);
}

/* 0: there is no such thing. */
static uint64_t project_of(struct tx *tx, enum route_about about, uint64_t id)
{
    if (about == ABOUT_PIPELINE) {
        const Pb__PipelineRecord *p = pipeline_get(tx, id);
        return p ? p->project_id : 0;
    }
    if (about == ABOUT_JOB) {
        const Pb__JobRecord *j = job_get(tx, id);
        return j ? j->project_id : 0;
    }
    const Pb__EnvironmentRecord *e = environment_get(tx, id);
    return e ? e->project_id : 0;
}

static int check_id(struct request *rq, enum route_about about)
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    if (!scope_sees(rq, tx, project_of(tx, about, rq->args.id))) {
        r = request_fail(rq, -E_NOT_FOUND, "there is nothing with the id %" PRIu64, rq->args.id);
    }
    tx_abort(tx);
    return r;
}

static int check_query(struct request *rq)
{
    const char *project = request_query(rq, "project");
    const char *group = request_query(rq, "group");
    if (group && !principal_sees_group(&rq->who, group)) {
        return request_fail(rq, -E_FORBIDDEN, "this token is not for all of group `%.255s`", group);
    }
    if (project) {
        return scope_project_allowed(rq, project);
    }
    return group ? 0 : request_fail(rq, -E_FORBIDDEN, "this token is for some projects alone");
}

/* Settings of all projects are an administrator's, whatever else his token may be good for. */
static int check_installation(struct request *rq)
{
    bool named = request_query(rq, "project") || request_query(rq, "group");
    return rq->who.role == ROLE_MAINTAINER && !named &&
                   strncmp(rq->route->path, "/api/v1/variables", strlen("/api/v1/variables")) == 0
               ? request_fail(rq, -E_FORBIDDEN, "variables of all projects are an administrator's")
               : 0;
}

int scope_check(struct request *rq)
{
    if (rq->route->roles == ROLE_NONE || rq->who.role == ROLE_JOB) {
        return 0;
    }
    if (!rq->who.some) {
        return check_installation(rq);
    }
    const enum route_about about = route_about(rq->route);
    switch (about) {
    case ABOUT_ANY:
        return 0;
    case ABOUT_HANDLER:
        return request_query(rq, "project") ? check_query(rq) : 0;
    case ABOUT_PIPELINE:
    case ABOUT_JOB:
    case ABOUT_ENVIRONMENT:
        return check_id(rq, about);
    case ABOUT_PROJECT: {
        char *name = str_dup(rq->args.rest);
        int r = scope_project_allowed(rq, name);
        free(name);
        return r;
    }
    case ABOUT_QUERY:
        return check_query(rq);
    case ABOUT_INSTALLATION:
    default:
        return request_fail(rq, -E_FORBIDDEN, "this token is for some projects alone");
    }
}

/* 0: there is none. */
static uint64_t pipeline_of(struct tx *tx, enum route_about about, uint64_t id)
{
    if (about == ABOUT_PIPELINE) {
        return id;
    }
    if (about == ABOUT_ENVIRONMENT) {
        const Pb__EnvironmentRecord *e = environment_get(tx, id);
        id = e ? e->on_stop_job_id : 0;
    }
    const Pb__JobRecord *job = id != 0 ? job_get(tx, id) : NULL;
    return job ? job->pipeline_id : 0;
}

int scope_ref_allowed(struct request *rq, enum route_about about, uint64_t id)
{
    struct tx *tx;
    int r = rq->who.role == ROLE_DEVELOPER ? api_read(rq->api, &tx) : 0;
    if (r < 0 || rq->who.role != ROLE_DEVELOPER) {
        return r;
    }
    const uint64_t pipeline_id = pipeline_of(tx, about, id);
    const Pb__PipelineRecord *p = pipeline_id != 0 ? pipeline_get(tx, pipeline_id) : NULL;
    const Pb__PipelineVariablesRecord *vars = p ? pipeline_variables_get(tx, p->id) : NULL;
    if (p && vars && ref_is_protected(p, vars)) {
        r = request_fail(rq, -E_FORBIDDEN,
                         "`%.255s` is protected: a developer's token starts no jobs there", p->ref);
    }
    tx_abort(tx);
    return r;
}

int scope_was_protected(struct request *rq, const char *project, const char *ref, bool *ret)
{
    struct cursor c;
    struct tx *tx;
    unsigned rows = 0;
    bool found = false;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__ProjectRecord *of = project_by_name(tx, project);
    const struct key prefix = key_u64(of ? of->id : 0);
    for (tx_seek_last(&c, tx, T_PROJECT_PIPELINE, key_str(&prefix));
         c.valid && !found && rows < SCOPE_PIPELINES; tx_prev(&c), rows++) {
        const Pb__PipelineRecord *p = pipeline_get(tx, key_read_u64(c.key, sizeof(uint64_t)));
        const bool same = p && strcmp(p->ref, ref) == 0;
        const Pb__PipelineVariablesRecord *vars = same ? pipeline_variables_get(tx, p->id) : NULL;
        found = vars && ref_is_protected(p, vars);
    }
    cursor_end(&c);
    r = tx_error(tx);
    tx_abort(tx);
    *ret = found;
    return r;
}
