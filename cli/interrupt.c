#include "common/base.h"

#include <signal.h>

#include "cli/interrupt.h"

static volatile sig_atomic_t interrupts;

static void on_signal(int signal)
{
    interrupts++;
}

void interrupt_catch(void)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
}

int interrupt_count(void)
{
    return (int)interrupts;
}
