/* The step `container`: all that a job in containers needs before its first line. */
#include "common/base.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/exec/exec.h"
#include "worker/step/container.h"

static bool is_root(const char *user)
{
    struct str rest = str_from(user);
    struct str name;
    return !str_split(&rest, ':', &name) || name.n == 0 || str_eqz(name, "root") ||
           str_eqz(name, "0");
}

/* SOURCE:TARGET[:ro] as the worker was started with: a folder or a named volume. */
static void add_volume(const char *text, json_t *mounts)
{
    struct str rest = str_from(text);
    struct str source;
    struct str target;
    bool ok = str_split(&rest, ':', &source) && str_split(&rest, ':', &target);
    check(ok); /* the worker has looked */
    json_t *mount = json_pack("{s:s, s:s%, s:s%, s:b}", "Type",
                              source.p[0] == '/' ? "bind" : "volume", "Source", source.p,
                              (int)source.n, "Target", target.p, (int)target.n, "ReadOnly",
                              str_eqz(rest, "ro"));
    check(mount != NULL && json_array_append_new(mounts, mount) == 0);
}

static json_t *mounts_of(const struct box *box)
{
    struct step *s = box->s;
    json_t *mounts = json_array();
    const char *vars = arena_printf(&s->arena, "%s/vars", s->folder);
    box_add_mount(mounts, box->settings->shim_program, CONTAINER_SHIM, true);
    box_add_mount(mounts, arena_printf(&s->arena, "%s/run", s->folder), CONTAINER_RUN, false);
    box_add_mount(mounts, s->project_dir, s->project_dir, false);
    if (os_exists(vars)) {
        box_add_mount(mounts, vars, vars, false);
    }
    for (size_t i = 0; i < box->settings->n_volumes; i++) {
        add_volume(box->settings->volumes[i], mounts);
    }
    return mounts;
}

static int create(const struct box *box, const struct box_image *image, const char *network,
                  Pb__ContainerState *state)
{
    struct buf why = BUF_INIT;
    const char *id;
    json_t *host = box_host_config(box, network);
    json_object_set_new(host, "Mounts", mounts_of(box));
    json_t *body = json_pack(
        "{s:s, s:[s, s, s], s:[], s:s, s:s, s:o, s:o, s:{s:[s]}, s:{s:{s:{s:[s]}}}}", "Image",
        image->info.id, "Entrypoint", CONTAINER_SHIM, "--stay", CONTAINER_RUN, "Cmd", "User",
        image->user, "WorkingDir", "/", "Labels", box_labels(box), "HostConfig", host,
        "Healthcheck", "Test", "NONE", "NetworkingConfig", "EndpointsConfig", network, "Aliases",
        "build");
    check(body != NULL);
    int r = engine_create(&box->engine, box->name, image->platform, body, &id, &why);
    if (r < 0) {
        step_error("the container cannot be made: %s", box_quote(box, buf_str(&why)));
    } else {
        state->container = arena_strdup(&box->s->arena, str_from(id));
    }
    buf_release(&why);
    return r == 0 ? 0 : r == -E_INVALID ? STEP_EXIT_CONFIG : STEP_EXIT_SYSTEM;
}

static int make_network(const struct box *box)
{
    struct buf why = BUF_INIT;
    const char *id;
    int r = engine_create_network(&box->engine, box->name, box_labels(box), &id, &why);
    if (r < 0) {
        step_error("the job's network cannot be made: %s", box_quote(box, buf_str(&why)));
    }
    buf_release(&why);
    return r == 0 ? 0 : STEP_EXIT_SYSTEM;
}

/* Who the lines run as, and what they are given to. */
static int fill_state(const struct box *box, const Pb__Image *wish, const struct box_image *image,
                      Pb__ContainerState *state)
{
    const char *user = image->user[0] != '\0' ? image->user : image->info.user;
    const char **words;
    int r = box_entrypoint(box, wish, &image->info, &words, &state->n_entrypoint);
    if (r < 0) {
        return STEP_EXIT_CONFIG;
    }
    state->entrypoint = (char **)words;
    state->image = arena_strdup(&box->s->arena, str_from(image->info.id));
    state->needs_open_files = !is_root(user);
    state->project_dir = pb_bytes_ref(str_from(box->s->project_dir));
    return 0;
}

static int make_all(const struct box *box, const Pb__Image *wish)
{
    Pb__ContainerState state = PB__CONTAINER_STATE__INIT;
    struct box_image image;
    int code = make_network(box);
    code = code != 0 ? code : box_start_services(box, box->name, &state);
    code = code != 0 ? code : box_get_image(box, wish, "image", &image);
    code = code != 0 ? code : fill_state(box, wish, &image, &state);
    code = code != 0 ? code : create(box, &image, box->name, &state);
    if (code == 0) {
        int r = box_state_write(box, &state);
        if (r < 0) {
            step_error("cannot write %s/container.pb: %s", box->s->folder, err_text(r));
            code = STEP_EXIT_SYSTEM;
        }
    }
    return code;
}

int step_container(struct step *s)
{
    struct box box;
    Pb__Image usual = PB__IMAGE__INIT;
    const Pb__Image *wish = s->spec->image;
    if (box_open(&box, s) < 0) {
        return STEP_EXIT_SYSTEM;
    }
    if (wish == NULL || wish->name[0] == '\0') {
        usual.name = box.settings->default_image;
        wish = &usual;
    }
    if (wish->name[0] == '\0') {
        step_error("the job names no image, and this worker has none for such jobs");
        return STEP_EXIT_CONFIG;
    }
    return make_all(&box, wish);
}
