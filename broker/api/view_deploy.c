/* Environments, deployments, releases, caches as JSON. */
#include "common/base.h"

#include <stdlib.h>

#include "broker/api/view.h"
#include "broker/core/query.h"

/* What jobs said may be no UTF-8: bytes that are none show as `?`. */
json_t *json_bytes(ProtobufCBinaryData bytes)
{
    struct str text = pb_str(bytes);
    size_t bad;
    if (text.n == 0) {
        return json_null();
    }
    char *copy = str_dup(text);
    struct str rest = str_of(copy, text.n);
    while (!str_is_utf8(rest, &bad)) {
        copy[(size_t)(rest.p - copy) + bad] = '?';
        rest = str_sub(rest, bad, rest.n);
    }
    json_t *shown = json_stringn(copy, text.n);
    free(copy);
    return shown;
}

json_t *view_environment(struct tx *tx, const Pb__EnvironmentRecord *e)
{
    const Pb__ProjectRecord *project = project_get(tx, e->project_id);
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "id",
                     json_id(e->id), "project", json_text(project ? project->name : NULL), "name",
                     json_text(e->name), "slug", json_text(e->slug), "tier", json_text(e->tier),
                     "state", environment_state_text(e->state), "url", json_bytes(e->url),
                     "created_at", json_time(e->created_ms), "stopped_at", json_time(e->stopped_ms),
                     "auto_stop_at", json_time(e->auto_stop_ms), "on_stop_job_id",
                     json_id(e->on_stop_job_id), "deployment_id", json_id(e->deployment_id));
}

json_t *view_deployment(const Pb__DeploymentRecord *d)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:s, s:o, s:o}", "id", json_id(d->id),
                     "pipeline_id", json_id(d->pipeline_id), "job_id", json_id(d->job_id), "ref",
                     json_text(d->ref), "sha", json_text(d->sha), "tag", (int)d->tag, "status",
                     job_state_text(d->status), "created_at", json_time(d->created_ms),
                     "finished_at", json_time(d->finished_ms));
}

static json_t *release_links(const Pb__ReleaseSpec *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_links; i++) {
        const Pb__ReleaseLink *l = r->links[i];
        json_array_append_new(list,
                              json_pack("{s:o, s:o, s:o, s:o}", "name", json_bytes(l->name), "url",
                                        json_bytes(l->url), "filepath", json_bytes(l->filepath),
                                        "type", json_bytes(l->type)));
    }
    return list;
}

json_t *view_release(const char *project, const Pb__ReleaseRecord *r)
{
    const Pb__ReleaseSpec empty = PB__RELEASE_SPEC__INIT;
    const Pb__ReleaseSpec *spec = r->release ? r->release : &empty;
    json_t *milestones = json_array();
    for (size_t i = 0; i < spec->n_milestones; i++) {
        json_array_append_new(milestones, json_bytes(spec->milestones[i]));
    }
    return json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id",
                     json_id(r->id), "project", project, "tag", json_bytes(spec->tag_name),
                     "tag_message", json_bytes(spec->tag_message), "name", json_bytes(spec->name),
                     "description", json_bytes(spec->description), "ref", json_bytes(spec->ref),
                     "sha", json_text(r->sha), "milestones", milestones, "links",
                     release_links(spec), "released_at", json_bytes(spec->released_at), "job_id",
                     json_id(r->job_id), "created_at", json_time(r->created_ms));
}

json_t *view_cache(const Pb__CacheRecord *c)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "key", json_bytes(c->key), "digest",
                     json_digest(c->digest), "size", json_integer((json_int_t)c->size), "job_id",
                     json_id(c->job_id), "created_at", json_time(c->created_ms));
}
