#include "common/base.h"

#include "broker/pages/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"

#define INDEX        "index.html"
#define WHY_BYTES    4096u
#define PART_MAX     255u
#define UNKNOWN_TYPE "application/octet-stream"

/* By the ending of the name, upper case or not. */
static const struct {
    const char *ending;
    const char *type;
} types[] = {
    {"html", "text/html; charset=utf-8"},
    {"htm", "text/html; charset=utf-8"},
    {"css", "text/css; charset=utf-8"},
    {"js", "text/javascript; charset=utf-8"},
    {"mjs", "text/javascript; charset=utf-8"},
    {"json", "application/json"},
    {"map", "application/json"},
    {"xml", "application/xml"},
    {"txt", "text/plain; charset=utf-8"},
    {"md", "text/plain; charset=utf-8"},
    {"csv", "text/csv; charset=utf-8"},
    {"svg", "image/svg+xml"},
    {"png", "image/png"},
    {"jpg", "image/jpeg"},
    {"jpeg", "image/jpeg"},
    {"gif", "image/gif"},
    {"webp", "image/webp"},
    {"avif", "image/avif"},
    {"ico", "image/x-icon"},
    {"woff", "font/woff"},
    {"woff2", "font/woff2"},
    {"ttf", "font/ttf"},
    {"otf", "font/otf"},
    {"mp4", "video/mp4"},
    {"webm", "video/webm"},
    {"mp3", "audio/mpeg"},
    {"pdf", "application/pdf"},
    {"wasm", "application/wasm"},
    {"webmanifest", "application/manifest+json"},
    {"zip", "application/zip"},
    {"gz", "application/gzip"},
};

static bool same_letters(struct str a, const char *lower)
{
    size_t n = strlen(lower);
    if (a.n != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        char c = a.p[i];
        if ((c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c) != lower[i]) {
            return false;
        }
    }
    return true;
}

static const char *type_of(struct str name)
{
    size_t dot = name.n;
    while (dot > 0 && name.p[dot - 1] != '.') {
        dot--;
    }
    struct str ending = str_sub(name, dot, name.n);
    for (size_t i = 0; dot > 0 && i < ARRAY_LEN(types); i++) {
        if (same_letters(ending, types[i].ending)) {
            return types[i].type;
        }
    }
    return UNKNOWN_TYPE;
}

static bool part_ok(struct str part)
{
    return part.n > 0 && part.n <= PART_MAX && !str_eq(part, STR(".")) &&
           !str_eq(part, STR("..")) && memchr(part.p, '\0', part.n) == NULL;
}

/* One step down, never through a symlink; -1: not there. */
static int open_part(int folder_fd, struct str part, int flags)
{
    char name[PART_MAX + 1];
    memcpy(name, part.p, part.n);
    name[part.n] = '\0';
    return openat(folder_fd, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
}

/* A plain file of that name; false: there is none. */
static bool open_file(int folder_fd, struct str name, struct page *ret)
{
    struct stat st;
    int fd = name.n <= PART_MAX ? open_part(folder_fd, name, O_RDONLY) : -1;
    if (fd < 0) {
        return false;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return false;
    }
    *ret = (struct page){.fd = fd, .size = (uint64_t)st.st_size, .type = type_of(name)};
    return true;
}

/* "name" itself, "name/" by its index, or "name.html". */
static int open_last(int folder_fd, struct str name, struct page *ret)
{
    struct buf html = BUF_INIT;
    if (open_file(folder_fd, name, ret)) {
        return 0;
    }
    int below = open_part(folder_fd, name, O_RDONLY | O_DIRECTORY);
    bool found = below >= 0 && open_file(below, STR(INDEX), ret);
    if (below >= 0) {
        close(below);
    }
    if (found) {
        close(ret->fd);
        *ret = (struct page){.fd = -1, .is_folder = true};
        return 0;
    }
    buf_add_str(&html, name);
    buf_addz(&html, ".html");
    found = open_file(folder_fd, buf_str(&html), ret);
    buf_release(&html);
    return found ? 0 : -E_NOT_FOUND;
}

/* Takes the descriptor over. */
static int walk(int folder_fd, struct str path, struct page *ret)
{
    int r = -E_NOT_FOUND;
    while (folder_fd >= 0) {
        ptrdiff_t slash = str_chr(path, '/');
        struct str part = str_sub(path, 0, slash < 0 ? path.n : (size_t)slash);
        if (path.n == 0) {
            r = open_file(folder_fd, STR(INDEX), ret) ? 0 : -E_NOT_FOUND;
            break;
        }
        if (!part_ok(part)) {
            break;
        }
        if (slash < 0) {
            r = open_last(folder_fd, part, ret);
            break;
        }
        int below = open_part(folder_fd, part, O_RDONLY | O_DIRECTORY);
        close(folder_fd);
        folder_fd = below;
        path = str_sub(path, (size_t)slash + 1, path.n);
    }
    if (folder_fd >= 0) {
        close(folder_fd);
    }
    return r;
}

/* Why the archive was refused; false: it was not. */
static bool is_refused(struct pages *p, const struct pages_name *name, struct buf *why)
{
    char *path = os_path_join(p->dir, name->bad);
    bool refused = os_read_file(path, WHY_BYTES, why) == 0;
    free(path);
    return refused;
}

int page_open(struct pages *p, const uint8_t digest[SHA256_BYTES], struct str path,
              struct page *ret, struct buf *why)
{
    struct pages_name name = pages_name(digest);
    if (path.n > LIMIT_PAGE_PATH) {
        return -E_NOT_FOUND;
    }
    int fd = openat(p->dir_fd, name.folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return is_refused(p, &name, why) ? -E_GONE : -E_NOT_FOUND;
    }
    return walk(fd, path, ret);
}
