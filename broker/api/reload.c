/* POST /reload: the configuration is read anew; what is another now, and what waits for a restart.
 */
#include "common/base.h"

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/server.h"

static json_t *lines(const struct buf *text)
{
    json_t *list = json_array();
    struct str rest = buf_str(text);
    struct str line;
    while (str_split(&rest, '\n', &line)) {
        if (line.n > 0) {
            json_array_append_new(list, json_stringn(line.p, line.n));
        }
    }
    return list;
}

static int reload_work(struct request *rq)
{
    const struct api_config *c = &rq->api->config;
    struct buf changed = BUF_INIT;
    struct buf restart = BUF_INIT;
    struct buf why = BUF_INIT;
    int r = c->reload ? c->reload(c->reload_ctx, &changed, &restart, &why) : -E_UNSUPPORTED;
    if (r == 0) {
        rq->extra = json_pack("{s:o, s:o}", "changed", lines(&changed), "restart", lines(&restart));
    } else {
        (void)request_fail(rq, r, STR_FMT, STR_ARG(str_trim(buf_str(&why))));
    }
    buf_release(&changed);
    buf_release(&restart);
    buf_release(&why);
    return r;
}

static int reload_done(struct request *rq)
{
    json_t *answer = rq->extra;
    if (rq->result < 0) {
        return rq->result;
    }
    rq->extra = NULL;
    return answer_json(rq, MHD_HTTP_OK, answer);
}

int post_reload(struct request *rq)
{
    json_t *body;
    int r = body_parse(rq, true, &body);
    if (r < 0) {
        return r;
    }
    r = body_fields(rq, body, "", "");
    json_decref(body);
    return r < 0 ? r : request_work(rq, reload_work, reload_done);
}
