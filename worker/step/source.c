#include "common/base.h"

#include "worker/step/step.h"

#include <dirent.h>
#include <errno.h>
#include <unistd.h>

#include "common/archive.h"
#include "common/limits.h"
#include "common/os.h"
#include "worker/exec/exec.h"

int step_empty_folder(struct step *s)
{
    int r = 0;
    DIR *dir = opendir(s->project_dir);
    struct dirent *entry;
    if (dir == NULL) {
        return err_from_errno(errno);
    }
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            int removed = os_remove_tree(entry->d_name);
            r = r == 0 ? removed : r;
        }
    }
    closedir(dir);
    if (r < 0) {
        step_error("cannot empty %s: %s", s->project_dir, err_text(r));
    }
    return r;
}

static int unpack_snapshot(struct step *s, const Pb__SnapshotSource *snapshot)
{
    struct archive_info info;
    struct buf why = BUF_INIT;
    int fd;
    int r = step_download(s, snapshot->digest, snapshot->size, &fd);
    if (r < 0) {
        return r;
    }
    r = step_empty_folder(s);
    if (r == 0) {
        r = archive_unpack(fd, s->project_dir, LIMIT_SNAPSHOT_FILES, LIMIT_SNAPSHOT_BYTES, &info,
                           &why);
        if (r < 0) {
            step_error("cannot unpack the snapshot: %s", why.n > 0 ? buf_cstr(&why) : err_text(r));
        } else {
            step_say("Unpacked %" PRIu64 " files, %s", info.file_count,
                     step_size_text(s, info.content_bytes));
        }
    }
    buf_release(&why);
    close(fd);
    return r;
}

/* Every job begins with the snapshot itself: what the job before it made would be a lie about it.
 */
static int source_snapshot(struct step *s, const Pb__SnapshotSource *snapshot)
{
    char hex[2 * SHA256_BYTES + 1] = "";
    if (snapshot->digest.len == SHA256_BYTES) {
        str_to_hex(snapshot->digest.data, SHA256_BYTES, hex);
    }
    step_say("Getting snapshot %.12s (%s)...", hex, step_size_text(s, snapshot->size));
    return unpack_snapshot(s, snapshot);
}

int step_source(struct step *s)
{
    const Pb__Source *source = s->spec->source;
    Pb__Source__FromCase from = source != NULL ? source->from_case : PB__SOURCE__FROM__NOT_SET;
    int r = 0;
    if (step_var_is(s, "GIT_STRATEGY", "none")) {
        step_say("Leaving the working folder as it is (GIT_STRATEGY: none)");
    } else if (from == PB__SOURCE__FROM__NOT_SET || step_var_is(s, "GIT_STRATEGY", "empty")) {
        step_say("Starting in an empty folder");
        r = step_empty_folder(s);
    } else if (from == PB__SOURCE__FROM_SNAPSHOT) {
        r = source_snapshot(s, source->snapshot);
    } else {
        r = step_source_git(s, source->git);
    }
    return r < 0 ? STEP_EXIT_SOURCE : 0;
}
