/* Talking to a broker: where it is, with which token, one call at a time. Threads: one client a
 * thread; client_open and the calls say what went wrong on stderr themselves. */
#ifndef DAVIT_CLI_CLIENT_H
#define DAVIT_CLI_CLIENT_H

#include "cli/cli.h"

struct client {
    char *url;   /* http://127.0.0.1:7080, no slash at the end */
    char *token; /* "" : none */
};

/* A broker at https:// must have a certificate of the authority in --ca-file, DAVIT_CA_FILE, or
 * "ca_file" of the configuration file; of the data folder's own where it runs there; else of one
 * that the machine trusts.
 *
 * Finds the broker: --url and DAVIT_URL with --token-file or DAVIT_TOKEN; else the configuration
 * file (~/.config/davit/config.json: {"url", "token"}); else the data folder of a local broker,
 * with that folder's admin.token unless --token-file or DAVIT_TOKEN is given. */
int client_open(struct cli *c, struct client *ret);
/* The broker of one data folder: endpoints.json and admin.token. -E_NOT_FOUND silently when it is
 * not (yet) running there. */
int client_open_data(const char *data, struct client *ret);
/* The token that --token-file or DAVIT_TOKEN names takes the place of the folder's. On failure the
 * client is released. */
int client_take_token(struct cli *c, struct client *cl);
void client_release(struct client *cl);

/* The default data folder, heap: --data, DAVIT_DATA, $XDG_STATE_HOME/davit, ~/.local/state/davit.
 */
char *client_data_dir(const struct cli *c);
/* $XDG_CACHE_HOME/davit, ~/.cache/davit; heap. */
char *client_cache_dir(void);
/* ~/.config/davit/config.json; NULL: there is none that can be read. */
json_t *client_config(void);

/* One call; `body` may be NULL and is not consumed; `key` is an idempotency key or NULL. On success
 * *ret_json (may be NULL) holds the answer, the caller's. Errors are printed: the problem's detail,
 * the diagnostics of a pipeline file. */
int client_call(struct cli *c, const struct client *cl, const char *method, const char *path,
                const json_t *body, const char *key, json_t **ret_json);

/* A POST that is sent again while the broker cannot be reached or is busy: the key makes it one. */
int client_send(struct cli *c, const struct client *cl, const char *path, const json_t *body,
                const char *key, json_t **ret_json);

/* Waits before another try of a transfer, and says so; false: that was enough. For struct upload.
 */
bool client_wait(void *ctx, unsigned tries, const char *why);

/* A GET that may fail and says nothing then; *ret_json NULL. */
bool client_poll(const struct client *cl, const char *path, json_t **ret_json);
/* The URL of a path under /api/v1, heap. */
char *client_url(const struct client *cl, const char *path);

/* Prints what an answer with a bad status says; returns its error. */
int client_problem(struct cli *c, int status, struct str body);

/* A job by its id, or by its name in the newest pipeline (or in `pipeline`, if not 0). */
int client_find_job(struct cli *c, const struct client *cl, const char *job, uint64_t pipeline,
                    uint64_t *ret_id);

#endif
