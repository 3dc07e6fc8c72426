/* What davitd was told: defaults, over them its configuration file, over that its command line.
 *
 * The file is YAML: one mapping with the options of options.def, `include_project` as a mapping
 * from names to URLs, and what it declares: `pools` and `projects`, each a mapping from names to
 * what PUT /pools/NAME and PUT /projects/NAME take. Unknown and repeated keys are errors, so that a
 * typing mistake never opens a pool. Ownership: all texts are in the options' own arena. Threads:
 * read only once loaded. */
#ifndef DAVIT_CONFIG_OPTIONS_H
#define DAVIT_CONFIG_OPTIONS_H

#include "common/arena.h"
#include "common/diag.h"
#include "common/log.h"
#include "pipeline/fetch/fetch.h"
#include "proto/pb.h"

enum option_id {
#define OPTION(KIND, name, argument, field, change, help) OPTION_##field,
#include "broker/config/options.def"
#undef OPTION
    OPTION_COUNT
};

enum option_change { OPTION_RELOAD, OPTION_RESTART };

struct option_info {
    const char *name;
    const char *argument; /* NULL: a flag */
    const char *help;
    enum option_change change;
};
const struct option_info *option_info(enum option_id o);
const char *option_expected(enum option_id o); /* of its value, for people */

struct fetch_projects {
    struct fetch_project *items;
    size_t count;
};

/* That the broker knows itself: what it is told are LIMIT_CERT_NAMES less. */
#define OPTIONS_OWN_NAMES 7u

struct options_names {
    const char **items;
    size_t count;
};

struct options {
    struct arena arena;
    const char *data;      /* the folder: store/, journal/, logs/, blobs/, tokens, endpoints.json */
    const char *fleet_url; /* tcp://ADDRESS:PORT or tls://ADDRESS:PORT */
    const char *http;      /* ADDRESS:PORT or https://ADDRESS:PORT */
    const char *tls_cert;  /* of the API; NULL: the authority's own */
    const char *tls_key;
    struct options_names names; /* by which others reach the broker */
    uint64_t worker_life_ms;    /* of certificates */
    uint64_t server_life_ms;
    bool plain_anywhere; /* beyond loopback without TLS, too */
    uint32_t heartbeat_ms;
    uint32_t lease_ms;   /* at least twice the heartbeat */
    uint32_t relaxed_ms; /* what is acknowledged may wait so long for the disk; 0: not at all */
    uint64_t keep_pipelines_ms; /* after their end; 0: for ever */
    bool fetch_includes;        /* files that a submit does not bring along */
    bool fetch_private;         /* from private addresses, too */
    struct fetch_projects projects;
    const char *templates;  /* a folder; NULL: what is installed */
    const char *master_key; /* its source (vault/keyring.h); NULL: DATA/master.key */
    const char *s3;         /* blob/s3.h; NULL: none */
    const char *s3_region;
    const char *s3_key;
    uint32_t s3_keep;            /* GiB */
    const char *trusted_proxies; /* addresses, with commas between; NULL: none */
    uint32_t rate;               /* requests a second of one token; 0: any number */
    enum log_level log_level;
    Pb__Configure *declared;        /* empty without a file */
    const char *said[OPTION_COUNT]; /* as it was written last; NULL: not at all */
};

void options_init(struct options *o); /* the defaults */
void options_release(struct options *o);

/* Sets one from its text ("true" for a flag). False: that is not what is expected. */
bool options_set(struct options *o, enum option_id which, const char *text);

/* Reads a file over what is there. -E_INVALID with what is wrong in `diags`. `file` is its name for
 * people. */
int options_read(struct options *o, const char *file, struct str text, struct diags *diags);

/* Whence the options come, to be asked again. */
struct options_flag {
    enum option_id which;
    const char *text;
};
struct options_source {
    const char *file;           /* NULL: there is none */
    struct options_flag *flags; /* of the command line, in its order; checked already */
    size_t flag_count;
};

/* All together. On failure `why` gets lines for people, each with its place, and there is nothing
 * to release. -E_INVALID, -E_USAGE (times that do not fit), or why the file cannot be read. */
int options_load(const struct options_source *source, struct options *ret, struct buf *why);

#endif
