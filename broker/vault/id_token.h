/* The id tokens of a job: signed JWTs with the claims that GitLab's have, as far as Davit knows
 * them (docs/http-api.md lists them). Made when the job is sent to a worker: a job that is sent
 * again gets new ones. Threads: pure but for the read tx; one signature takes about a millisecond.
 */
#ifndef DAVIT_VAULT_ID_TOKEN_H
#define DAVIT_VAULT_ID_TOKEN_H

#include "broker/store/tx.h"
#include "broker/vault/signer.h"

/* Names of all claims that a token may hold, NULL at the end. */
extern const char *const id_token_claims[];

/* Turns spec->id_tokens into variables of the spec, behind all others; masked, and not expanded.
 * `issuer` is the address of the API. Audiences are expanded by the variables before. What is added
 * lives in tx_arena(tx). -E_LIMIT: an audience comes to more than LIMIT_ID_TOKEN_AUDIENCE bytes.
 * -E_INVALID: or is no UTF-8. -E_TOO_BIG: the spec with all tokens would have more than
 * LIMIT_JOB_SPEC bytes. The spec is then as it was. */
int id_tokens_issue(const struct signer *s, struct tx *tx, const char *issuer, uint64_t now_ms,
                    Pb__JobSpec *spec);

#endif
