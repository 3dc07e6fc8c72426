/* Small services of davit-shim for containers whose image has no program that could do them. Each
 * is a command of its own:
 *
 *   davit-shim --wait MS ADDRESS:PORT...   until each accepts a TCP connection, MS ms at most;
 * numeric addresses, [::1]:80 for IPv6. Says which did not; exit 0 when all did, 1 when not
 *   davit-shim --own LIKE DIR...           gives all below each DIR, and DIR, to the owner of LIKE.
 *                                          Follows no links and crosses no mounts; exit 1 when some
 *                                          could not be given */
#ifndef DAVIT_SHIM_HELPER_H
#define DAVIT_SHIM_HELPER_H

#include "common/base.h"

/* argv without the program's name. False: no such command. */
bool helper_run(int argc, char **argv, int *ret_exit_code);

#endif
