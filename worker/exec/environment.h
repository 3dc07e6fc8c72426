/* A job's variables: what the worker knows, then the spec's, expanded; and the environment that is
 * made of them. */
#ifndef DAVIT_EXEC_ENVIRONMENT_H
#define DAVIT_EXEC_ENVIRONMENT_H

#include "common/expand.h"
#include "worker/exec/exec.h"

/* `isolated`: from the machine, in what the variables say of it. Fills `vars` (initialised by the
 * caller). File variables are written below FOLDER/vars and hold their path. Failure: what no
 * process can be given, said in `why`. */
int environment_variables(const struct exec_context *cx, const Pb__JobSpec *spec,
                          const char *project_dir, bool isolated, struct vars *vars,
                          struct buf *why);
/* Adds the environment to the conf's present step: of the worker's own only what every program
 * needs, then the variables (NULL: none). */
void environment_to_conf(const struct vars *vars, struct shim_conf *conf);
/* What the job must not print: its masked variables and its token, in all forms. -E_LIMIT. */
int environment_mask(const struct vars *vars, const Pb__JobSpec *spec, struct shim_conf *conf,
                     struct buf *why);
/* Of the variables those that tell git how to speak to a server, and can do no more. */
void environment_git_to_conf(const struct vars *vars, struct shim_conf *conf);
/* The variables alone: for a step inside of a container, whose image says the rest. */
void environment_variables_to_conf(const struct vars *vars, struct shim_conf *conf);
/* The same as words OPTION, NAME, VALUE of a program, each ended by a NUL byte; returns how many.
 */
size_t environment_to_words(const struct vars *vars, const char *option, struct buf *out);
void environment_remove_files(const char *job_dir);

#endif
