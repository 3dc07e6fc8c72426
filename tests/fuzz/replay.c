/* The main of a fuzz target in a normal build: runs it over files and folders of files, so that
 * what the fuzzer once found stays found. Each file is run whole and cut off at every byte of its
 * first kilobyte. */
#include "common/base.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/os.h"
#include "tests/fuzz/fuzz.h"

enum { FILE_LIMIT = 16 << 20, CUT_MAX = 1024 };

/* A copy of exactly n bytes: the address sanitizer sees a read past the end. */
static void run(const char *p, size_t n)
{
    uint8_t *copy = xmemdup(p, n);

    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

static int replay_file(const char *path)
{
    struct buf b = BUF_INIT;
    int r = os_read_file(path, FILE_LIMIT, &b);

    if (r < 0) {
        fprintf(stderr, "%s: %s\n", path, err_text(r));
        return 0;
    }
    printf("%s\n", path);
    fflush(stdout);
    for (size_t n = 0; n < MIN(b.n, CUT_MAX); n++) {
        run(b.p, n);
    }
    run(buf_cstr(&b), b.n);
    buf_release(&b);
    return 1;
}

/* Number of files that were run. */
static int replay(const char *path)
{
    struct dirent *e;
    struct stat st;
    DIR *dir;
    int count = 0;

    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
        return replay_file(path);
    }
    dir = opendir(path);
    while (dir && (e = readdir(dir))) {
        if (e->d_name[0] != '.') {
            char *file = os_path_join(path, e->d_name);

            count += replay_file(file);
            free(file);
        }
    }
    closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    int count = 0;

    for (int i = 1; i < argc; i++) {
        count += replay(argv[i]);
    }
    printf("%d files\n", count);
    return count > 0 ? 0 : 1;
}
