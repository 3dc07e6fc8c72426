/* A job's lines as one shell script, with the meaning that gitlab-runner's shells give them: one
 * shell for all, each line shown in green before it runs, the first failure ends it. */
#ifndef DAVIT_EXEC_SCRIPT_H
#define DAVIT_EXEC_SCRIPT_H

#include "proto/pb.h"

struct script_style {
    bool bash;  /* else a POSIX sh */
    bool after; /* after_script: CI_JOB_STATUS is set from what the shim says */
    bool trace; /* CI_DEBUG_TRACE */
};

/* -E_INVALID: a line holds a NUL byte. */
int script_write(const ProtobufCBinaryData *lines, size_t count, struct script_style style,
                 struct buf *out);
/* Appends text as one word of the shell. */
void script_quote(struct str text, struct buf *out);

#endif
