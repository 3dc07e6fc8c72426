/* The text of FOLDER/status; shim.h says what is in it. */
#ifndef DAVIT_SHIM_STATUS_H
#define DAVIT_SHIM_STATUS_H

#include "worker/shim/shim.h"

#define STATUS_BYTES_MAX ((size_t)4096)
void status_encode(const struct shim_status *s, struct buf *out); /* at most STATUS_BYTES_MAX */

#endif
