#include "common/base.h"

#include "broker/rollout/inside.h"

void judge_fold(struct decision *d)
{
    (void)d;
}

void judge_find(const struct decision *d, struct findings *ret)
{
    (void)d;
    *ret = (struct findings){.all_good = true};
}
