/* Who may approve a step of a rollout, or its gate: a role of people, where whoever may more counts
 * too, or the holder of one token. Pure. */
#ifndef DAVIT_APPROVER_H
#define DAVIT_APPROVER_H

#include "common/str.h"

#define APPROVER_HINT "developer, user, maintainer, admin, or token:NAME"

bool approver_ok(struct str approver); /* somebody who could be */
/* Of a role, the higher the more it may; 0: it is none of people. */
int approver_rank(struct str role);
/* Whether the token of that name and role is one of them. */
bool approver_is(struct str approver, const char *token, const char *role);

#endif
