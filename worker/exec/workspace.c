#include "common/base.h"

#include "worker/exec/workspace.h"

#include <errno.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"

/* Makes `path` and asks where it really is: false when that is somewhere else. */
static bool make_real(const char *path)
{
    if (os_mkdir_p(path, 0755) < 0) {
        return false;
    }
    char *real = realpath(path, NULL);
    bool same = real != NULL && strcmp(real, path) == 0;
    free(real);
    return same;
}

int workspace_make(const char *builds_dir, uint32_t slot, bool ref_protected, const char *project,
                   char **ret_path, struct buf *why)
{
    struct buf slot_dir = BUF_INIT;
    struct buf path = BUF_INIT;
    char *builds = NULL;
    if (!str_is_project_name(str_from(project))) {
        buf_addf(why, "project `%s` is no name for a folder", project);
        return -E_INVALID;
    }
    int r = os_mkdir_p(builds_dir, 0755);
    if (r == 0) {
        builds = realpath(builds_dir, NULL);
        r = builds == NULL ? err_from_errno(errno) : 0;
    }
    if (r == 0) {
        buf_addf(&slot_dir, "%s/%" PRIu32 "%s", builds, slot, ref_protected ? "-protected" : "");
        buf_addf(&path, "%s/%s", slot_dir.p, project);
        if (!make_real(path.p)) {
            r = os_remove_tree(slot_dir.p);
            r = r == 0 && !make_real(path.p) ? -E_IO : r;
        }
    }
    if (r < 0) {
        buf_addf(why, "cannot make a working folder in %s: %s", builds_dir, err_text(r));
        buf_release(&path);
    } else {
        *ret_path = buf_take(&path);
    }
    free(builds);
    buf_release(&slot_dir);
    return r;
}
