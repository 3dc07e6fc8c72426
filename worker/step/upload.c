#include "common/base.h"

#include "worker/step/upload.h"

#include <unistd.h>

void uploads_init(struct uploads *u, struct step *s)
{
    *u = (struct uploads){.s = s};
    pb__outcome__init(&u->part);
    u->part.artifacts = u->list;
}

int upload_pack(struct step *s, const struct selection *sel, const char *root, int fd,
                struct archive_info *ret, struct buf *why)
{
    if (sel->too_many) {
        buf_addf(why, "too many files: at most %u are taken", LIMIT_ARTIFACT_FILES);
        return -E_LIMIT;
    }
    int r = archive_pack(root, (const char *const *)sel->paths, sel->count, fd, ret, why);
    if (r < 0 && why->n == 0) {
        buf_addz(why, err_text(r));
    }
    if (r == 0 && (ret->content_bytes > LIMIT_ARTIFACT_BYTES || ret->size > LIMIT_BLOB_BYTES)) {
        r = -E_TOO_BIG;
        buf_addf(why, "too big: %s, at most %s are taken", step_size_text(s, ret->content_bytes),
                 step_size_text(s, LIMIT_ARTIFACT_BYTES));
    }
    return r;
}

static void record(struct uploads *u, const struct product *product,
                   const struct archive_info *info)
{
    struct arena *arena = &u->s->arena;
    Pb__ArtifactOut *out = arena_alloc(arena, sizeof(*out));
    pb__artifact_out__init(out);
    out->digest = pb_bytes(arena, str_of(info->digest, sizeof(info->digest)));
    out->size = info->size;
    out->file_count = info->file_count;
    out->name = arena_strdup(arena, str_from(product->name));
    out->expire_in_ms = product->expire_in_ms;
    out->type = arena_strdup(arena, str_from(product->type));
    out->format = arena_strdup(arena, str_from(product->format));
    out->access = arena_strdup(arena, str_from(product->access));
    out->expose_as = pb_bytes(arena, product->expose_as);
    u->list[u->part.n_artifacts++] = out;
}

static int send(struct uploads *u, const struct selection *sel, const struct product *product,
                int fd)
{
    struct step *s = u->s;
    struct archive_info info;
    struct buf why = BUF_INIT;
    int r = upload_pack(s, sel, product->root, fd, &info, &why);
    if (r < 0) {
        step_error("cannot pack the %s: %s", product->what, buf_cstr(&why));
    } else {
        step_say("Uploading %s: %" PRIu64 " files, %s (%s packed)...", product->what,
                 info.file_count, step_size_text(s, info.content_bytes),
                 step_size_text(s, info.size));
        r = step_upload(s, fd, info.size, info.digest, STEP_FOREVER, &why);
        if (r < 0) {
            step_error("cannot upload the %s: %s", product->what, buf_cstr(&why));
        }
    }
    if (r == 0) {
        record(u, product, &info);
    }
    buf_release(&why);
    return r;
}

int uploads_add(struct uploads *u, struct selection *sel, const struct product *product)
{
    int fd;
    if (sel->count == 0) {
        step_warn("no files to upload for the %s", product->what);
        return 0;
    }
    if (u->part.n_artifacts == LIMIT_JOB_ARTIFACTS) {
        step_error("too many kinds of artifacts: at most %u are taken", LIMIT_JOB_ARTIFACTS);
        return -E_LIMIT;
    }
    int r = step_temporary_file(u->s, &fd);
    if (r < 0) {
        return r;
    }
    r = send(u, sel, product, fd);
    close(fd);
    return r;
}
