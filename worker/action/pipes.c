#include "common/base.h"

#include "worker/action/pipes.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int pipe_make(int ret[2], bool our_end_reads)
{
    if (pipe2(ret, O_CLOEXEC) != 0) {
        return err_from_errno(errno);
    }
    int ours = our_end_reads ? ret[0] : ret[1];
    check(fcntl(ours, F_SETFL, O_NONBLOCK) == 0);
    return 0;
}

int pipe_read(int fd, struct buf *out, size_t limit)
{
    char bytes[16384];
    for (;;) {
        ssize_t n = read(fd, bytes, sizeof(bytes));
        if (n > 0) {
            buf_add(out, bytes, (size_t)n);
            if (out->n > limit) {
                return -E_TOO_BIG;
            }
        } else if (n == 0) {
            return 1;
        } else if (errno != EINTR) {
            return errno == EAGAIN ? 0 : 1; /* a reset is an end, too */
        }
    }
}

int pipe_write(int fd, struct str all, size_t *sent)
{
    while (*sent < all.n) {
        ssize_t n = write(fd, all.p + *sent, all.n - *sent);
        if (n > 0) {
            *sent += (size_t)n;
        } else if (errno == EAGAIN) {
            return 0;
        } else if (errno != EINTR) {
            return -E_IO;
        }
    }
    return 0;
}

struct str last_line(struct str s)
{
    s = str_trim(s);
    for (size_t i = s.n; i > 0; i--) {
        if (s.p[i - 1] == '\n') {
            return str_sub(s, i, s.n);
        }
    }
    return s;
}
