#include "common/base.h"

#include "worker/driver/notice.h"

json_t *notice_json(const Pb__NotifyArgs *a)
{
    return json_pack("{s:s, s:I, s:I, s:s, s:s, s:s, s:I}", "service", a->service, "rollout",
                     (json_int_t)a->rollout_id, "revision", (json_int_t)a->revision, "version",
                     a->version, "state", a->state, "text", a->text, "time_ms",
                     (json_int_t)a->time_ms);
}
