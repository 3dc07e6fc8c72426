/* The programs that davit-worker runs under the shim around a job's script: `davit-worker step NAME
 * FOLDER`. Their working folder is the project's; what they print is part of the job's log; their
 * exit codes are those of worker/exec/exec.h. The broker may be away: they try until the shim ends
 * them. One thread. */
#ifndef DAVIT_STEP_H
#define DAVIT_STEP_H

#include "common/crypto.h"
#include "common/expand.h"
#include "proto/pb.h"

struct step {
    const char *folder;  /* the job's */
    char *project_dir;   /* canonical: the working folder */
    const char *api_url; /* http://host:port */
    Pb__JobSpec *spec;   /* prepared: everything is expanded */
    struct vars vars;
    struct arena arena;
};

/* Return an exit code. */
int step_container(struct step *s);
int step_pre_get_sources(struct step *s);
int step_source(struct step *s);
int step_cache_in(struct step *s);
int step_artifacts_in(struct step *s);
int step_script(struct step *s);
int step_after_script(struct step *s);
int step_container_end(struct step *s);
int step_cache_out(struct step *s);
int step_artifacts_out(struct step *s);
int step_result(struct step *s);
int step_coverage(struct step *s);

/* Lines of the log. */
void step_say(const char *fmt, ...) PRINTF_LIKE(1, 2);
void step_warn(const char *fmt, ...) PRINTF_LIKE(1, 2);
void step_error(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* A variable's value, `usual` where it is not set or empty. */
struct str step_var(const struct step *s, const char *name, const char *usual);
bool step_var_is(const struct step *s, const char *name, const char *value);
/* Splits a variable's value at blanks into a NULL-terminated list in the arena. */
char **step_var_words(struct step *s, const char *name, const char *usual, size_t *ret_count);
/* "12.3 kB" */
const char *step_size_text(struct step *s, uint64_t bytes);
/* Behind the script: is something kept after a job that went this way? */
bool step_is_wanted(Pb__ArtifactWhen when);
/* A file of the project, by its path below the working folder. Never waits, as for a fifo.
 * -E_TOO_BIG above `limit` bytes, -E_INVALID: leads outside, or is no plain file. */
int step_read_project_file(const struct step *s, const char *path, size_t limit, struct buf *out);
int step_open_project_file(const struct step *s, const char *path, int *ret_fd);

/* git.c: the commit in the working tree. */
int step_source_git(struct step *s, const Pb__GitSource *git);
/* Removes all that is in the working folder, not the folder; never follows links. */
int step_empty_folder(struct step *s);

/* transfer.c: blobs and caches of the broker. Each request is tried again while the broker does not
 * answer, for `patience_ms` at most, and goes on with the byte where it broke; 0 or a negative err.
 */
#define STEP_FOREVER 0u
/* Into a temporary file of the job's folder, checked against the digest, read from its start.
 * Prints errors. */
int step_download(struct step *s, ProtobufCBinaryData digest, uint64_t size, int *ret_fd);
int step_upload(struct step *s, int fd, uint64_t size, const uint8_t *digest, uint64_t patience_ms,
                struct buf *why);
int step_temporary_file(struct step *s, int *ret_fd); /* prints errors */
int step_file_digest(int fd, uint8_t ret[SHA256_BYTES], uint64_t *ret_size);
/* What is kept under a key. -E_NOT_FOUND: nothing. */
int step_cache_look(struct step *s, struct str key, uint64_t patience_ms,
                    uint8_t ret_digest[SHA256_BYTES], struct buf *why);
/* Into fd, which is empty; *ret_digest comes in as step_cache_look said it, and is that of what was
 * written. */
int step_cache_get(struct step *s, struct str key, int fd, uint64_t patience_ms,
                   uint8_t ret_digest[SHA256_BYTES], uint64_t *ret_size, struct buf *why);
/* Of a blob that was uploaded. */
int step_cache_set(struct step *s, struct str key, const uint8_t *digest, uint64_t size,
                   uint64_t patience_ms, struct buf *why);

#endif
