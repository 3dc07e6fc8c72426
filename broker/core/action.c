#include "common/base.h"

#include "broker/core/apply.h"
#include "broker/core/query.h"
#include "common/limits.h"

/* Jobs that are no processes: what they may ask for, and what they bring. */

#define METHOD_BYTES  20u
#define WAIT_GRACE_MS 60000u

bool executor_is_action(const char *executor)
{
    const struct str s = str_from(executor);

    return str_eqz(s, "action") || str_starts(s, STR("action/")) || str_starts(s, STR("prefork/"));
}

bool class_is_action(const Pb__ClassRecord *class)
{
    return executor_is_action(class->executor);
}

bool worker_runs_processes(const Pb__WorkerRecord *w)
{
    for (size_t i = 0; i < w->n_executors; i++) {
        if (!executor_is_action(w->executors[i])) {
            return true;
        }
    }
    return false;
}

/* Which workers have it: "action", or a kind and one of that kind. */
struct wanted {
    const char *kind;
    const char *name; /* "": any */
};

static struct wanted wanted_by(const Pb__ActionSpec *spec)
{
    switch (spec != NULL ? (int)spec->what_case : 0) {
    case PB__ACTION_SPEC__WHAT_DRIVER:
        return (struct wanted){"action", spec->driver->driver};
    case PB__ACTION_SPEC__WHAT_PREFORK:
        return (struct wanted){"prefork", spec->prefork->name};
    default:
        return (struct wanted){"action", ""};
    }
}

char *action_executor(struct arena *arena, const Pb__ActionSpec *spec)
{
    static char plain[] = "action";
    const struct wanted w = wanted_by(spec);

    return w.name[0] != '\0' ? arena_printf(arena, "%s/%s", w.kind, w.name) : plain;
}

bool action_same_executor(const Pb__ActionSpec *a, const Pb__ActionSpec *b)
{
    const struct wanted x = wanted_by(a), y = wanted_by(b);

    return (a != NULL) == (b != NULL) && strcmp(x.kind, y.kind) == 0 && strcmp(x.name, y.name) == 0;
}

/* One that is to wait for longer than jobs may take is not cut off for that. */
uint64_t action_timeout_ms(const Pb__PlanJob *plan)
{
    const Pb__ActionSpec *spec = plan->action;
    const bool waits = spec != NULL && spec->what_case == PB__ACTION_SPEC__WHAT_WAIT;
    const uint64_t wait_ms = waits ? spec->wait->ms + WAIT_GRACE_MS : 0;

    return MAX(wait_ms, (uint64_t)CORE_DEFAULT_TIMEOUT_MS);
}

static bool is_method(const char *method)
{
    size_t n = 0;

    while (method[n] >= 'A' && method[n] <= 'Z') {
        n++;
    }
    return method[n] == '\0' && n <= METHOD_BYTES;
}

/* A token of RFC 9110, 5.6.2. */
static bool is_header_name(const char *name)
{
    static const char extra[] = "!#$%&'*+-.^_`|~";
    size_t n = 0;

    for (; name[n] != '\0'; n++) {
        const char c = name[n];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
            strchr(extra, c) == NULL) {
            return false;
        }
    }
    return n > 0 && n <= LIMIT_NAME;
}

static bool ranges_ok(const Pb__HttpAction *h)
{
    for (size_t i = 0; i < h->n_expect; i++) {
        const Pb__StatusRange *range = h->expect[i];
        if (range->from < 100 || range->from > range->to || range->to > 999) {
            return false;
        }
    }
    return h->n_expect <= LIMIT_ACTION_RANGES;
}

static bool headers_ok(const Pb__HttpAction *h)
{
    for (size_t i = 0; i < h->n_headers; i++) {
        if (!is_header_name(h->headers[i]->name) || h->headers[i]->value.len > LIMIT_ACTION_BODY) {
            return false;
        }
    }
    return h->n_headers <= LIMIT_ACTION_HEADERS;
}

static const char *http_wrong(const Pb__HttpAction *h)
{
    if (!is_method(h->method)) {
        return "action: a method is upper case letters";
    }
    if (h->url.len == 0 || h->url.len > LIMIT_URL) {
        return "action: no URL, or too long a one";
    }
    if (!headers_ok(h)) {
        return "action: a bad header, or too many";
    }
    if (h->body.len > LIMIT_ACTION_BODY || h->expect_body.len > LIMIT_EXPRESSION ||
        h->ca.len > LIMIT_ACTION_CA) {
        return "action: too long a body, expression or list of authorities";
    }
    if (!ranges_ok(h)) {
        return "action: a bad range of statuses, or too many";
    }
    if (h->redirects > LIMIT_ACTION_REDIRECTS || h->keep_bytes > LIMIT_ACTION_RESULT ||
        h->timeout_ms > LIMIT_TIMEOUT_MS) {
        return "action: too many redirects, too much to keep, or too long a timeout";
    }
    return NULL;
}

static const char *tcp_wrong(const Pb__TcpAction *t)
{
    const bool good = t->host.len > 0 && t->host.len <= LIMIT_URL && t->port > 0 &&
                      t->port <= 65535 && t->ca.len <= LIMIT_ACTION_CA &&
                      t->timeout_ms <= LIMIT_TIMEOUT_MS;

    return good ? NULL : "action: a bad host, port or timeout";
}

static const char *driver_wrong(const Pb__DriverAction *d)
{
    const bool good = name_ok(d->driver) && strlen(d->driver) <= LIMIT_NAME - strlen("action/") &&
                      name_ok(d->verb) && name_ok(d->target) && d->fence != NULL;

    return good ? NULL : "action: a driver without a name, verb, target or fence";
}

static const char *prefork_wrong(const Pb__PreforkAction *p)
{
    const bool good = name_ok(p->name) && strlen(p->name) <= LIMIT_PREFORK_NAME &&
                      p->input.len <= LIMIT_ACTION_BODY && p->keep_bytes <= LIMIT_ACTION_RESULT &&
                      str_is_utf8(pb_str(p->input), NULL);

    return good ? NULL : "action: a pool without a name, or too much to bring or to keep";
}

static const char *what_wrong(const Pb__ActionSpec *spec)
{
    switch ((int)spec->what_case) {
    case PB__ACTION_SPEC__WHAT_HTTP:
        return http_wrong(spec->http);
    case PB__ACTION_SPEC__WHAT_TCP:
        return tcp_wrong(spec->tcp);
    case PB__ACTION_SPEC__WHAT_WAIT:
        return spec->wait->ms <= LIMIT_TIMEOUT_MS - WAIT_GRACE_MS ? NULL
                                                                  : "action: too long a wait";
    case PB__ACTION_SPEC__WHAT_DRIVER:
        return driver_wrong(spec->driver);
    case PB__ACTION_SPEC__WHAT_PREFORK:
        return prefork_wrong(spec->prefork);
    default:
        return "action: it does nothing";
    }
}

/* What only a process has a use for. */
static bool wants_process(const Pb__PlanJob *job)
{
    return job->n_script > 0 || job->n_after_script > 0 || job->image != NULL ||
           job->n_services > 0 || job->n_caches > 0 || job->n_pre_get_sources > 0 ||
           job->trigger != NULL || job->coverage.len > 0 || job->artifacts != NULL ||
           job->release != NULL || job->pages != NULL || job->cpu_millis != 0 ||
           job->memory_bytes != 0 || job->disk_bytes != 0;
}

const char *plan_action_wrong(const Pb__PlanJob *job)
{
    if (job->action == NULL) {
        return executor_is_action(job->executor) ? "the executor `action` without an action" : NULL;
    }
    if (job->executor[0] != '\0' && !executor_is_action(job->executor)) {
        return "an action with another executor than `action`";
    }
    if (wants_process(job)) {
        return "an action with a script, or with what is for processes alone";
    }
    return what_wrong(job->action);
}

bool action_result_ok(const Pb__ActionResult *result)
{
    return text_ok(result->code, LIMIT_NAME) && strlen(result->text) <= LIMIT_ACTION_TEXT &&
           result->body.len <= LIMIT_ACTION_RESULT && result->data.len <= LIMIT_ACTION_DATA;
}
