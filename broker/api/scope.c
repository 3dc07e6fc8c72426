#include "common/base.h"

#include "broker/api/scope.h"

#include "broker/api/server.h"
#include "broker/core/query.h"

int scope_limit(struct request *rq, uint64_t *ret)
{
    int r = request_query_u64(rq, "limit", SCOPE_LIMIT_DEFAULT, ret);
    if (r == 0 && (*ret == 0 || *ret > LIMIT_PAGE)) {
        r = request_fail(rq, -E_INVALID, "`limit` is 1 to %u", LIMIT_PAGE);
    }
    return r;
}

int scope_project(struct request *rq, struct tx *tx, const char *name,
                  const Pb__ProjectRecord **ret)
{
    int r = 0;
    *ret = project_by_name(tx, name);
    if (!*ret) {
        r = tx_ok(tx) ? request_fail(rq, -E_NOT_FOUND, "there is no project `%.255s`", name)
                      : tx_error(tx);
        tx_abort(tx);
    }
    return r;
}

int scope_open(struct request *rq, struct tx **ret_tx, const Pb__ProjectRecord **ret)
{
    const char *name = request_query(rq, "project");
    if (!name) {
        return request_fail(rq, -E_INVALID, "`project` is missing in the query");
    }
    int r = api_read(rq->api, ret_tx);
    return r < 0 ? r : scope_project(rq, *ret_tx, name, ret);
}
