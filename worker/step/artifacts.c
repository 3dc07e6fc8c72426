#include "common/base.h"

#include "worker/step/step.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/archive.h"
#include "common/limits.h"
#include "worker/exec/exec.h"
#include "worker/exec/prepared.h"
#include "worker/step/select.h"

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

/* Do the artifacts of a job that went this way count? */
static bool is_wanted(const Pb__ArtifactSpec *spec)
{
    const char *status = getenv("DAVIT_JOB_STATUS");
    bool success = status != NULL && strcmp(status, "success") == 0;
    bool canceled = status != NULL && strcmp(status, "canceled") == 0;
    switch (spec->when) {
    case PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_SUCCESS:
        return success;
    case PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_FAILURE:
        return !success && !canceled;
    case PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS:
        return true;
    case _PB__ARTIFACT_WHEN_IS_INT_SIZE:
        break;
    }
    return success;
}

static void collect(struct selection *sel)
{
    const Pb__ArtifactSpec *spec = sel->spec;
    for (size_t i = 0; i < spec->n_paths; i++) {
        selection_add_pattern(sel, pb_str(spec->paths[i]));
    }
    if (spec->untracked) {
        selection_add_untracked(sel);
    }
    selection_finish(sel);
}

static int pack(struct step *s, const struct selection *sel, int fd, struct archive_info *ret)
{
    struct buf why = BUF_INIT;
    int r = archive_pack(s->project_dir, (const char *const *)sel->paths, sel->count, fd, ret,
                         &why);
    if (r < 0) {
        step_error("cannot pack the artifacts: %s", why.n > 0 ? buf_cstr(&why) : err_text(r));
    } else if (ret->content_bytes > LIMIT_ARTIFACT_BYTES || ret->size > LIMIT_BLOB_BYTES) {
        r = -E_TOO_BIG;
        step_error("the artifacts are too big: %s, at most %s are taken",
                   step_size_text(s, ret->content_bytes), step_size_text(s, LIMIT_ARTIFACT_BYTES));
    }
    buf_release(&why);
    return r;
}

static int record(struct step *s, const Pb__ArtifactSpec *spec, const struct archive_info *info)
{
    Pb__ArtifactOut out = PB__ARTIFACT_OUT__INIT;
    struct str name = pb_str(spec->name);
    bool named = name.n > 0 && str_is_utf8(name, NULL);
    out.digest = pb_bytes(&s->arena, str_of(info->digest, sizeof(info->digest)));
    out.size = info->size;
    out.file_count = info->file_count;
    out.name = named ? arena_strdup(&s->arena, name) : arena_strdup(&s->arena, STR("artifacts"));
    out.expire_in_ms = spec->never_expires ? 0 : spec->expire_in_ms;
    int r = prepared_artifacts_write(s->folder, &out);
    if (r < 0) {
        step_error("cannot write down what was uploaded: %s", err_text(r));
    }
    return r;
}

static int upload(struct step *s, const struct selection *sel)
{
    struct archive_info info;
    int fd;
    int r = step_temporary_file(s, &fd);
    if (r < 0) {
        return r;
    }
    r = pack(s, sel, fd, &info);
    if (r == 0) {
        step_say("Uploading artifacts: %" PRIu64 " files, %s (%s packed)...", info.file_count,
                 step_size_text(s, info.content_bytes), step_size_text(s, info.size));
        r = step_upload(s, fd, info.size, info.digest);
    }
    close(fd);
    return r < 0 ? r : record(s, sel->spec, &info);
}

int step_artifacts_out(struct step *s)
{
    const Pb__ArtifactSpec *spec = s->spec->artifacts;
    struct selection sel;
    int r = 0;
    if (spec == NULL || !is_wanted(spec)) {
        return 0;
    }
    selection_init(&sel, s, spec);
    collect(&sel);
    if (sel.too_many) {
        r = -E_LIMIT;
        step_error("too many files for artifacts: at most %u are taken", LIMIT_ARTIFACT_FILES);
    } else if (sel.count == 0) {
        step_warn("no files to upload");
    } else {
        r = upload(s, &sel);
    }
    selection_release(&sel);
    return r < 0 ? STEP_EXIT_ARTIFACT : 0;
}
