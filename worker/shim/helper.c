#include "common/base.h"

#include "worker/shim/helper.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/os.h"
#include "common/str.h"

#define TRY_MS    1000u /* for one connection */
#define PAUSE_MS  50u
#define DEPTH_MAX 2000u /* of folders in each other; each has a descriptor open meanwhile */

struct endpoint {
    struct sockaddr_storage address;
    socklen_t size;
};

/* "10.0.0.2:80", "[fd00::2]:80" */
static bool parse_endpoint(const char *text, struct endpoint *ret)
{
    char host[INET6_ADDRSTRLEN + 2];
    const char *colon = strrchr(text, ':');
    uint64_t port;
    if (colon == NULL || (size_t)(colon - text) >= sizeof(host) ||
        str_to_u64(str_from(colon + 1), &port) < 0 || port == 0 || port > UINT16_MAX) {
        return false;
    }
    size_t n = (size_t)(colon - text);
    memcpy(host, text, n);
    host[n] = '\0';
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    *ret = (struct endpoint){0};
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(&ret->address, &v4, sizeof(v4));
        ret->size = sizeof(v4);
        return true;
    }
    if (n < 2 || host[0] != '[' || host[n - 1] != ']') {
        return false;
    }
    host[n - 1] = '\0';
    if (inet_pton(AF_INET6, host + 1, &v6.sin6_addr) != 1) {
        return false;
    }
    memcpy(&ret->address, &v6, sizeof(v6));
    ret->size = sizeof(v6);
    return true;
}

static bool accepts(const struct endpoint *e)
{
    struct pollfd pfd = {
        .fd = socket(e->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
        .events = POLLOUT};
    int error = 0;
    socklen_t size = sizeof(error);
    if (pfd.fd < 0) {
        return false;
    }
    bool good = connect(pfd.fd, (const struct sockaddr *)&e->address, e->size) == 0;
    if (!good && errno == EINPROGRESS && poll(&pfd, 1, (int)TRY_MS) == 1) {
        good = getsockopt(pfd.fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
    }
    close(pfd.fd);
    return good;
}

static int wait_for_all(int argc, char **argv)
{
    uint64_t ms;
    int code = 0;
    if (argc < 2 || str_to_u64(str_from(argv[0]), &ms) < 0) {
        return 64;
    }
    uint64_t end_ms = os_monotonic_ms() + ms;
    for (int i = 1; i < argc; i++) {
        struct endpoint e;
        if (!parse_endpoint(argv[i], &e)) {
            return 64;
        }
        bool good;
        while (!(good = accepts(&e)) && os_monotonic_ms() < end_ms) {
            os_sleep_ms(PAUSE_MS);
        }
        if (!good) {
            printf("nothing answers at %s\n", argv[i]);
            code = 1;
        }
    }
    return code;
}

struct owner {
    uid_t uid;
    gid_t gid;
    dev_t device;
    int failed; /* an errno */
};

static void own_at(struct owner *o, int dir_fd, const char *name, unsigned depth);

static void own_below(struct owner *o, int fd, unsigned depth)
{
    DIR *dir = fdopendir(fd);
    struct dirent *entry;
    if (dir == NULL) {
        o->failed = errno;
        close(fd);
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            own_at(o, dirfd(dir), entry->d_name, depth + 1);
        }
    }
    closedir(dir);
}

static void own_at(struct owner *o, int dir_fd, const char *name, unsigned depth)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        o->failed = errno == ENOENT ? o->failed : errno;
        return;
    }
    if (st.st_dev != o->device) {
        return;
    }
    if (S_ISDIR(st.st_mode)) {
        int fd = depth < DEPTH_MAX
                     ? openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
                     : -1;
        if (fd >= 0) {
            own_below(o, fd, depth);
        } else {
            o->failed = depth < DEPTH_MAX ? errno : ELOOP;
        }
    }
    if (fchownat(dir_fd, name, o->uid, o->gid, AT_SYMLINK_NOFOLLOW) < 0) {
        o->failed = errno;
    }
}

static int own_all(int argc, char **argv)
{
    struct stat like;
    struct stat st;
    int code = 0;
    if (argc < 2 || stat(argv[0], &like) < 0) {
        return 64;
    }
    for (int i = 1; i < argc; i++) {
        struct owner o = {.uid = like.st_uid, .gid = like.st_gid};
        if (stat(argv[i], &st) < 0) {
            o.failed = errno;
        } else {
            o.device = st.st_dev;
            own_at(&o, AT_FDCWD, argv[i], 0);
        }
        if (o.failed != 0) {
            printf("some of %s keeps its owner: %s\n", argv[i], strerror(o.failed));
            code = 1;
        }
    }
    return code;
}

bool helper_run(int argc, char **argv, int *ret_exit_code)
{
    if (strcmp(argv[0], "--wait") == 0) {
        *ret_exit_code = wait_for_all(argc - 1, argv + 1);
    } else if (strcmp(argv[0], "--own") == 0) {
        *ret_exit_code = own_all(argc - 1, argv + 1);
    } else {
        return false;
    }
    return true;
}
