/* Inside of broker/pages. */
#ifndef DAVIT_PAGES_STATE_H
#define DAVIT_PAGES_STATE_H

#include "broker/pages/pages.h"

#define PAGES_HEX_CHARS (2 * SHA256_BYTES)
#define PAGES_BAD       ".bad"

struct pages {
    struct blobs *blobs;
    char *dir;
    int dir_fd;
};

/* "DIGEST", and "DIGEST.bad". */
struct pages_name {
    char folder[PAGES_HEX_CHARS + 1];
    char bad[PAGES_HEX_CHARS + sizeof(PAGES_BAD)];
};
struct pages_name pages_name(const uint8_t digest[SHA256_BYTES]);

#endif
