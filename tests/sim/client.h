/* Inside of the simulated clients: what they do (client.c) and how they say it (client_say.c). */
#ifndef DAVIT_SIM_CLIENT_H
#define DAVIT_SIM_CLIENT_H

#include "tests/sim/sim.h"

void client_say_hello(struct client *c);
void client_say_beat(struct client *c);
void client_say_bye(struct client *c);
void client_say_list(struct client *c, const struct ask *ask, struct arena *a);
void client_say_cancel(struct client *c, const struct ask *ask);
void client_say_query(struct client *c, const struct ask *ask);

#endif
