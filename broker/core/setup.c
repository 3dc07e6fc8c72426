#include "common/base.h"

#include "broker/core/apply.h"
#include "common/crypto.h"
#include "common/limits.h"

#define STORE_ID_BYTES      16u
#define JOB_TOKEN_KEY_BYTES 32u

struct key meta_key(void)
{
    return key_bytes("meta", 4);
}

/* First command of a store: its identity and its counters, which all start at 1. */
int apply_init_store(struct core *c, const Pb__InitStore *cmd)
{
    if (c->meta->schema_version != 0) {
        return reject(c, -E_EXISTS, "the store is initialised already");
    }
    if (cmd->store_id.len != STORE_ID_BYTES || cmd->job_token_key.len != JOB_TOKEN_KEY_BYTES) {
        return reject(c, -E_INVALID, "store id or key of a wrong size");
    }
    c->meta->schema_version = STORE_SCHEMA_VERSION;
    c->meta->store_id = cmd->store_id;
    c->meta->job_token_key = cmd->job_token_key;
    c->meta->next_id = 1;
    c->meta->next_event = 1;
    c->meta->next_session = 1;
    return 0;
}

int apply_ids_skipped(struct core *c, const Pb__IdsSkipped *cmd)
{
    if (c->meta->schema_version == 0) {
        return reject(c, -E_CONFLICT, "the store is not initialised");
    }
    if (cmd->count > LIMIT_IDS_SKIPPED) {
        return reject(c, -E_LIMIT, "that many ids are not skipped at once");
    }
    c->meta->next_id += cmd->count;
    c->meta->next_session += cmd->count;
    c->meta->epoch_floor += cmd->count;
    c->meta->relaxed = cmd->relaxed;
    return 0;
}

static Pb__ProjectRecord *project_add(struct core *c, const char *name)
{
    Pb__ProjectRecord *p = arena_alloc(c->arena, sizeof(*p));
    const struct key by_name = key_bytes(name, strlen(name));
    struct key k, id;

    pb__project_record__init(p);
    p->id = core_new_id(c);
    p->name = (char *)name;
    p->created_ms = c->now_ms;
    p->next_pipeline_iid = 1;
    k = id = key_u64(p->id);
    tx_put_msg(c->tx, T_PROJECT, &k, &p->base);
    tx_put(c->tx, T_PROJECT_NAME, &by_name, key_str(&id));
    event_add(c, &(struct event){
                     .kind = EVENT_PROJECT, .project_id = p->id, .to = "created", .name = name});
    return p;
}

Pb__ProjectRecord *project_open(struct core *c, const char *name)
{
    Pb__ProjectRecord *p = (Pb__ProjectRecord *)project_by_name(c->tx, name);

    return p != NULL ? p : project_add(c, name);
}

int apply_project_create(struct core *c, const Pb__ProjectCreate *cmd)
{
    if (!name_ok(cmd->name)) {
        return reject(c, -E_INVALID, "bad project name");
    }
    if (project_by_name(c->tx, cmd->name) != NULL) {
        return reject(c, -E_EXISTS, "project %.100s exists already", cmd->name);
    }
    c->reply->project_id = project_add(c, cmd->name)->id;
    return 0;
}
