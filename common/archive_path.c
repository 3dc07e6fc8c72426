#include "common/base.h"

#include "common/archive_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int archive_clean_name(struct str name, struct buf *ret_name)
{
    struct buf clean = BUF_INIT;
    struct str part;
    int r = name.n > 0 && name.p[0] == '/' ? -E_INVALID : 0;
    while (r == 0 && str_split(&name, '/', &part)) {
        if (str_eq(part, STR(".."))) {
            r = -E_INVALID;
        } else if (part.n > 0 && !str_eq(part, STR("."))) {
            buf_addz(&clean, clean.n > 0 ? "/" : "");
            buf_add_str(&clean, part);
        }
    }
    if (r == 0) {
        buf_clear(ret_name);
        buf_add_str(ret_name, buf_str(&clean));
    }
    buf_release(&clean);
    return r;
}

static int open_folder(int parent_fd, const char *name, uint64_t *made, int *ret_fd)
{
    if (made != NULL && mkdirat(parent_fd, name, 0777) == 0) {
        ++*made;
    } else if (made != NULL && errno != EEXIST) {
        return err_from_errno(errno);
    }
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOTDIR || errno == ELOOP ? -E_INVALID : err_from_errno(errno);
    }
    *ret_fd = fd;
    return 0;
}

int archive_open_parent(int root_fd, const char *name, uint64_t *made, int *ret_fd,
                        const char **ret_leaf)
{
    int r = 0;
    int fd = fcntl(root_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    for (const char *slash = strchr(name, '/'); slash != NULL; slash = strchr(name, '/')) {
        char *part = str_dup(str_of(name, (size_t)(slash - name)));
        int below = -1;
        r = open_folder(fd, part, made, &below);
        int saved = errno;
        free(part);
        close(fd);
        errno = saved;
        if (r < 0) {
            return r;
        }
        fd = below;
        name = slash + 1;
    }
    *ret_fd = fd;
    *ret_leaf = name;
    return 0;
}
