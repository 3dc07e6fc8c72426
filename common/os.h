/* The platform: clock, random bytes, files, processes. The only place besides the library adapters
 * (LMDB, nng, MHD, curl, archive) that makes system calls. All descriptors are close-on-exec.
 * Functions return 0 or a negative enum err; errno is kept for a message. Threads: all safe. */
#ifndef DAVIT_OS_H
#define DAVIT_OS_H

#include <stdatomic.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

/* time */
uint64_t os_realtime_ms(void);
uint64_t os_monotonic_ms(void);
uint64_t os_monotonic_us(void);
void os_sleep_ms(uint64_t ms); /* resumes after signals */

/* What this machine has: processors that are online, and memory. */
void os_machine(uint32_t *ret_processors, uint64_t *ret_memory_bytes);

/* random */
void os_random(void *p, size_t n); /* from the kernel; ends the process when there is none */

/* whole files; limit in bytes, -E_TOO_BIG above */
int os_read_file(const char *path, size_t limit, struct buf *out);
/* tmp in the same folder, write, fsync, rename, fsync folder. */
int os_write_file(const char *path, const void *p, size_t n, mode_t mode);
/* The same without waiting for the disk: for what a crash of the machine makes void anyway. */
int os_put_file(const char *path, const void *p, size_t n, mode_t mode);
int os_mkdir_p(const char *path, mode_t mode);
/* Makes a folder NAME-XXXXXX, mode 0700, in TMPDIR, or in /tmp where that is not an absolute path;
 * heap, or NULL: errno says why. */
char *os_make_temp_dir(const char *name);
const char *os_temp_dir(void);        /* that TMPDIR or /tmp */
int os_remove_tree(const char *path); /* never follows symlinks; no error when it is not there */
int os_fsync_dir(const char *path);
bool os_exists(const char *path);
/* Calls fn with each name in the folder but "." and "..", in no order. */
int os_list_dir(const char *path, void (*fn)(void *ctx, const char *name), void *ctx);
char *os_absolute_path(const char *path); /* without links and dots, heap; NULL: not there */
/* The file of a time zone (tz.h) from the machine's database, below TZDIR or the usual folder.
 * -E_INVALID: no name of a zone; -E_NOT_FOUND: there is none. */
int os_read_zone(struct str name, struct buf *out);
int os_write_all(int fd, const void *p, size_t n);
int os_pwrite_all(int fd, const void *p, size_t n, uint64_t offset);
/* n bytes, or those that there are before the end of the file. */
int os_pread_all(int fd, void *p, size_t n, uint64_t offset, size_t *ret_n);
int os_disk_free(const char *path, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes);
/* A lock for a data folder: fails with -E_BUSY when another process holds it. Kept until close. */
int os_lock_file(const char *path, int *ret_fd);
char *os_path_join(const char *a, const char *b); /* heap */
/* The folder of the running program, heap; where its sister programs are. */
char *os_program_dir(void);
/* Finds a sister program: DAVIT_BIN_DIR, the own folder, ../libexec/davit. Heap, or NULL. */
char *os_find_program(const char *name);

char *os_hostname(void); /* heap */

/* processes */
/* As many descriptors as the hard limit allows; *ret_before is what was allowed until now, which is
 * for whoever is started from here: select() in somebody else's program ends at 1,024. Before the
 * first thread. */
int os_raise_open_files(uint64_t *ret_before);
struct os_spawn {
    const char *const *argv;
    const char *const *envp; /* NULL: the caller's */
    const char *cwd;         /* NULL: the caller's */
    int stdin_fd;            /* -1: /dev/null */
    int stdout_fd;           /* -1: inherited */
    int stderr_fd;           /* -1: inherited */
    bool stderr_to_stdout;   /* both to where stdout goes */
    bool new_session;        /* setsid */
};
/* Signals reset, mask empty, descriptors above 2 closed. */
int os_spawn(const struct os_spawn *s, pid_t *ret_pid);
/* Runs to the end; output (stdout, up to limit) into out, which may be NULL. *ret_status as
 * waitpid. */
int os_run(const struct os_spawn *s, size_t limit, struct buf *out, int *ret_status);
/* The same, but with an end: when the output has not ended after timeout_ms (0: never), the process
 * is killed, with new_session all of its session: -E_TIMEOUT; so it is within 200 ms of *stop,
 * which may be NULL: -E_SHUTDOWN. With either there is an `out`. */
int os_run_within(const struct os_spawn *s, uint64_t timeout_ms, const atomic_bool *stop,
                  size_t limit, struct buf *out, int *ret_status);
/* Field 22 of /proc/PID/stat: tells a process from a later one with the same pid. */
int os_process_start_time(pid_t pid, uint64_t *ret_ticks);

#endif
