/* What the job promises besides files, made with its last variables: those of its dotenv reports
 * are known now. The address of its environment, and its release. */
#include "common/base.h"

#include "worker/step/step.h"

#include <unistd.h>

#include "common/limits.h"
#include "worker/exec/exec.h"
#include "worker/exec/prepared.h"

struct result {
    struct step *s;
    Pb__Outcome part;
};

static int fail(struct result *res, const char *text)
{
    step_error("%s", text);
    res->part.detail = arena_strdup(&res->s->arena, str_from(text));
    return -E_INVALID;
}

/* They are stronger than the job's own variables, as they are for the jobs that inherit them. */
static void add_dotenv(struct step *s)
{
    Pb__Outcome *artifacts;
    if (prepared_part_read(s->folder, "artifacts_out", &s->arena, &artifacts) < 0) {
        return;
    }
    for (size_t i = 0; i < artifacts->n_dotenv; i++) {
        const Pb__Variable *v = artifacts->dotenv[i];
        vars_set(&s->vars,
                 (struct var){.name = str_from(v->name), .value = pb_str(v->value), .raw = true});
    }
}

static int expand(struct result *res, ProtobufCBinaryData *bytes)
{
    struct step *s = res->s;
    struct buf out = BUF_INIT;
    buf_init(&out, LIMIT_RELEASE_TEXT);
    int r = vars_expand(&s->vars, pb_str(*bytes), &out);
    if (r == 0 && !buf_ok(&out)) {
        r = -E_LIMIT;
    }
    if (r == 0) {
        *bytes = pb_bytes(&s->arena, buf_str(&out));
    }
    buf_release(&out);
    return r;
}

static int add_url(struct result *res)
{
    ProtobufCBinaryData url = res->s->spec->environment_url;
    int r = expand(res, &url);
    if (r < 0 || url.len > LIMIT_URL || !str_is_utf8(pb_str(url), NULL)) {
        step_warn("the environment's url is no text of at most %u bytes: it gets none", LIMIT_URL);
    } else {
        res->part.environment_url = url;
    }
    return 0;
}

/* Where the description is the path of a file of the project, that file's text. */
static int read_description(struct result *res, ProtobufCBinaryData *description)
{
    struct step *s = res->s;
    struct buf text = BUF_INIT;
    const char *path = arena_strdup(&s->arena, pb_str(*description));
    bool named = description->len > 0 && strlen(path) == description->len;
    int r = named ? step_read_project_file(s, path, LIMIT_RELEASE_TEXT, &text) : -E_NOT_FOUND;
    if (r == 0) {
        *description = pb_bytes(&s->arena, buf_str(&text));
    } else if (r == -E_TOO_BIG) {
        r = fail(res, arena_printf(&s->arena, "release: %s has more than %u bytes", path,
                                   LIMIT_RELEASE_TEXT));
    } else {
        r = 0; /* then it is the text itself */
    }
    buf_release(&text);
    return r;
}

static int expand_release(struct result *res, Pb__ReleaseSpec *release)
{
    ProtobufCBinaryData *const fields[] = {
        &release->tag_name,    &release->tag_message, &release->name,
        &release->description, &release->ref,         &release->released_at,
    };
    int r = 0;
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(fields); i++) {
        r = expand(res, fields[i]);
    }
    for (size_t i = 0; r == 0 && i < release->n_milestones; i++) {
        r = expand(res, &release->milestones[i]);
    }
    for (size_t i = 0; r == 0 && i < release->n_links; i++) {
        Pb__ReleaseLink *link = release->links[i];
        r = expand(res, &link->name);
        r = r < 0 ? r : expand(res, &link->url);
        r = r < 0 ? r : expand(res, &link->filepath);
        r = r < 0 ? r : expand(res, &link->type);
    }
    return r;
}

static int add_release(struct result *res)
{
    struct step *s = res->s;
    struct buf packed = BUF_INIT;
    Pb__ReleaseSpec *release = s->spec->release;
    if (expand_release(res, release) < 0) {
        return fail(res, arena_printf(&s->arena, "release: a field has more than %u bytes",
                                      LIMIT_RELEASE_TEXT));
    }
    struct str tag = str_trim(pb_str(release->tag_name));
    if (tag.n == 0) {
        return fail(res, "release: tag_name is empty once its variables are expanded");
    }
    if (tag.n > LIMIT_NAME) {
        return fail(
            res, arena_printf(&s->arena, "release: tag_name has more than %u bytes", LIMIT_NAME));
    }
    release->tag_name = pb_bytes(&s->arena, tag);
    int r = read_description(res, &release->description);
    if (r < 0) {
        return r;
    }
    PB_PACK(release, &packed);
    if (packed.n > LIMIT_RELEASE_BYTES) {
        r = fail(res, arena_printf(&s->arena, "release: it has more than %u bytes together",
                                   LIMIT_RELEASE_BYTES));
    } else {
        res->part.release = release;
        step_say("Release " STR_FMT " is made when the job has ended", STR_ARG(tag));
    }
    buf_release(&packed);
    return r;
}

int step_result(struct step *s)
{
    struct result res = {.s = s};
    int result = 0;
    pb__outcome__init(&res.part);
    add_dotenv(s);
    if (s->spec->environment_url.len > 0) {
        result = add_url(&res);
    }
    if (s->spec->release != NULL && step_is_wanted(PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_SUCCESS)) {
        result = add_release(&res);
    }
    int r = prepared_part_write(s->folder, "result", &res.part);
    if (r < 0) {
        step_error("cannot write down the job's results: %s", err_text(r));
        return STEP_EXIT_SYSTEM;
    }
    return result < 0 ? STEP_EXIT_RESULT : 0;
}
