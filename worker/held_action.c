/* Actions in the worker's hands: a job that is on no disk. */
#include "common/base.h"

#include <utlist.h>

#include "common/log.h"
#include "worker/action/action.h"
#include "worker/agent.h"
#include "worker/held.h"

#define WHERE_FMT "action %" PRIu64 " (%s) attempt %" PRIu64 " epoch %" PRIu64
#define WHERE(h)  (h)->key.job_id, (h)->spec->name, (h)->key.attempt, (h)->key.epoch

bool held_wants_action(const Pb__JobSpec *spec)
{
    return spec->action != NULL || action_is_executor(spec->executor);
}

/* From here on there is something to be said of it. */
static void leave_quiet(struct held *h)
{
    struct agent *a = h->agent;
    DL_DELETE(a->quiet, h);
    DL_APPEND(a->jobs, h);
    h->quiet = false;
}

static void end(struct held *h, Pb__Outcome *outcome, struct str said)
{
    struct buf note = BUF_INIT;
    outcome->detail = held_text(&h->arena, outcome->detail);
    log_debug(WHERE_FMT " ended: %s", WHERE(h), outcome->detail);
    buf_add_str(&note, said);
    if (outcome->detail[0] != '\0') {
        buf_addf(&note, "%sdavit: %s\n", said.n > 0 && said.p[said.n - 1] != '\n' ? "\n" : "",
                 outcome->detail);
    }
    h->outcome = (Pb__Outcome *)pb_copy(&h->arena, &outcome->base);
    h->phase = HELD_ENDED;
    logship_end(&h->log, buf_str(&note));
    leave_quiet(h);
    h->fresh_output = true;
    if (note.n > 0 || !session_is_open(&h->agent->session)) {
        agent_pump_soon(h->agent); /* what it says goes first */
    } else {
        while (held_ship(h)) { /* all of an empty log, and then its end */
        }
    }
    buf_release(&note);
}

static void on_end(void *ctx, Pb__ActionResult *result, Pb__Reason reason)
{
    struct held *h = ctx;
    Pb__Outcome outcome = PB__OUTCOME__INIT;
    const struct str said = action_log(h->action);
    h->action = NULL; /* it goes by itself */
    outcome.result = result->ok ? JOB_SUCCESS : JOB_FAILED;
    outcome.reason = reason;
    outcome.exit_code = result->ok ? 0 : 1;
    outcome.detail = result->text;
    outcome.action = result;
    end(h, &outcome, said);
}

/* It never began. */
static void refuse(struct held *h, Pb__Reason reason, const char *why)
{
    Pb__Outcome outcome = PB__OUTCOME__INIT;
    outcome.result = JOB_FAILED;
    outcome.reason = reason;
    outcome.detail = (char *)(uintptr_t)why;
    end(h, &outcome, STR_NULL);
}

void held_accept_action(struct agent *a, const Pb__JobSpec *spec)
{
    struct held *h = held_new(a, job_key_of(spec->key), true);
    struct buf why = BUF_INIT;
    h->spec = (Pb__JobSpec *)pb_copy(&h->arena, &spec->base);
    held_listed(h, true);
    h->phase = HELD_RUNNING;
    h->ran = true;
    if (a->actions == NULL || h->spec->action == NULL) {
        refuse(h, REASON_UNMET_PREREQUISITES,
               a->actions == NULL ? "this worker has no actions and no pools"
                                  : "a job of the executor `action` says what to do in `action`");
    } else if (held_lacks(h, &why)) {
        refuse(h, REASON_CONFIG_ERROR, buf_cstr(&why));
    } else {
        h->action = action_begin(a->actions, h->spec, on_end, h);
    }
    buf_release(&why);
}

static void stop(struct held *h)
{
    if (h->action != NULL) {
        action_cancel(h->action);
        h->action = NULL;
    }
}

void held_cancel_action(struct held *h)
{
    if (h->phase == HELD_RUNNING) {
        Pb__Outcome outcome = PB__OUTCOME__INIT;
        outcome.result = JOB_CANCELED;
        stop(h);
        end(h, &outcome, STR_NULL);
    }
}

void held_return_action(struct held *h)
{
    check(h->phase == HELD_RUNNING);
    stop(h);
    h->phase = HELD_RETURNING;
    leave_quiet(h);
    held_tell(h);
}

void held_tell_quiet(struct agent *a)
{
    struct held *h;
    DL_FOREACH (a->quiet, h) {
        held_tell(h);
    }
}
