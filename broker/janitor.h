/* Chores of the background, on a thread of their own: every hour the blobs, published
 * folders and logs that nobody needs any more go; the server's certificate is renewed in time.
 * Threads: new and free on main's. */
#ifndef DAVIT_JANITOR_H
#define DAVIT_JANITOR_H

#include "broker/blob/blob.h"
#include "broker/blob/logs.h"
#include "broker/pages/pages.h"
#include "broker/store/store.h"
#include "broker/turn.h"
#include "broker/vault/authority.h"
#include "broker/vault/vault.h"

struct janitor;
struct janitor *janitor_new(struct store *store, struct turn *turn, struct blobs *blobs,
                            struct pages *pages, struct logs *logs, struct vault *vault,
                            struct authority *authority);
void janitor_free(struct janitor *j); /* ends a sweep that runs; NULL is fine */

/* One sweep of blobs older than min_age_ms. Returns bytes freed. */
uint64_t janitor_sweep(struct janitor *j, uint64_t min_age_ms);
/* Removes published folders whose blob nobody refers to. Returns how many. */
uint64_t janitor_sweep_pages(struct janitor *j);
/* Brings stored variables under the newest master key; old ones that nothing needs any more go,
 * unless the newest is younger than that. */
void janitor_sweep_keys(struct janitor *j, uint64_t min_age_ms);
/* Removes logs that are older than that and whose jobs are gone. Returns bytes freed. */
uint64_t janitor_sweep_logs(struct janitor *j, uint64_t min_age_ms);

#endif
