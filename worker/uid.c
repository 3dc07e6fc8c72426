#include "common/base.h"

#include "worker/uid.h"

#include <stdlib.h>

#include "common/os.h"
#include "common/str.h"

int uid_lock(const char *state, int *ret_fd, struct buf *why)
{
    char *path = os_path_join(state, "lock");
    int r = os_lock_file(path, ret_fd);

    if (r == -E_BUSY) {
        buf_addf(why, "another davit-worker uses %s", state);
    } else if (r < 0) {
        buf_addf(why, "cannot lock %s: %s", path, err_text(r));
    }
    free(path);
    return r;
}

int uid_load(const char *state, uint8_t ret[UID_BYTES], struct buf *why)
{
    char hex[2 * UID_BYTES + 2];
    char *path = os_path_join(state, "worker.uid");
    struct buf text = BUF_INIT;
    int r = os_read_file(path, sizeof(hex), &text);

    if (r == 0 && str_from_hex(str_trim(buf_str(&text)), ret, UID_BYTES) < 0) {
        r = -E_CORRUPT;
    } else if (r == -E_NOT_FOUND) {
        os_random(ret, UID_BYTES);
        str_to_hex(ret, UID_BYTES, hex);
        hex[2 * UID_BYTES] = '\n';
        r = os_write_file(path, hex, 2 * UID_BYTES + 1, 0600);
    }
    if (r < 0) {
        buf_addf(why, "cannot use %s: %s", path, err_text(r));
    }
    buf_release(&text);
    free(path);
    return r;
}
