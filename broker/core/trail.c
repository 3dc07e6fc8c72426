#include "common/base.h"

#include "broker/core/apply.h"
#include "broker/core/rollout.h"
#include "common/limits.h"

/* The audit trail: what people changed through the API, by whom, from where and when. A row is
 * written by the command that it tells of, in the same transaction; the oldest go when there are
 * more than LIMIT_TRAIL. Not core_audit, which checks the store. */

#define TRAIL_TEXT 256u

struct told {
    const char *project;
    const char *target;
    uint64_t id;
};

static void tell_stored(struct core *c, const Pb__VariablesSet *set, struct told *ret)
{
    const Pb__SealedVariable *v = set->variables[0];

    ret->project = v->owner;
    ret->target = set->n_variables == 1
                      ? v->name
                      : arena_printf(c->arena, "%s and %zu more", v->name, set->n_variables - 1);
}

static bool tell_rollout(struct core *c, const Pb__Command *cmd, struct told *ret)
{
    if (cmd->body_case == PB__COMMAND__BODY_ROLLOUT_ACT) {
        ret->target = rollout_verb_text(cmd->rollout_act->verb);
        ret->id = cmd->rollout_act->rollout_id;
        return true;
    }
    if (cmd->body_case == PB__COMMAND__BODY_ROLLOUT_BEGIN) {
        ret->target = "undo";
        ret->id = c->reply->rollout_id;
        return true;
    }
    return false;
}

/* What a command was about; false: it is none that people give, or too common to be told. */
static bool tell(struct core *c, const Pb__Command *cmd, struct told *ret)
{
    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_PIPELINE_CREATE:
        *ret = (struct told){cmd->pipeline_create->project, cmd->pipeline_create->ref,
                             c->reply->pipeline_id};
        return !c->reply->duplicate;
    case PB__COMMAND__BODY_PIPELINE_CANCEL:
        ret->id = cmd->pipeline_cancel->pipeline_id;
        return true;
    case PB__COMMAND__BODY_PIPELINE_RETRY:
        ret->id = cmd->pipeline_retry->pipeline_id;
        return true;
    case PB__COMMAND__BODY_JOB_CANCEL:
        ret->id = cmd->job_cancel->job_id;
        return true;
    case PB__COMMAND__BODY_JOB_RETRY:
        ret->id = cmd->job_retry->job_id;
        return true;
    case PB__COMMAND__BODY_JOB_PLAY:
        ret->id = cmd->job_play->job_id;
        return true;
    case PB__COMMAND__BODY_WORKER_SET:
        ret->id = cmd->worker_set->worker_id;
        return true;
    case PB__COMMAND__BODY_ENVIRONMENT_STOP:
        ret->id = cmd->environment_stop->environment_id;
        return true;
    case PB__COMMAND__BODY_POOL_SET:
        ret->target = cmd->pool_set->name;
        return true;
    case PB__COMMAND__BODY_POOL_DELETE:
        ret->target = cmd->pool_delete->name;
        return true;
    case PB__COMMAND__BODY_PROJECT_SET:
        ret->project = cmd->project_set->name;
        return true;
    case PB__COMMAND__BODY_RESOURCE_GROUP_SET:
        *ret = (struct told){cmd->resource_group_set->project, cmd->resource_group_set->name, 0};
        return true;
    case PB__COMMAND__BODY_TOKEN_ADD:
        ret->target = arena_printf(c->arena, "%s (%s)", cmd->token_add->name, cmd->token_add->role);
        return true;
    case PB__COMMAND__BODY_JOIN_TOKEN_ADD:
        ret->target = arena_printf(c->arena, "pool %s", cmd->join_token_add->pool);
        return true;
    case PB__COMMAND__BODY_WORKER_JOIN:
        ret->target = cmd->worker_join->name;
        return true;
    case PB__COMMAND__BODY_WORKER_REVOKE:
        ret->target = cmd->worker_revoke->name;
        return true;
    case PB__COMMAND__BODY_TOKEN_REVOKE:
        ret->target = c->told;
        return true;
    case PB__COMMAND__BODY_VARIABLES_SET:
        tell_stored(c, cmd->variables_set, ret);
        return true;
    case PB__COMMAND__BODY_VARIABLE_DELETE:
        *ret = (struct told){cmd->variable_delete->owner, cmd->variable_delete->name, 0};
        return true;
    default:
        return tell_rollout(c, cmd, ret);
    }
}

/* "variables_set": as the command is called in the schema. */
static const char *action_of(const Pb__Command *cmd)
{
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(
        &pb__command__descriptor, (unsigned)cmd->body_case);

    return f != NULL ? f->name : "";
}

static void forget_oldest(struct core *c)
{
    struct cursor cur;
    struct key k = {.n = 0};

    tx_seek(&cur, c->tx, T_TRAIL, STR_NULL, NULL);
    if (cur.valid) {
        k = key_bytes(cur.key.p, cur.key.n);
    }
    cursor_end(&cur);
    if (k.n > 0) {
        tx_del(c->tx, T_TRAIL, &k);
    }
}

void trail_note(struct core *c, const Pb__Command *cmd)
{
    struct told told = {0};
    Pb__TrailRecord row = PB__TRAIL_RECORD__INIT;
    struct key k;

    if (cmd->from[0] == '\0' || !tell(c, cmd, &told)) {
        return;
    }
    row.seq = core_new_id(c);
    row.time_ms = c->now_ms;
    row.actor = text_clip(c->arena, c->actor, TRAIL_TEXT);
    row.from = text_clip(c->arena, cmd->from, TRAIL_TEXT);
    row.action = (char *)action_of(cmd);
    row.project = text_clip(c->arena, told.project != NULL ? told.project : "", TRAIL_TEXT);
    row.target = text_clip(c->arena, told.target != NULL ? told.target : "", TRAIL_TEXT);
    row.target_id = told.id;
    k = key_u64(row.seq);
    tx_put_msg(c->tx, T_TRAIL, &k, &row.base);
    while (tx_ok(c->tx) && tx_count(c->tx, T_TRAIL) > LIMIT_TRAIL) {
        forget_oldest(c);
    }
}
