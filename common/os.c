/* Time, randomness and where the programs are. Files are os_file.c, processes os_process.c. */
#include "common/base.h"

#include "common/os.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static uint64_t clock_us(clockid_t id)
{
    struct timespec ts;
    check(clock_gettime(id, &ts) == 0);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t os_realtime_ms(void)
{
    return clock_us(CLOCK_REALTIME) / 1000;
}

uint64_t os_monotonic_ms(void)
{
    return clock_us(CLOCK_MONOTONIC) / 1000;
}

uint64_t os_monotonic_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

void os_sleep_ms(uint64_t ms)
{
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

void os_machine(uint32_t *ret_processors, uint64_t *ret_memory_bytes)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);

    *ret_processors = processors > 0 ? (uint32_t)processors : 1;
    *ret_memory_bytes = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
}

void os_random(void *p, size_t n)
{
    uint8_t *at = p;
    while (n > 0) {
        ssize_t got = getrandom(at, n, 0);
        check(got > 0 || (got < 0 && errno == EINTR));
        if (got > 0) {
            at += got;
            n -= (size_t)got;
        }
    }
}

char *os_hostname(void)
{
    char name[256] = "";
    (void)gethostname(name, sizeof(name) - 1);
    return xstrdup(name[0] == '\0' ? "localhost" : name);
}

char *os_program_dir(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    check(n > 0);
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    check(slash != NULL);
    *(slash == path ? slash + 1 : slash) = '\0';
    return xstrdup(path);
}

/* Takes `dir`; NULL unless the program can be run. */
static char *find_in(char *dir, const char *name)
{
    char *path = os_path_join(dir, name);
    free(dir);
    if (access(path, X_OK) == 0) {
        return path;
    }
    free(path);
    return NULL;
}

char *os_find_program(const char *name)
{
    const char *chosen = getenv("DAVIT_BIN_DIR");
    char *path = chosen != NULL && chosen[0] != '\0' ? find_in(xstrdup(chosen), name) : NULL;
    if (path == NULL) {
        path = find_in(os_program_dir(), name);
    }
    if (path == NULL) {
        char *own = os_program_dir();
        path = find_in(os_path_join(own, "../libexec/davit"), name);
        free(own);
    }
    return path;
}
