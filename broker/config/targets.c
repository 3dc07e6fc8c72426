/* `targets:` of the configuration file: where services run that are rolled out, by
 * ENVIRONMENT/NAME. What a rollout may ask of one is said in the pipeline file (docs/pipeline.md).
 */
#include "common/base.h"

#include "broker/config/file.h"

#include "broker/core/query.h"
#include "common/approver.h"
#include "common/cron.h"
#include "common/drivers.h"
#include "common/limits.h"
#include "common/os.h"
#include "proto/rollout.h"

#define MILLION 1000000u

struct target_reader {
    struct file *f;
    Pb__RolloutTarget *t;
    const char *where; /* "in target `production/web`" */
};

static struct arena *arena_of(const struct target_reader *r)
{
    return &r->f->o->arena;
}

static bool is_text(const struct node *n)
{
    return n->kind == NODE_SCALAR && n->type != SCALAR_NULL && n->text.n > 0 &&
           n->text.n <= LIMIT_DRIVER_SETTING && memchr(n->text.p, '\0', n->text.n) == NULL;
}

static bool read_text(struct target_reader *r, const struct node *n, const char *what, char **ret)
{
    if (!is_text(n)) {
        file_wrong(r->f, n, "wrong-value", NULL, "`%s` is a text", what);
        return false;
    }
    *ret = arena_strdup(arena_of(r), n->text);
    return true;
}

static void read_count(struct target_reader *r, const struct node *n, const char *what,
                       uint32_t max, uint32_t *ret)
{
    if (n->kind != NODE_SCALAR || n->type != SCALAR_INT || n->integer < 1 || n->integer > max) {
        file_wrong(r->f, n, "wrong-value", NULL, "`%s` is a number, 1 to %u", what, max);
        return;
    }
    *ret = (uint32_t)n->integer;
}

static void read_time(struct target_reader *r, const struct node *n, const char *what,
                      uint64_t *ret)
{
    uint64_t ms = 0;

    if (n->kind != NODE_SCALAR || str_to_duration_ms(n->text, &ms) < 0 || ms == 0 ||
        ms > LIMIT_TIMEOUT_MS) {
        file_wrong(r->f, n, "wrong-value", NULL, "`%s` is a time as 10s or 5m", what);
        return;
    }
    *ret = ms;
}

static void read_names(struct target_reader *r, const struct node *n, const char *what, size_t max,
                       char ***ret, size_t *ret_n)
{
    if (n->kind != NODE_LIST || n->count > max) {
        file_wrong(r->f, n, "wrong-value", NULL, "`%s` is a list of at most %zu names", what, max);
        return;
    }
    *ret = arena_array(arena_of(r), MAX(n->count, 1u), sizeof(**ret));
    for (uint32_t i = 0; i < n->count; i++) {
        char *text;
        if (!is_text(n->items[i]) || n->items[i]->text.n > LIMIT_NAME) {
            file_wrong(r->f, n->items[i], "wrong-value", NULL, "`%s` holds names", what);
        } else if (read_text(r, n->items[i], what, &text)) {
            (*ret)[(*ret_n)++] = text;
        }
    }
}

/* ---- drivers ---- */

static void read_setting(struct target_reader *r, const struct pair *p, int driver,
                         Pb__DriverConfig *config)
{
    const char *names[LIMIT_DRIVER_SETTINGS];
    const struct driver_setting_info *s;
    size_t count = 0;

    for (; (s = driver_setting_at(driver, count)) != NULL; count++) {
        names[count] = s->name;
        if (!str_eqz(p->key->text, s->name)) {
            continue;
        }
        const char *expected = is_text(p->value) ? driver_setting_check(s, p->value->text)
                                                 : "a text";
        if (expected != NULL) {
            file_wrong(r->f, p->value, "wrong-value", NULL, "`%s` is %s", s->name, expected);
            return;
        }
        Pb__DriverSetting *set = arena_alloc(arena_of(r), sizeof(*set));
        pb__driver_setting__init(set);
        set->name = (char *)s->name;
        set->value = pb_bytes(arena_of(r), p->value->text);
        config->settings[config->n_settings++] = set;
        return;
    }
    file_unknown(r->f, p->key,
                 arena_printf(arena_of(r), "of the driver `%s` %s", config->driver, r->where),
                 names, count);
}

static bool has_setting(const Pb__DriverConfig *config, const char *name)
{
    for (size_t i = 0; i < config->n_settings; i++) {
        if (strcmp(config->settings[i]->name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void check_required(struct target_reader *r, const struct node *n, int driver,
                           const Pb__DriverConfig *config)
{
    const struct driver_setting_info *s;

    for (size_t i = 0; (s = driver_setting_at(driver, i)) != NULL; i++) {
        if (s->required && !has_setting(config, s->name)) {
            file_wrong(r->f, n, "missing-key", s->text, "the driver `%s` needs `%s`",
                       config->driver, s->name);
        }
    }
}

/* {driver: NAME, SETTING: VALUE}; `besides`: a key that is not the driver's. NULL: reported. */
static Pb__DriverConfig *read_driver(struct target_reader *r, const struct node *n,
                                     enum driver_role role, const char *what, const char *besides)
{
    const struct node *name;
    Pb__DriverConfig *config = arena_alloc(arena_of(r), sizeof(*config));
    int driver;

    pb__driver_config__init(config);
    if (!file_mapping(r->f, n, what)) {
        return NULL;
    }
    name = node_get(n, "driver");
    driver = name != NULL && is_text(name) ? driver_find(role, name->text) : -E_NOT_FOUND;
    if (driver < 0) {
        const char *names[16];
        const size_t count = driver_names(role, names, ARRAY_LEN(names));
        struct buf list = BUF_INIT;
        for (size_t i = 0; i < count; i++) {
            buf_addf(&list, "%s%s", i > 0 ? ", " : "", names[i]);
        }
        file_wrong(r->f, name != NULL ? name : n, "wrong-value",
                   arena_printf(arena_of(r), "there are: %s", buf_cstr(&list)), "%s has a `driver`",
                   what);
        buf_release(&list);
        return NULL;
    }
    config->driver = arena_strdup(arena_of(r), name->text);
    config->settings = arena_array(arena_of(r), n->count, sizeof(*config->settings));
    for (uint32_t i = 0; i < n->count; i++) {
        const struct pair *p = &n->pairs[i];
        if (!str_eqz(p->key->text, "driver") && !node_is_null(p->value) &&
            (besides == NULL || !str_eqz(p->key->text, besides))) {
            read_setting(r, p, driver, config);
        }
    }
    check_required(r, n, driver, config);
    return config;
}

/* ---- fields ---- */

static void read_projects(struct target_reader *r, const struct node *n)
{
    read_names(r, n, "projects", LIMIT_POOL_PROJECTS, &r->t->projects, &r->t->n_projects);
    for (size_t i = 0; i < r->t->n_projects; i++) {
        if (!str_is_project_pattern(str_from(r->t->projects[i]))) {
            file_wrong(r->f, n, "wrong-value", NULL, "a project is group/name, or group/*");
        }
    }
}

static void read_workers(struct target_reader *r, const struct node *n)
{
    static const char *const names[] = {"pool", "tags"};

    if (!file_mapping(r->f, n, "`workers`")) {
        return;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        const struct pair *p = &n->pairs[i];
        if (str_eqz(p->key->text, "pool")) {
            read_text(r, p->value, "workers:pool", &r->t->pool);
        } else if (str_eqz(p->key->text, "tags")) {
            read_names(r, p->value, "workers:tags", LIMIT_TAGS, &r->t->tags, &r->t->n_tags);
        } else {
            file_unknown(r->f, p->key, "in `workers`", names, ARRAY_LEN(names));
        }
    }
}

static void read_places(struct target_reader *r, const struct node *n)
{
    read_names(r, n, "places", LIMIT_ROLLOUT_PLACES, &r->t->places, &r->t->n_places);
}

static void read_instances(struct target_reader *r, const struct node *n)
{
    read_count(r, n, "instances", LIMIT_ROLLOUT_INSTANCES, &r->t->instances);
}

static void read_run(struct target_reader *r, const struct node *n)
{
    r->t->instance_driver = read_driver(r, n, DRIVER_INSTANCES, "`run`", NULL);
}

static void read_router(struct target_reader *r, const struct node *n)
{
    r->t->router_driver = read_driver(r, n, DRIVER_ROUTER, "`router`", NULL);
}

static void read_synthetic(struct target_reader *r, const struct node *n)
{
    r->t->synthetic = read_driver(r, n, DRIVER_LOAD, "`synthetic`", NULL);
}

/* What a kind of metric needs of its driver, where the driver leaves it open. */
static void check_metric(struct target_reader *r, const struct node *n, const Pb__TargetMetric *m)
{
    static const char *const needed[] = {"total", "buckets", "value"};
    const char *driver = m->driver->driver;

    if ((strcmp(driver, "prometheus") == 0 || strcmp(driver, "http") == 0) &&
        (!has_setting(m->driver, needed[m->kind]) ||
         (m->kind == TARGET_METRIC_RATIO && !has_setting(m->driver, "bad")))) {
        file_wrong(r->f, n, "missing-key", NULL, "metric `%s` needs %s", m->name,
                   m->kind == TARGET_METRIC_RATIO       ? "`total` and `bad`"
                   : m->kind == TARGET_METRIC_HISTOGRAM ? "`buckets`"
                                                        : "`value`");
    } else if (strcmp(driver, "haproxy") == 0 && m->kind != TARGET_METRIC_RATIO) {
        file_wrong(r->f, n, "wrong-value", NULL, "the driver `haproxy` counts errors: a ratio");
    }
}

static void read_metric(struct target_reader *r, const struct pair *p)
{
    static const char *const kinds[] = {"ratio", "histogram", "value"};
    Pb__TargetMetric *m = arena_alloc(arena_of(r), sizeof(*m));
    const struct node *kind;

    pb__target_metric__init(m);
    m->name = arena_strdup(arena_of(r), p->key->text);
    m->driver = read_driver(r, p->value, DRIVER_METRIC,
                            arena_printf(arena_of(r), "metric `%s`", m->name), "kind");
    if (m->driver == NULL) {
        return;
    }
    kind = node_get(p->value, "kind");
    if (!node_is_null(kind)) {
        size_t i = 0;
        while (i < ARRAY_LEN(kinds) && !(is_text(kind) && str_eqz(kind->text, kinds[i]))) {
            i++;
        }
        if (i == ARRAY_LEN(kinds)) {
            file_wrong(r->f, kind, "wrong-value", NULL, "`kind` is ratio, histogram or value");
            return;
        }
        m->kind = (Pb__TargetMetricKind)i;
    }
    check_metric(r, p->value, m);
    r->t->metrics[r->t->n_metrics++] = m;
}

static void read_metrics(struct target_reader *r, const struct node *n)
{
    if (!file_mapping(r->f, n, "`metrics`")) {
        return;
    }
    if (n->count > LIMIT_ROLLOUT_METRICS) {
        file_wrong(r->f, n, "too-many", NULL, "at most %u metrics", LIMIT_ROLLOUT_METRICS);
        return;
    }
    r->t->metrics = arena_array(arena_of(r), MAX(n->count, 1u), sizeof(*r->t->metrics));
    for (uint32_t i = 0; i < n->count; i++) {
        if (!is_text(n->pairs[i].key) || n->pairs[i].key->text.n > LIMIT_NAME) {
            file_wrong(r->f, n->pairs[i].key, "wrong-value", NULL, "a metric has a name");
        } else {
            read_metric(r, &n->pairs[i]);
        }
    }
}

static void read_moment(struct target_reader *r, const struct node *n, const char *what,
                        uint64_t *ret)
{
    if (!is_text(n) || str_to_time_ms(n->text, ret) < 0) {
        file_wrong(r->f, n, "wrong-value", NULL, "`%s` is a time as '2026-12-24T00:00:00Z'", what);
    }
}

static void read_zone(struct target_reader *r, const struct node *n, Pb__FreezeWindow *w)
{
    struct str name = is_text(n) ? tz_name(n->text) : STR_NULL;
    struct buf bytes = BUF_INIT;
    struct tz tz;

    w->zone = arena_strdup(arena_of(r), name);
    if (name.n == 0 || !tz_name_valid(name) || os_read_zone(name, &bytes) < 0 ||
        tz_parse(arena_of(r), buf_str(&bytes), &tz) < 0) {
        file_wrong(r->f, n, "wrong-value", NULL, "`zone` is a time zone as Europe/Berlin");
    }
    w->zone_data = pb_bytes(arena_of(r), buf_str(&bytes));
    buf_release(&bytes);
}

static void read_freeze_field(struct target_reader *r, const struct pair *p, Pb__FreezeWindow *w)
{
    static const char *const names[] = {"cron", "for", "from", "until", "zone"};
    struct cron cron;
    const char *why = "it is none";

    if (str_eqz(p->key->text, "cron")) {
        if (!is_text(p->value) || cron_parse(p->value->text, &cron, &why) < 0) {
            file_wrong(r->f, p->value, "wrong-value", NULL, "`cron` is a cron expression: %s", why);
        }
        w->cron = is_text(p->value) ? arena_strdup(arena_of(r), p->value->text) : w->cron;
    } else if (str_eqz(p->key->text, "for")) {
        read_time(r, p->value, "for", &w->for_ms);
    } else if (str_eqz(p->key->text, "from")) {
        read_moment(r, p->value, "from", &w->from_ms);
    } else if (str_eqz(p->key->text, "until")) {
        read_moment(r, p->value, "until", &w->until_ms);
    } else if (str_eqz(p->key->text, "zone")) {
        read_zone(r, p->value, w);
    } else {
        file_unknown(r->f, p->key, "in a freeze", names, ARRAY_LEN(names));
    }
}

static void read_freezes(struct target_reader *r, const struct node *n)
{
    if (!file_mapping(r->f, n, "`freezes`")) {
        return;
    }
    if (n->count > LIMIT_FREEZES) {
        file_wrong(r->f, n, "too-many", NULL, "at most %u freezes", LIMIT_FREEZES);
        return;
    }
    r->t->freezes = arena_array(arena_of(r), MAX(n->count, 1u), sizeof(*r->t->freezes));
    for (uint32_t i = 0; i < n->count; i++) {
        const struct pair *p = &n->pairs[i];
        Pb__FreezeWindow *w = arena_alloc(arena_of(r), sizeof(*w));
        pb__freeze_window__init(w);
        w->name = arena_strdup(arena_of(r), p->key->text);
        if (!file_mapping(r->f, p->value, "a freeze")) {
            continue;
        }
        for (uint32_t k = 0; k < p->value->count; k++) {
            read_freeze_field(r, &p->value->pairs[k], w);
        }
        if ((w->cron[0] != '\0') == (w->until_ms != 0) ||
            (w->cron[0] != '\0') != (w->for_ms != 0) ||
            (w->until_ms != 0 && w->from_ms >= w->until_ms)) {
            file_wrong(r->f, p->key, "missing-key", NULL,
                       "freeze `%s` has `cron` and `for`, or `from` and `until`", w->name);
        }
        r->t->freezes[r->t->n_freezes++] = w;
    }
}

/* A name that no token could have would never be met. */
static void check_roles(struct target_reader *r, const struct node *n)
{
    for (size_t i = 0; i < r->t->n_gate; i++) {
        const struct str role = str_from(r->t->gate[i]);
        if (!approver_ok(role)) {
            file_wrong(r->f, n, "wrong-value", APPROVER_HINT, "`gate`: `" STR_FMT "` is no role",
                       STR_ARG(role));
        }
    }
}

static void read_gate(struct target_reader *r, const struct node *n)
{
    static const char *const names[] = {"roles", "count"};

    if (n->kind == NODE_LIST) {
        read_names(r, n, "gate", LIMIT_TAGS, &r->t->gate, &r->t->n_gate);
        check_roles(r, n);
        return;
    }
    if (!file_mapping(r->f, n, "`gate`")) {
        return;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        const struct pair *p = &n->pairs[i];
        if (str_eqz(p->key->text, "roles")) {
            read_names(r, p->value, "gate:roles", LIMIT_TAGS, &r->t->gate, &r->t->n_gate);
            check_roles(r, p->value);
        } else if (str_eqz(p->key->text, "count")) {
            read_count(r, p->value, "gate:count", 100, &r->t->gate_approvals);
        } else {
            file_unknown(r->f, p->key, "in `gate`", names, ARRAY_LEN(names));
        }
    }
}

static void read_tick(struct target_reader *r, const struct node *n)
{
    read_time(r, n, "tick", &r->t->tick_ms);
}

static void read_drain(struct target_reader *r, const struct node *n)
{
    read_time(r, n, "drain", &r->t->drain_ms);
}

static void read_settle(struct target_reader *r, const struct node *n)
{
    read_time(r, n, "settle", &r->t->settle_ms);
}

/* kill_ratio: 20 % */
static void read_kill_ratio(struct target_reader *r, const struct node *n)
{
    uint64_t percent = 0;
    struct str text = n->kind == NODE_SCALAR ? n->text : STR_NULL;

    if (!str_ends(text, STR("%")) ||
        str_to_u64(str_trim(str_sub(text, 0, text.n - 1)), &percent) < 0 || percent == 0 ||
        percent > 100) {
        file_wrong(r->f, n, "wrong-value", NULL, "`kill_ratio` is a share as 20%%");
        return;
    }
    r->t->kill_ratio_millionths = (uint32_t)(percent * MILLION / 100);
}

static void read_unready(struct target_reader *r, const struct node *n)
{
    read_count(r, n, "unready_failures", 1000, &r->t->unready_failures);
}

static void read_restarts(struct target_reader *r, const struct node *n)
{
    read_count(r, n, "restart_failures", 1000, &r->t->restart_failures);
}

static void read_keep(struct target_reader *r, const struct node *n)
{
    read_count(r, n, "keep_snapshots", LIMIT_KEEP_SNAPSHOTS, &r->t->keep_snapshots);
}

static void read_notify(struct target_reader *r, const struct node *n)
{
    if (n->kind != NODE_LIST || n->count > LIMIT_NOTIFY) {
        file_wrong(r->f, n, "wrong-value", NULL, "`notify` is a list of at most %u drivers",
                   LIMIT_NOTIFY);
        return;
    }
    r->t->notify = arena_array(arena_of(r), MAX(n->count, 1u), sizeof(*r->t->notify));
    for (uint32_t i = 0; i < n->count; i++) {
        Pb__DriverConfig *config = read_driver(r, n->items[i], DRIVER_NOTIFY, "an item of `notify`",
                                               NULL);
        if (config != NULL) {
            r->t->notify[r->t->n_notify++] = config;
        }
    }
}

static const struct target_field {
    const char *name;
    void (*read)(struct target_reader *r, const struct node *n);
} fields[] = {
    {"projects", read_projects},
    {"workers", read_workers},
    {"places", read_places},
    {"instances", read_instances},
    {"run", read_run},
    {"router", read_router},
    {"metrics", read_metrics},
    {"freezes", read_freezes},
    {"gate", read_gate},
    {"tick", read_tick},
    {"drain", read_drain},
    {"settle", read_settle},
    {"kill_ratio", read_kill_ratio},
    {"unready_failures", read_unready},
    {"restart_failures", read_restarts},
    {"synthetic", read_synthetic},
    {"notify", read_notify},
    {"keep_snapshots", read_keep},
};

static void read_field(struct target_reader *r, const struct pair *p)
{
    const char *names[ARRAY_LEN(fields)];

    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        names[i] = fields[i].name;
        if (str_eqz(p->key->text, fields[i].name)) {
            if (!node_is_null(p->value)) {
                fields[i].read(r, p->value);
            }
            return;
        }
    }
    file_unknown(r->f, p->key, r->where, names, ARRAY_LEN(names));
}

/* ENVIRONMENT/NAME: names of environments may hold slashes, those of targets do not. */
static bool read_name(struct target_reader *r, const struct node *key)
{
    struct str text = key->text;
    size_t slash = text.n;

    while (slash > 0 && text.p[slash - 1] != '/') {
        slash--;
    }
    const struct str environment = str_sub(text, 0, slash > 0 ? slash - 1 : 0);
    const struct str name = str_sub(text, slash, text.n);
    if (environment.n == 0 || environment.n > LIMIT_NAME || name.n == 0 || name.n > LIMIT_NAME ||
        str_chr(name, '*') >= 0 || str_chr(name, ' ') >= 0) {
        file_wrong(r->f, key, "wrong-value", "production/web, or review/*/web",
                   "a target is named ENVIRONMENT/NAME");
        return false;
    }
    r->t->environment = arena_strdup(arena_of(r), environment);
    r->t->name = arena_strdup(arena_of(r), name);
    return true;
}

static void read_target(struct file *f, const struct pair *p)
{
    Pb__Configure *all = f->o->declared;
    struct target_reader r = {.f = f, .t = arena_alloc(&f->o->arena, sizeof(*r.t))};

    pb__rollout_target__init(r.t);
    if (!read_name(&r, p->key) || !file_mapping(f, p->value, "a target")) {
        return;
    }
    r.where = arena_printf(&f->o->arena, "in target `" STR_FMT "`", STR_ARG(p->key->text));
    for (uint32_t i = 0; i < p->value->count; i++) {
        read_field(&r, &p->value->pairs[i]);
    }
    if (node_is_null(node_get(p->value, "run"))) {
        file_wrong(f, p->key, "missing-key", NULL, "a target has `run`: how its instances run");
    }
    all->targets[all->n_targets++] = r.t;
}

void file_targets(struct file *f, const struct node *n)
{
    Pb__Configure *all = f->o->declared;

    if (!file_mapping(f, n, "`targets`")) {
        return;
    }
    if (n->count > LIMIT_TARGETS) {
        file_wrong(f, n, "too-many", NULL, "at most %u targets", LIMIT_TARGETS);
        return;
    }
    all->targets = arena_array(&f->o->arena, MAX(n->count, 1u), sizeof(*all->targets));
    for (uint32_t i = 0; i < n->count; i++) {
        read_target(f, &n->pairs[i]);
    }
}
