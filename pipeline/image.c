/* image and services: the containers of a job. */
#include "common/base.h"

#include "pipeline/compile.h"

/* Texts that are shown and passed on as arguments: no NUL in them. */
static bool read_arguments(struct compile *c, const struct node *m, struct read_texts how,
                           char ***ret, size_t *ret_count)
{
    const struct node *n = key_of(m, how.what);
    struct texts t = {0};
    how.max = LIMIT_CONTAINER_ARGUMENTS;
    if (!n || !read_texts_of(c, m, how, &t)) {
        return false;
    }
    for (size_t i = 0; i < t.count; i++) {
        if (!str_is_utf8(t.items[i], NULL)) {
            report(c, n, "bad-value", NULL, "`%s` holds a NUL character", how.what);
            return false;
        }
    }
    *ret = texts_to_strings(c->arena, t);
    *ret_count = t.count;
    return true;
}

static void read_pull_policy(struct compile *c, const struct node *m, const char *what,
                             Pb__Image *image)
{
    static const char *const names[] = {"always", "if-not-present", "never"};
    const struct node *n = key_of(m, what);
    size_t i;
    if (!n) {
        return;
    }
    size_t count = n->kind == NODE_LIST ? n->count : 1;
    if (count == 0 || count > ARRAY_LEN(names)) {
        report(c, n, "bad-value", NULL, "`%s` must have 1 to %zu entries, found %zu", what,
               ARRAY_LEN(names), count);
        return;
    }
    image->pull_policy = arena_array(c->arena, count, sizeof(*image->pull_policy));
    for (size_t k = 0; k < count; k++) {
        const struct node *item = n->kind == NODE_LIST ? n->items[k] : n;
        if (read_choice(c, item, what, names, ARRAY_LEN(names), &i)) {
            image->pull_policy[image->n_pull_policy++] = (char *)names[i];
        }
    }
}

static void read_docker(struct compile *c, const struct node *n, Pb__Image *image)
{
    struct str user = STR("");
    struct str platform = STR("");
    if (read_keys(c, n, SCOPE_DOCKER, "docker") && read_name_of(c, n, "docker:user", &user) &&
        read_name_of(c, n, "docker:platform", &platform)) {
        image->user = arena_strdup(c->arena, user);
        image->platform = arena_strdup(c->arena, platform);
    }
}

static void read_kubernetes(struct compile *c, const struct node *n)
{
    struct str user;
    c->below_checked = true;
    if (read_keys(c, n, SCOPE_KUBERNETES_USER, "kubernetes")) {
        read_name_of(c, n, "kubernetes:user", &user);
    }
    c->below_checked = false;
}

/* What an image and a service have in common. NULL: reported. */
static Pb__Image *read_container(struct compile *c, const struct node *n, enum scope scope,
                                 const char *what)
{
    Pb__Image *image = arena_alloc(c->arena, sizeof(*image));
    struct str name = STR("");
    const struct node *name_at = n;
    pb__image__init(image);
    if (n->kind == NODE_MAPPING) {
        if (!read_keys(c, n, scope, what)) {
            return NULL;
        }
        name_at = key_of(n, "name");
        read_arguments(c, n, (struct read_texts){.what = "entrypoint", .depth = 10},
                       &image->entrypoint, &image->n_entrypoint);
        read_pull_policy(c, n, "pull_policy", image);
        if (key_of(n, "docker")) {
            read_docker(c, key_of(n, "docker"), image);
        }
        if (key_of(n, "kubernetes")) {
            read_kubernetes(c, key_of(n, "kubernetes"));
        }
    }
    if (!name_at) {
        report(c, n, "missing-key", NULL, "`%s` needs a `name`", what);
        return NULL;
    }
    if (!read_name(c, name_at, what, &name)) {
        return NULL;
    }
    image->name = arena_strdup(c->arena, name);
    return image;
}

void image_read(struct compile *c, const struct node *n, struct job *job)
{
    job->plan.image = read_container(c, n, SCOPE_IMAGE, "image");
}

static bool read_service(struct compile *c, const struct node *n, Pb__Service *service)
{
    const struct node *variables = key_of(n, "variables");
    const struct node *command = key_of(n, "command");
    struct variables v = {0};
    struct str alias = STR("");
    service->image = read_container(c, n, SCOPE_SERVICE, "services");
    if (!service->image || n->kind != NODE_MAPPING) {
        return service->image != NULL;
    }
    if (read_name_of(c, n, "services:alias", &alias)) {
        service->alias = pb_bytes_ref(alias);
    }
    if (command &&
        read_arguments(c, n, (struct read_texts){.what = "command", .single = true, .depth = 10},
                       &service->command, &service->n_command) &&
        service->n_command == 0) {
        report(c, command, "bad-value", NULL, "`command` is empty");
    }
    if (variables && read_variables(c, variables, SCOPE_JOB_VARIABLE, &v)) {
        service->variables = arena_array(c->arena, v.count + 1, sizeof(Pb__Variable *));
        for (size_t i = 0; i < v.count; i++) {
            service->variables[service->n_variables++] = plan_variable(c, &v.items[i]);
        }
    }
    return true;
}

void services_read(struct compile *c, const struct node *n, struct job *job)
{
    if (n->kind != NODE_LIST) {
        report(c, n, "wrong-type", "services: [postgres:16]", "`services` must be a list, found %s",
               node_what(n));
        return;
    }
    if (n->count > LIMIT_SERVICES) {
        report(c, n, "limit", NULL, "more than %u services", LIMIT_SERVICES);
        return;
    }
    job->plan.n_services = 0;
    job->plan.services = arena_array(c->arena, n->count + 1, sizeof(Pb__Service *));
    for (uint32_t i = 0; i < n->count; i++) {
        Pb__Service *service = arena_alloc(c->arena, sizeof(*service));
        pb__service__init(service);
        if (read_service(c, n->items[i], service)) {
            job->plan.services[job->plan.n_services++] = service;
        }
    }
}
