/* The shell executor: the job's lines in the host's bash or sh, as the worker's own user. */
#include "common/base.h"

#include <stdlib.h>

#include "worker/exec/environment.h"
#include "worker/exec/steps.h"

static bool shell_usable(const struct exec_context *cx, struct buf *why)
{
    (void)cx;
    if (host_shell() == NULL) {
        buf_addz(why, "there is neither bash nor sh");
        return false;
    }
    return true;
}

static int add_script(struct preparation *p, const struct script_step *s)
{
    const struct host_shell *shell = host_shell();
    char *path;
    int r = steps_write_script(p, s, shell->bash, &path);
    shim_conf_step(p->conf, s->name, s->kind, s->timeout_ms, s->cwd);
    shim_conf_arg(p->conf, shell->path);
    shim_conf_arg(p->conf, path);
    environment_to_conf(&p->vars, p->conf);
    free(path);
    return r;
}

static const struct steps_way way = {.add_script = add_script};

static int shell_prepare(const struct exec_context *cx, const Pb__JobSpec *spec, struct buf *why)
{
    int r = steps_refuse_containers(spec, "shell", why);
    if (r < 0) {
        return r;
    }
    return shell_usable(cx, why) ? steps_prepare(cx, spec, &way, why) : -E_UNSUPPORTED;
}

const struct executor executor_shell = {
    .name = "shell",
    .usable = shell_usable,
    .prepare = shell_prepare,
    .start = steps_start,
    .cancel = steps_cancel,
    .alive = steps_alive,
    .cleanup = steps_cleanup,
};
