/* Services and their versions as JSON. */
#include "common/base.h"

#include "broker/api/view.h"
#include "broker/core/query.h"
#include "common/crypto.h"
#include "common/limits.h"

json_t *view_service(struct tx *tx, const Pb__ServiceRecord *s)
{
    const Pb__ProjectRecord *p = project_get(tx, s->project_id);
    const Pb__EnvironmentRecord *e = environment_get(tx, s->environment_id);
    const Pb__SnapshotRecord *stable = s->stable_snapshot_id != 0
                                           ? snapshot_get(tx, s->stable_snapshot_id)
                                           : NULL;
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id", json_id(s->id), "project",
        json_text(p ? p->name : NULL), "environment", json_text(e ? e->name : NULL), "target",
        json_text(s->target), "version", json_text(stable ? stable->version : NULL), "snapshot_id",
        json_id(s->stable_snapshot_id), "slot",
        stable ? json_string(s->stable_slot == ROLLOUT_SLOT_B ? "b" : "a") : json_null(),
        "stable_since", json_time(s->stable_since_ms), "live_rollout_id",
        json_id(s->live_rollout_id), "next_rollout_id", json_id(s->next_rollout_id));
}

static json_t *snapshot_line(const Pb__SnapshotRecord *s)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "id", json_id(s->id), "version",
                     json_text(s->version), "sha", json_text(s->sha), "pipeline_id",
                     json_id(s->pipeline_id), "created_at", json_time(s->created_ms));
}

json_t *view_service_whole(struct tx *tx, const Pb__ServiceRecord *s, uint64_t now_ms)
{
    const Pb__RolloutRecord *rows[LIMIT_SERVICE_ROLLOUTS];
    const size_t n = rollouts_before(tx, s->id, 0, ARRAY_LEN(rows), rows);
    json_t *whole = view_service(tx, s);
    json_t *snapshots = json_array();
    json_t *rollouts = json_array();
    for (size_t i = s->n_snapshot_ids; i > 0; i--) {
        const Pb__SnapshotRecord *kept = snapshot_get(tx, s->snapshot_ids[i - 1]);
        json_array_append_new(snapshots, kept ? snapshot_line(kept) : NULL);
    }
    for (size_t i = 0; i < n; i++) {
        struct rollout_view v;
        json_array_append_new(rollouts, rollout_view_load(tx, rows[i]->id, &v)
                                            ? view_rollout(&v, now_ms, tx_arena(tx))
                                            : NULL);
    }
    json_object_set_new(whole, "snapshots", snapshots);
    json_object_set_new(whole, "rollouts", rollouts);
    return whole;
}

/* --- versions --- */

static bool is_secret(const Pb__Variable *v)
{
    return v->sealed.len > 0 || v->masked;
}

static json_t *variables(const Pb__SnapshotRecord *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_variables; i++) {
        json_array_append_new(list,
                              json_pack("{s:o, s:b}", "name", json_text(s->variables[i]->name),
                                        "secret", (int)is_secret(s->variables[i])));
    }
    return list;
}

static json_t *artifacts(const Pb__SnapshotRecord *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_artifacts; i++) {
        const Pb__SnapshotArtifact *a = s->artifacts[i];
        json_array_append_new(list, json_pack("{s:o, s:o, s:o}", "digest", json_digest(a->digest),
                                              "size", json_integer((json_int_t)a->size), "job",
                                              json_text(a->job_name)));
    }
    return list;
}

/* Values of settings may be commands with anything in them: names alone. */
static json_t *driver(const Pb__DriverConfig *d)
{
    json_t *names = json_array();
    for (size_t i = 0; d && i < d->n_settings; i++) {
        json_array_append_new(names, json_text(d->settings[i]->name));
    }
    return json_pack("{s:o, s:o}", "driver", json_text(d ? d->driver : NULL), "settings", names);
}

json_t *view_snapshot(const Pb__SnapshotRecord *s)
{
    json_t *o = snapshot_line(s);
    json_object_set_new(o, "service_id", json_id(s->service_id));
    json_object_set_new(o, "image", json_bytes(s->image));
    json_object_set_new(o, "command", json_bytes(s->command));
    json_object_set_new(o, "instances", json_integer(s->instances));
    json_object_set_new(o, "run", driver(s->instance_driver));
    json_object_set_new(o, "router", driver(s->router_driver));
    json_object_set_new(o, "variables", variables(s));
    json_object_set_new(o, "artifacts", artifacts(s));
    return o;
}

/* --- what tells two apart --- */

/* One thing that a version has. */
struct trait {
    const char *what; /* "version", "variable", ... */
    struct str name;  /* of a variable, a setting */
    struct str value; /* what is compared */
    bool shown;       /* the value may be seen */
};

struct traits {
    struct trait *items;
    size_t n;
    struct arena *a;
};

static void add(struct traits *t, const char *what, struct str name, struct str value, bool shown)
{
    t->items[t->n++] = (struct trait){what, name, value, shown};
}

/* Of a secret what was sealed, without the key of the day that wraps its key. */
static struct str value_of(struct traits *t, const Pb__Variable *v)
{
    Pb__SealedVariable *sealed;
    if (v->sealed.len > 0 && PB_UNPACK(t->a, sealed_variable, v->sealed.data, v->sealed.len,
                                       LIMIT_COMMAND, &sealed) == 0) {
        return pb_str(sealed->sealed);
    }
    return v->sealed.len > 0 ? pb_str(v->sealed) : pb_str(v->value);
}

static void add_driver(struct traits *t, const char *what, const char *setting,
                       const Pb__DriverConfig *d)
{
    add(t, what, STR_NULL, d ? str_from(d->driver) : STR_NULL, true);
    for (size_t i = 0; d && i < d->n_settings; i++) {
        add(t, setting, str_from(d->settings[i]->name), pb_str(d->settings[i]->value), false);
    }
}

/* Of variables of the same name the last one counts. */
static bool is_last(const Pb__SnapshotRecord *s, size_t at)
{
    for (size_t i = at + 1; i < s->n_variables; i++) {
        if (strcmp(s->variables[i]->name, s->variables[at]->name) == 0) {
            return false;
        }
    }
    return true;
}

static void gather(struct traits *t, const Pb__SnapshotRecord *s, struct arena *a)
{
    const size_t fixed = 6;
    const size_t settings = (s->instance_driver ? s->instance_driver->n_settings : 0) +
                            (s->router_driver ? s->router_driver->n_settings : 0);
    t->a = a;
    t->items = arena_array(a, fixed + settings + s->n_variables + s->n_artifacts,
                           sizeof(*t->items));
    add(t, "version", STR_NULL, str_from(s->version), true);
    add(t, "image", STR_NULL, pb_str(s->image), true);
    add(t, "command", STR_NULL, pb_str(s->command), true);
    add(t, "instances", STR_NULL, str_from(arena_printf(a, "%u", s->instances)), true);
    add_driver(t, "run", "run_setting", s->instance_driver);
    add_driver(t, "router", "router_setting", s->router_driver);
    for (size_t i = 0; i < s->n_artifacts; i++) {
        char *hex = arena_alloc(a, 2 * SHA256_BYTES + 1);
        str_to_hex(s->artifacts[i]->digest.data,
                   MIN(s->artifacts[i]->digest.len, (size_t)SHA256_BYTES), hex);
        add(t, "artifact", str_from(s->artifacts[i]->job_name), str_from(hex), true);
    }
    for (size_t i = 0; i < s->n_variables; i++) {
        if (is_last(s, i)) {
            add(t, "variable", str_from(s->variables[i]->name), value_of(t, s->variables[i]),
                false);
        }
    }
}

static const struct trait *find(const struct traits *t, const struct trait *like)
{
    for (size_t i = 0; i < t->n; i++) {
        if (strcmp(t->items[i].what, like->what) == 0 && str_eq(t->items[i].name, like->name)) {
            return &t->items[i];
        }
    }
    return NULL;
}

static json_t *shown(const struct trait *t)
{
    return t && t->shown
               ? json_bytes((ProtobufCBinaryData){t->value.n, (uint8_t *)(uintptr_t)t->value.p})
               : json_null();
}

static void differ(json_t *list, const char *change, const struct trait *from,
                   const struct trait *to)
{
    const struct trait *any = to ? to : from;
    json_array_append_new(
        list, json_pack("{s:s, s:o, s:s, s:o, s:o}", "what", any->what, "name",
                        any->name.n > 0 ? json_stringn(any->name.p, any->name.n) : json_null(),
                        "change", change, "from", shown(from), "to", shown(to)));
}

json_t *view_snapshot_diff(const Pb__SnapshotRecord *from, const Pb__SnapshotRecord *to,
                           struct arena *a)
{
    struct traits before = {0};
    struct traits after = {0};
    json_t *list = json_array();
    gather(&before, from, a);
    gather(&after, to, a);
    for (size_t i = 0; i < after.n; i++) {
        const struct trait *was = find(&before, &after.items[i]);
        if (!was) {
            differ(list, "added", NULL, &after.items[i]);
        } else if (!str_eq(was->value, after.items[i].value)) {
            differ(list, "changed", was, &after.items[i]);
        }
    }
    for (size_t i = 0; i < before.n; i++) {
        if (!find(&after, &before.items[i])) {
            differ(list, "removed", &before.items[i], NULL);
        }
    }
    return json_pack("{s:o, s:o, s:o}", "from", snapshot_line(from), "to", snapshot_line(to),
                     "items", list);
}
