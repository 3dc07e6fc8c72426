/* The programs that davit-worker runs under the shim around a job's script: `davit-worker step NAME
 * FOLDER`. Their working folder is the project's; what they print is part of the job's log; their
 * exit codes are those of worker/exec/exec.h. The broker may be away: they try until the shim ends
 * them. One thread. */
#ifndef DAVIT_STEP_H
#define DAVIT_STEP_H

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
int step_source(struct step *s);
int step_artifacts_in(struct step *s);
int step_artifacts_out(struct step *s);

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

/* git.c: the commit in the working tree. */
int step_source_git(struct step *s, const Pb__GitSource *git);
/* Removes all that is in the working folder, not the folder; never follows links. */
int step_empty_folder(struct step *s);

/* transfer.c: blobs of the broker. They retry and print; 0 or a negative err after an error line.
 */
/* Into a temporary file of the job's folder, checked against the digest, read from its start. */
int step_download(struct step *s, ProtobufCBinaryData digest, uint64_t size, int *ret_fd);
int step_upload(struct step *s, int fd, uint64_t size, const uint8_t *digest);
int step_temporary_file(struct step *s, int *ret_fd);

#endif
