#include "common/base.h"

#include "tests/sim/sim.h"

/* splitmix64: a step and a scramble. */
uint64_t rnd(void)
{
    uint64_t z = (sim->random += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t below(uint64_t n)
{
    return rnd() % n;
}

bool one_in(uint32_t n)
{
    return n != 0 && below(n) == 0;
}

bool strikes(uint32_t n)
{
    return sim->faults && one_in(n);
}

uint64_t between(uint64_t a, uint64_t b)
{
    return a + below(b - a + 1);
}

/* Off in about half of all worlds: what never happens elsewhere finds other mistakes. */
static uint32_t maybe(uint32_t often, uint32_t seldom)
{
    return one_in(2) ? 0 : (uint32_t)between(often, seldom);
}

void swarm_draw(struct swarm *s)
{
    *s = (struct swarm){
        .cut = maybe(20, 300),
        .half_open = maybe(1, 3),
        .slow = maybe(10, 200),
        .kill = maybe(40, 600),
        .kill_in_turn = maybe(30, 300),
        .power = maybe(1, 3),
        .segment_kib = one_in(5) ? 0 : 4 * (uint32_t)between(2, 40),
        .map_kib = one_in(6) ? (uint32_t)between(500, 1500) : 0,
        .eio = one_in(4) ? maybe(50, 300) : 0,
        .full = one_in(3) ? maybe(20, 200) : 0,
        .broker_stall = maybe(50, 500),
        .clock_jump = maybe(50, 500),
        .crash = maybe(20, 200),
        .vanish = maybe(30, 300),
        .worker_stall = maybe(20, 200),
        .mute = maybe(30, 300),
        .drain = maybe(30, 200),
        .disk_low = maybe(30, 200),
        .bye = maybe(30, 200),
        .stale = maybe(5, 40),
        .log_busy = maybe(5, 50),
        .fail = maybe(2, 10),
        .shutdown = maybe(5, 30),
        .user_ms = (uint32_t)between(200, 6000),
        .audit = (uint32_t)between(100, 600),
        .pipelines = (uint32_t)between(3, 14),
        .groups = maybe(2, 6),
        .manual = maybe(3, 10),
        .delayed = maybe(4, 12),
        .triggers = maybe(2, 8),
        .environments = maybe(2, 6),
        .cpus = maybe(2, 4),
        .tags = maybe(2, 4),
        .wait_policy = maybe(2, 6),
        .long_jobs = maybe(2, 10),
        .logs = maybe(1, 3),
        .relaxed_ms = one_in(4) ? (uint32_t)between(5, 1500) : 0,
        .keep_s = maybe(20, 200),
        .leap = maybe(2, 10),
        .clients = one_in(3) ? 0 : (uint32_t)between(1, SIM_CLIENTS),
        .lists = (uint32_t)between(1, 20),
        .pools = maybe(2, 4),
        .settings = maybe(3, 15),
        .rank = one_in(3) ? (uint32_t)between(0, 1) : (uint32_t)between(2, 100),
        .skew = one_in(2) ? 0 : (uint32_t)between(5, 30),
    };
    if (s->relaxed_ms != 0 && one_in(2)) { /* what that is about is seldom otherwise */
        s->kill = (uint32_t)between(10, 80);
        s->power = 1;
    }
}
