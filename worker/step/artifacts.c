#include "common/base.h"

#include "worker/step/step.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/os.h"
#include "worker/exec/exec.h"
#include "worker/exec/prepared.h"
#include "worker/step/dotenv.h"
#include "worker/step/slug.h"
#include "worker/step/upload.h"

static int get_one(struct step *s, const Pb__ArtifactIn *in)
{
    struct archive_info info;
    struct buf why = BUF_INIT;
    int fd;
    if (in->digest.len == 0) {
        step_error("there are no artifacts of %s in the pipeline that the job needs them from",
                   in->job_name);
        return -E_NOT_FOUND;
    }
    step_say("Downloading artifacts of %s (%s)...", in->job_name, step_size_text(s, in->size));
    int r = step_download(s, in->digest, in->size, &fd);
    if (r < 0) {
        step_error("the artifacts of %s cannot be had%s", in->job_name,
                   r == -E_NOT_FOUND ? ": they have expired or were removed" : "");
        return r;
    }
    r = archive_unpack(fd, s->project_dir, LIMIT_ARTIFACT_FILES, LIMIT_ARTIFACT_BYTES, &info, &why);
    if (r < 0) {
        step_error("cannot unpack the artifacts of %s: %s", in->job_name,
                   why.n > 0 ? buf_cstr(&why) : err_text(r));
    }
    buf_release(&why);
    close(fd);
    return r;
}

int step_artifacts_in(struct step *s)
{
    for (size_t i = 0; i < s->spec->n_artifacts_in; i++) {
        if (get_one(s, s->spec->artifacts_in[i]) < 0) {
            return STEP_EXIT_ARTIFACT;
        }
    }
    return 0;
}

/* What people named; `usual` where they did not, or by what is no name. */
static const char *text_or(struct step *s, ProtobufCBinaryData bytes, const char *usual)
{
    struct str text = pb_str(bytes);
    bool good = text.n > 0 && text.n <= LIMIT_NAME && str_is_utf8(text, NULL);
    return good ? arena_strdup(&s->arena, text) : usual;
}

static struct product product_of(struct step *s, const char *what, const char *type)
{
    const Pb__ArtifactSpec *spec = s->spec->artifacts;
    struct product product = {
        .what = what,
        .type = type,
        .format = "",
        .name = type,
        .root = s->project_dir,
        .access = "",
    };
    if (spec != NULL) {
        product.expire_in_ms = spec->never_expires ? 0 : spec->expire_in_ms;
        product.access = spec->access;
    }
    return product;
}

static int add_archive(struct uploads *u, const Pb__ArtifactSpec *spec)
{
    struct selection sel;
    struct product product = product_of(u->s, "artifacts", "archive");
    product.name = text_or(u->s, spec->name, "artifacts");
    product.expose_as = str_sub(pb_str(spec->expose_as), 0, LIMIT_NAME);
    selection_init(&sel, u->s);
    sel.exclude = spec->exclude;
    sel.exclude_count = spec->n_exclude;
    selection_add_all(&sel, spec->paths, spec->n_paths, spec->untracked);
    int r = uploads_add(u, &sel, &product);
    selection_release(&sel);
    return r;
}

/* Said in the log and, first of all mistakes, in the job's outcome. */
static int refuse_dotenv(struct uploads *u, const char *path, const struct dotenv_mistake *at)
{
    struct arena *arena = &u->s->arena;
    char *text = at->line > 0 ? arena_printf(arena, "dotenv report %s, line %" PRIu32 ": %s", path,
                                             at->line, at->reason)
                              : arena_printf(arena, "dotenv report %s: %s", path, at->reason);
    size_t bad;
    step_error("%s", text);
    while (!str_is_utf8(str_from(text), &bad)) {
        text[bad] = '?'; /* names of files are bytes, a part of the outcome holds text */
    }
    if (u->part.detail[0] == '\0') {
        u->part.detail = text;
    }
    return -E_INVALID;
}

static const struct dotenv_mistake too_big = {
    .reason = "the dotenv reports of a job may have 64 KiB together"};

static int read_dotenv(struct uploads *u, const char *path, size_t *total, struct vars *vars)
{
    struct dotenv_mistake mistake = {0};
    struct buf text = BUF_INIT;
    struct stat st;
    if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        return 0;
    }
    int r = step_read_project_file(u->s, path, LIMIT_DOTENV_BYTES - *total, &text);
    if (r == 0) {
        *total += text.n;
        r = dotenv_parse(buf_str(&text), vars, &mistake);
    } else if (r == -E_TOO_BIG) {
        mistake = too_big;
    } else {
        mistake.reason = err_text(r);
    }
    buf_release(&text);
    return r < 0 ? refuse_dotenv(u, path, &mistake) : 0;
}

static int take_dotenv(struct uploads *u, const struct selection *sel)
{
    struct arena *arena = &u->s->arena;
    struct vars vars;
    size_t total = 0;
    int r = 0;
    vars_init(&vars, arena);
    for (size_t i = 0; r == 0 && i < sel->count; i++) {
        r = read_dotenv(u, sel->paths[i], &total, &vars);
    }
    if (r < 0) {
        return r;
    }
    Pb__Outcome only = PB__OUTCOME__INIT;
    only.n_dotenv = vars.count;
    only.dotenv = prepared_variables(arena, &vars);
    if (pb__outcome__get_packed_size(&only) > LIMIT_DOTENV_BYTES) {
        return refuse_dotenv(u, sel->paths[0], &too_big); /* with what a message adds to it */
    }
    u->part.n_dotenv = only.n_dotenv;
    u->part.dotenv = only.dotenv;
    return 0;
}

static int add_report(struct uploads *u, const Pb__ReportSpec *report)
{
    struct selection sel;
    struct arena *arena = &u->s->arena;
    struct product product = product_of(u->s, arena_printf(arena, "%s report", report->type),
                                        report->type);
    product.format = report->format;
    selection_init(&sel, u->s);
    selection_add_all(&sel, report->paths, report->n_paths, false);
    int r = strcmp(report->type, "dotenv") == 0 ? take_dotenv(u, &sel) : 0;
    if (r == 0) {
        r = uploads_add(u, &sel, &product);
    }
    selection_release(&sel);
    return r;
}

/* The site's files stand at the archive's top, whatever the folder is called. */
static int add_pages(struct uploads *u, const Pb__PagesSpec *pages)
{
    struct selection sel;
    struct step *s = u->s;
    struct product product = product_of(s, "pages", "pages");
    const char *folder = text_or(s, pages->publish, "public");
    selection_init(&sel, s);
    int r = selection_add_folder(&sel, folder);
    if (r < 0) {
        u->part.detail = arena_printf(&s->arena, "pages: there is no folder %s to publish", folder);
        step_error("%s", u->part.detail);
    } else {
        struct buf prefix = BUF_INIT;
        Pb__PagesOut *out = arena_alloc(&s->arena, sizeof(*out));
        pb__pages_out__init(out);
        slug_pages_prefix(pb_str(pages->path_prefix), &prefix);
        out->path_prefix = pb_bytes(&s->arena, buf_str(&prefix));
        out->expire_in_ms = pages->expire_in_ms;
        buf_release(&prefix);
        product.root = sel.root;
        r = uploads_add(u, &sel, &product);
        u->part.pages = r == 0 && sel.count > 0 ? out : NULL;
    }
    selection_release(&sel);
    return r;
}

/* Each kind is tried, whatever became of those before: what can be kept is kept. Reports tell of a
 * failure, too, so they are taken however the job ended; a site is published of a good one only. */
static int add_all(struct uploads *u)
{
    struct step *s = u->s;
    const Pb__ArtifactSpec *spec = s->spec->artifacts;
    int result = 0;
    if (spec != NULL && (spec->n_paths > 0 || spec->untracked) && step_is_wanted(spec->when)) {
        result = add_archive(u, spec);
    }
    for (size_t i = 0; spec != NULL && i < spec->n_reports; i++) {
        int r = add_report(u, spec->reports[i]);
        result = result < 0 ? result : r;
    }
    if (s->spec->pages != NULL && step_is_wanted(PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_SUCCESS)) {
        int r = add_pages(u, s->spec->pages);
        result = result < 0 ? result : r;
    }
    return result;
}

int step_artifacts_out(struct step *s)
{
    struct uploads u;
    uploads_init(&u, s);
    int result = add_all(&u);
    int r = prepared_part_write(s->folder, "artifacts_out", &u.part);
    if (r < 0) {
        step_error("cannot write down what was uploaded: %s", err_text(r));
    }
    return result < 0 || r < 0 ? STEP_EXIT_ARTIFACT : 0;
}
