/* The driver `process`: a folder and a davit-keep for an instance. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/mask_forms.h"
#include "common/os.h"
#include "worker/driver/op.h"
#include "worker/driver/process.h"
#include "worker/shim/shim.h"

#define ERRORS_MAX (64u * KIB)

struct entry {
    const char *name, *value;
};

/* What an instance gets besides the variables of its version. */
static size_t own_entries(struct driver_call *call, const struct process_wish *w, uint32_t port,
                          const char *address, struct entry ret[8])
{
    const uint32_t index = port - w->first_port;
    const struct entry own[] = {
        {"PORT", arena_printf(call->arena, "%u", port)},
        {"DAVIT_ADDRESS", address},
        {"DAVIT_SERVICE", w->service},
        {"DAVIT_SLOT", w->slot == 'b' ? "b" : "a"},
        {"DAVIT_INDEX", arena_printf(call->arena, "%u", index)},
        {"DAVIT_VERSION", w->version},
        {"DAVIT_SNAPSHOT", w->snapshot},
    };

    memcpy(ret, own, sizeof(own));
    return ARRAY_LEN(own);
}

static bool is_among(const struct entry *own, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(own[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

struct hiding {
    struct keep_draft *draft;
    struct mask *mask; /* counts, so that davit-keep does not fail for them */
};

static int hide_form(void *ctx, enum mask_kind kind, struct str form)
{
    struct hiding *h = ctx;

    keep_draft_mask(h->draft, kind, form);
    return mask_add(h->mask, kind, form);
}

static int add_masks(struct driver_call *call, struct keep_draft *d)
{
    struct hiding h = {.draft = d, .mask = mask_new()};
    int r = 0;

    for (size_t i = 0; r == 0 && i < call->job->n_variables; i++) {
        const Pb__Variable *v = call->job->variables[i];
        if (v->masked) {
            r = mask_forms(str_from(driver_variable(call, v->name)), hide_form, &h);
        }
    }
    mask_free(h.mask);
    return r;
}

/* A variable of type file is its path. */
static int put_variable(struct driver_call *call, const char *folder, const char *name,
                        const char **value)
{
    const char *vars = arena_printf(call->arena, "%s/vars", folder);
    const char *path = arena_printf(call->arena, "%s/%s", vars, name);
    int r = strchr(name, '/') != NULL ? -E_INVALID : os_mkdir_p(vars, 0700);

    r = r < 0 ? r : os_put_file(path, *value, strlen(*value), 0600);
    *value = path;
    return r;
}

/* A later variable of a name is the one that counts. */
static bool is_last(const Pb__JobSpec *job, size_t i)
{
    for (size_t k = i + 1; k < job->n_variables; k++) {
        if (strcmp(job->variables[k]->name, job->variables[i]->name) == 0) {
            return false;
        }
    }
    return true;
}

static int add_environment(struct driver_call *call, const char *folder, const struct entry *own,
                           size_t own_count, struct keep_draft *d)
{
    static const char *const kept[] = OP_KEPT_NAMES;
    int r = 0;

    for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
        const char *value = getenv(kept[i]);
        if (value != NULL && driver_variable(call, kept[i]) == NULL) {
            keep_draft_env(d, str_from(kept[i]), str_from(value));
        }
    }
    for (size_t i = 0; r == 0 && i < call->job->n_variables; i++) {
        const Pb__Variable *v = call->job->variables[i];
        const char *value = driver_variable(call, v->name);
        if (value == NULL || v->name[0] == '\0' || strchr(v->name, '=') != NULL ||
            is_among(own, own_count, v->name) || !is_last(call->job, i)) {
            continue;
        }
        r = v->file ? put_variable(call, folder, v->name, &value) : 0;
        keep_draft_env(d, str_from(v->name), str_from(value));
    }
    for (size_t i = 0; i < own_count; i++) {
        keep_draft_env(d, str_from(own[i].name), str_from(own[i].value));
    }
    return r;
}

static int prepare(struct driver_call *call, const struct process_wish *w, uint32_t port,
                   const char *folder)
{
    const bool v6 = strchr(w->address, ':') != NULL;
    const char *address = arena_printf(call->arena, v6 ? "[%s]:%u" : "%s:%u", w->address, port);
    const char *line = arena_printf(call->arena, "%s %s\n", w->snapshot, address);
    struct entry own[8];
    const size_t own_count = own_entries(call, w, port, address, own);
    int r = os_mkdir_p(folder, 0700);

    if (r < 0) {
        return r;
    }
    struct keep_draft *d = keep_draft_new(w->grace_ms, LIMIT_INSTANCE_LOG, w->cwd,
                                          str_from(w->command));
    r = add_masks(call, d);
    r = r < 0 ? r : add_environment(call, folder, own, own_count, d);
    if (r < 0) {
        keep_draft_free(d);
        return r;
    }
    r = keep_draft_write(d, folder);
    return r < 0 ? r
                 : os_put_file(arena_printf(call->arena, "%s/instance", folder), line, strlen(line),
                               0600);
}

/* What davit-keep complains of, in one line. */
static const char *complaint(struct driver_call *call, const char *folder)
{
    struct buf text = BUF_INIT;
    const char *line = "davit-keep does not start";

    if (os_read_file(arena_printf(call->arena, "%s/errors", folder), ERRORS_MAX, &text) == 0 &&
        text.n > 0) {
        line = arena_strdup(call->arena, last_line(buf_str(&text)));
    }
    buf_release(&text);
    return line;
}

bool process_start(struct driver_call *call, const struct process_wish *w, uint32_t port)
{
    const char *folder = arena_printf(call->arena, "%s/%c-%u", w->service_dir, w->slot, port);
    char *program = os_find_program("davit-keep");
    pid_t pid;
    int r = prepare(call, w, port, folder);

    if (r == -E_LIMIT) {
        driver_fail(call, "invalid",
                    "the masked variables are too many, or too long, to be hidden");
    } else if (r < 0) {
        driver_fail(call, "state", "cannot prepare %s: %s", folder, err_text(r));
    } else if (program == NULL) {
        driver_fail(call, "failed", "there is no davit-keep beside davit-worker");
        r = -E_NOT_FOUND;
    } else if ((r = shim_start(program, folder, &pid)) < 0) {
        driver_fail(call, "failed", "%s", complaint(call, folder));
    }
    free(program);
    return r == 0;
}

/* ---- after a start of the machine ---- */

struct walk {
    const char *dir;
    const char *program;
};

static bool is_there(const char *folder, const char *name)
{
    char *path = os_path_join(folder, name);
    const bool there = os_exists(path);

    free(path);
    return there;
}

static void revive_one(void *ctx, const char *name)
{
    const struct walk *w = ctx;
    char *folder = os_path_join(w->dir, name);
    pid_t pid;

    if (is_there(folder, "instance") && is_there(folder, "keep.conf") &&
        !is_there(folder, "drain") && !shim_alive(folder) && shim_kill_leftovers_soon(folder)) {
        const int r = shim_start(w->program, folder, &pid);
        if (r < 0) {
            log_warn("process: %s cannot be started again: %s", folder, err_text(r));
        } else {
            log_info("process: %s is started again", folder);
        }
    }
    free(folder);
}

static void revive_service(void *ctx, const char *name)
{
    const struct walk *w = ctx;
    char *dir = os_path_join(w->dir, name);
    struct walk below = {.dir = dir, .program = w->program};

    (void)os_list_dir(dir, revive_one, &below);
    free(dir);
}

void process_revive(const char *dir)
{
    char *program = os_find_program("davit-keep");
    struct walk w = {.dir = dir, .program = program};

    if (program != NULL) {
        (void)os_list_dir(dir, revive_service, &w);
    }
    free(program);
}
