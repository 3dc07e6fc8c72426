/* Images: what a job may ask for, and how they get here. */
#include "common/base.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "common/os.h"
#include "worker/engine/auth.h"
#include "worker/exec/exec.h"
#include "worker/step/container.h"

#define HELPER_MS 30000u

/* Asks docker-credential-NAME, which the worker's file names: a job's own names no programs. It
 * says so when it has nothing: -E_NOT_FOUND. */
static int ask_helper(const char *program, struct str registry, struct buf *out, struct buf *why)
{
    const char *const argv[] = {program, "get", NULL};
    const struct str server = auth_server(registry);
    struct buf answer = BUF_INIT;
    int status = 0;
    int ends[2];
    if (server.n > LIMIT_NAME || pipe2(ends, O_CLOEXEC) < 0) { /* a pipe holds that much */
        return -E_IO;
    }
    int r = os_write_all(ends[1], server.p, server.n);
    close(ends[1]);
    struct os_spawn spawn = {
        .argv = argv, .stdin_fd = ends[0], .stdout_fd = -1, .stderr_fd = -1, .new_session = true};
    r = r < 0 ? r : os_run_within(&spawn, HELPER_MS, NULL, LIMIT_AUTH_CONFIG, &answer, &status);
    close(ends[0]);
    if (r < 0) {
        buf_addf(why, "it cannot be run: %s", err_text(r));
        r = -E_FAILED; /* whatever it was, the helper has not said that it has nothing */
    } else if (status == 0) {
        r = auth_answer(buf_str(&answer), registry, out, why);
    } else if (str_find(buf_str(&answer), STR("credentials not found")) >= 0) {
        r = -E_NOT_FOUND;
    } else {
        buf_addz(why, "it failed");
        r = -E_FAILED;
    }
    if (answer.n > 0) {
        crypto_wipe(answer.p, answer.n);
    }
    buf_release(&answer);
    return r;
}

/* What the helper of the worker's file has, else what stands in the file. */
static int auth_of_worker(struct str config, struct str registry, struct buf *out, struct buf *why)
{
    struct buf program = BUF_INIT;
    int r = auth_helper(config, registry, &program, why);
    if (r == 0) {
        r = ask_helper(buf_cstr(&program), registry, out, why);
        if (r < 0 && r != -E_NOT_FOUND) {
            step_error("%s, which the worker asks for credentials: %s", buf_cstr(&program),
                       buf_cstr(why));
        }
    }
    buf_release(&program);
    return r == -E_NOT_FOUND ? auth_header(config, registry, out, why) : r;
}

/* The job's own DOCKER_AUTH_CONFIG first, then the worker's file. What the first one holds wrongly
 * is said: a pull without it would fail for a reason that tells nothing. */
static int find_auth(const struct box *box, struct str registry, struct buf *out)
{
    struct str config = step_var(box->s, "DOCKER_AUTH_CONFIG", "");
    struct buf why = BUF_INIT;
    struct buf file = BUF_INIT;
    const char *path = box->settings->auth_file;
    int r = config.n > 0 ? auth_header(config, registry, out, &why) : -E_NOT_FOUND;
    if (r == -E_INVALID) {
        step_error("DOCKER_AUTH_CONFIG: %s", buf_cstr(&why));
    } else if (r == -E_NOT_FOUND && path[0] != '\0') {
        r = os_read_file(path, LIMIT_AUTH_CONFIG, &file);
        r = r < 0 ? r : auth_of_worker(buf_str(&file), registry, out, &why);
        if (r < 0 && r != -E_NOT_FOUND) {
            step_error("the worker's %s: %s", path, why.n > 0 ? buf_cstr(&why) : err_text(r));
        } else if (r == 0) {
            step_say("Authenticating with the worker's credentials");
        }
    } else if (r == 0) {
        step_say("Authenticating with credentials from DOCKER_AUTH_CONFIG");
    }
    buf_release(&file);
    buf_release(&why);
    return r == -E_NOT_FOUND ? 0 : r;
}

static int pull(const struct box *box, const struct box_image *image)
{
    struct image_name name;
    struct buf auth = BUF_INIT;
    struct buf status = BUF_INIT;
    struct buf why = BUF_INIT;
    check(image_name_parse(str_from(image->name), &name) == 0);
    int r = find_auth(box, name.registry, &auth);
    if (r == 0) {
        step_say("Pulling %s %s ...", image->what, image->name);
        r = engine_pull(&box->engine, image->name, image->platform, buf_cstr(&auth), &status, &why);
        if (r < 0) {
            step_error("cannot pull %s %s: %s", image->what, image->name,
                       box_quote(box, buf_str(&why)));
        }
    }
    buf_release(&auth);
    buf_release(&status);
    buf_release(&why);
    return r;
}

/* -E_NOT_FOUND: not here, no message. */
static int look(const struct box *box, struct box_image *image)
{
    struct buf why = BUF_INIT;
    int r = engine_image(&box->engine, image->name, &image->info, &why);
    if (r < 0 && r != -E_NOT_FOUND) {
        step_error("cannot look for %s %s: %s", image->what, image->name,
                   box_quote(box, buf_str(&why)));
    }
    buf_release(&why);
    return r;
}

static int get_by(const struct box *box, const char *policy, struct box_image *image)
{
    int r = -E_NOT_FOUND;
    if (strcmp(policy, "always") != 0) {
        r = look(box, image);
        if (r == -E_NOT_FOUND && strcmp(policy, "never") == 0) {
            step_error("%s %s is not here, and pull policy `never` pulls none", image->what,
                       image->name);
            return r;
        }
    }
    if (r == -E_NOT_FOUND) {
        r = pull(box, image);
        r = r < 0 ? r : look(box, image);
    }
    return r;
}

static bool allows(const Pb__EngineSettings *o, const char *policy)
{
    for (size_t i = 0; i < o->n_allowed_pull_policies; i++) {
        if (strcmp(o->allowed_pull_policies[i], policy) == 0) {
            return true;
        }
    }
    return false;
}

/* Of what the job asks for, in its order, what the worker allows. */
static int get(const struct box *box, const Pb__Image *wish, struct box_image *image)
{
    const Pb__EngineSettings *o = box->settings;
    bool own = wish->n_pull_policy > 0;
    char *const *policies = own ? wish->pull_policy : o->pull_policies;
    size_t count = own ? wish->n_pull_policy : o->n_pull_policies;
    bool tried = false;
    for (size_t i = 0; i < count; i++) {
        if (own && !allows(o, policies[i])) {
            continue;
        }
        if (tried) {
            step_say("Trying again with pull policy `%s`", policies[i]);
        }
        tried = true;
        int r = get_by(box, policies[i], image);
        if (r == 0 || r == -E_UNREACHABLE) {
            return r < 0 ? STEP_EXIT_SYSTEM : 0;
        }
    }
    if (!tried) {
        step_error("%s %s: this worker allows none of the pull policies that the job names",
                   image->what, image->name);
        return STEP_EXIT_CONFIG;
    }
    return STEP_EXIT_IMAGE;
}

static bool is_allowed(const struct box *box, const struct box_image *image)
{
    const Pb__EngineSettings *o = box->settings;
    bool service = strcmp(image->what, "service") == 0;
    return service
               ? image_name_allowed(str_from(image->name), o->allowed_services,
                                    o->n_allowed_services)
               : image_name_allowed(str_from(image->name), o->allowed_images, o->n_allowed_images);
}

int box_get_image(const struct box *box, const Pb__Image *wish, const char *what,
                  struct box_image *ret)
{
    struct box_image image = {.what = what};
    struct image_name parts;
    image.name = box_expand(box, wish->name);
    image.user = box_expand(box, wish->user);
    image.platform = box_expand(box, wish->platform);
    if (image.name == NULL || image.user == NULL || image.platform == NULL) {
        return STEP_EXIT_CONFIG;
    }
    if (image_name_parse(str_from(image.name), &parts) < 0) {
        step_error("`%s` is no name of an image", box_quote(box, str_from(image.name)));
        return STEP_EXIT_CONFIG;
    }
    if (!is_allowed(box, &image)) {
        step_error("%s %s is not among those that this worker allows", what, image.name);
        return STEP_EXIT_CONFIG;
    }
    int code = get(box, wish, &image);
    if (code == 0) {
        step_say("Using %s %s (%.19s)", what, image.name, image.info.id);
        *ret = image;
    }
    return code;
}

int box_entrypoint(const struct box *box, const Pb__Image *wish, const struct answer_image *image,
                   const char ***ret, size_t *ret_count)
{
    bool own = wish->n_entrypoint > 0;
    size_t n = own ? wish->n_entrypoint : image->entrypoint_count;
    const char **words = arena_array(&box->s->arena, n + 1, sizeof(*words));
    for (size_t i = 0; i < n; i++) {
        words[i] = own ? wish->entrypoint[i] : image->entrypoint[i];
        if (words[i][0] == '\0') {
            if (n == 1) {
                n = 0; /* entrypoint: [""] takes the image's own away */
                break;
            }
            step_error("an entrypoint with an empty word in it cannot be used");
            return -E_INVALID;
        }
    }
    *ret = words;
    *ret_count = n;
    return 0;
}
