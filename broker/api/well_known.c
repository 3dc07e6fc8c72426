/* What others need to check the id tokens of jobs: for everybody, without a token. */
#include "common/base.h"

#include "broker/api/answer.h"
#include "broker/api/handlers.h"
#include "broker/api/server.h"
#include "broker/vault/id_token.h"

int get_key_set(struct request *rq)
{
    struct buf text = BUF_INIT;
    signer_key_set(rq->api->config.signer, &text);
    return answer_text(rq, MHD_HTTP_OK, "application/json", &text);
}

static json_t *claims(void)
{
    json_t *list = json_array();
    for (const char *const *name = id_token_claims; *name; name++) {
        json_array_append_new(list, json_string(*name));
    }
    return list;
}

/* The fields that OpenID Connect Discovery 1.0 requires, as far as there is something to say. */
int get_openid_configuration(struct request *rq)
{
    const char *issuer = api_server_url(rq->api);
    return answer_json(rq, MHD_HTTP_OK,
                       json_pack("{s:s, s:o, s:[s], s:[s], s:[s], s:[s], s:o}", "issuer", issuer,
                                 "jwks_uri", json_sprintf("%s/.well-known/jwks.json", issuer),
                                 "response_types_supported", "id_token", "subject_types_supported",
                                 "public", "id_token_signing_alg_values_supported", "RS256",
                                 "scopes_supported", "openid", "claims_supported", claims()));
}
