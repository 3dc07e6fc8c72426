/* sim [--seeds A..B] [--fresh N] [--steps N] [--jobs N] [--trace] [--paranoid]
 *
 * Plays the seeds, in so many processes beside each other. A seed that breaks a rule is named with
 * what broke, and played again with the end of its trace; the others go on. Exit code 1 then. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/os.h"
#include "common/str.h"
#include "tests/sim/run.h"

#define JOBS_MAX   16u
#define FAILED_MAX 20u
#define TRACE_TAIL 60u

struct options {
    struct run_options run;
    uint64_t first, last;
    uint64_t jobs;
};

/* What a player tells the parent, in shared memory. */
struct player {
    uint64_t seed; /* at which it is */
    bool done;
    struct run_result sum;
};

NORETURN static void usage(void)
{
    fprintf(stderr, "usage: sim [--seeds A..B] [--fresh N] [--steps N] [--jobs N] [--trace] "
                    "[--paranoid]\n");
    exit(2);
}

static uint64_t number(const char *text)
{
    uint64_t n;

    if (text == NULL || str_to_u64(str_from(text), &n) < 0) {
        usage();
    }
    return n;
}

static void read_seeds(struct options *o, const char *text)
{
    struct str rest = str_from(text != NULL ? text : "");
    const ptrdiff_t dots = str_find(rest, STR(".."));

    if (dots < 0) {
        o->first = o->last = number(text);
    } else if (str_to_u64(str_sub(rest, 0, (size_t)dots), &o->first) < 0 ||
               str_to_u64(str_sub(rest, (size_t)dots + 2, rest.n), &o->last) < 0 ||
               o->last < o->first) {
        usage();
    }
}

static void read_options(struct options *o, int argc, char **argv)
{
    *o = (struct options){.first = 1, .last = 100, .jobs = 1};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--seeds") == 0) {
            read_seeds(o, value);
            i++;
        } else if (strcmp(argv[i], "--fresh") == 0) {
            o->first = os_realtime_ms() * 1000;
            o->last = o->first + number(value) - 1;
            i++;
        } else if (strcmp(argv[i], "--steps") == 0) {
            o->run.steps = number(value);
            i++;
        } else if (strcmp(argv[i], "--jobs") == 0) {
            o->jobs = MIN(number(value), JOBS_MAX);
            i++;
        } else if (strcmp(argv[i], "--trace") == 0) {
            o->run.tracing = true;
        } else if (strcmp(argv[i], "--paranoid") == 0) {
            o->run.paranoid = true;
        } else {
            usage();
        }
    }
}

/* Every jobs-th seed, from this one on. */
static void play(const struct options *o, struct player *p, uint64_t from)
{
    for (uint64_t seed = from; seed <= o->last; seed += o->jobs) {
        p->seed = seed;
        run_seed(seed, &o->run, &p->sum);
        p->sum.seeds++;
    }
    p->done = true;
}

static pid_t spawn(const struct options *o, struct player *p, uint64_t from)
{
    fflush(stdout);
    const pid_t pid = fork();

    check(pid >= 0);
    if (pid == 0) {
        play(o, p, from);
        fflush(stdout);
        _exit(0);
    }
    return pid;
}

/* Once more, for the trace. */
static void show(const struct options *o, uint64_t seed)
{
    struct options again = *o;
    struct player p = {.seed = seed};
    int fds[2];

    again.run.tracing = true;
    again.first = again.last = seed;
    check(pipe(fds) == 0);
    fflush(stdout);
    const pid_t pid = fork();
    check(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        close(fds[1]);
        setvbuf(stdout, NULL, _IOLBF, 0);
        play(&again, &p, seed);
        _exit(0);
    }
    close(fds[1]);
    FILE *in = fdopen(fds[0], "r");
    static char lines[TRACE_TAIL][256];
    uint64_t n = 0;
    while (in != NULL && fgets(lines[n % TRACE_TAIL], sizeof(lines[0]), in) != NULL) {
        n++;
    }
    fclose(in);
    waitpid(pid, NULL, 0);
    for (uint64_t i = n > TRACE_TAIL ? n - TRACE_TAIL : 0; i < n; i++) {
        fputs(lines[i % TRACE_TAIL], stdout);
    }
}

static void add(struct run_result *sum, const struct run_result *r)
{
    sum->seeds += r->seeds;
    sum->steps += r->steps;
    sum->commands += r->commands;
    sum->refused += r->refused;
    sum->starts += r->starts;
    sum->audits += r->audits;
    sum->losses += r->losses;
    sum->shares.count += r->shares.count;
    sum->shares.sum += r->shares.sum;
    sum->shares.worst = MAX(sum->shares.worst, r->shares.worst);
    sum->hash ^= r->hash;
}

static uint64_t play_all(const struct options *o, struct player *players, struct run_result *sum)
{
    pid_t pids[JOBS_MAX];
    uint64_t failed = 0, live = 0;
    int status;

    for (uint64_t i = 0; i < o->jobs; i++, live++) {
        pids[i] = spawn(o, &players[i], o->first + i);
    }
    while (live > 0) {
        const pid_t pid = wait(&status);
        uint64_t i = 0;
        while (i < o->jobs && pids[i] != pid) {
            i++;
        }
        check(i < o->jobs);
        struct player *p = &players[i];
        if (!p->done) {
            printf("FAILED: seed %" PRIu64 "\n", p->seed);
            failed++;
            if (!o->run.tracing) {
                show(o, p->seed);
            }
        }
        if (!p->done && failed < FAILED_MAX && p->seed + o->jobs <= o->last) {
            pids[i] = spawn(o, p, p->seed + o->jobs);
        } else {
            add(sum, &p->sum);
            live--;
        }
    }
    return failed;
}

int main(int argc, char **argv)
{
    struct options o;
    struct run_result sum = {0};

    read_options(&o, argc, argv);
    if (o.run.tracing) {
        setvbuf(stdout, NULL, _IOLBF, 0); /* it may end without a word */
    }
    struct player *players = mmap(NULL, JOBS_MAX * sizeof(*players), PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(players != MAP_FAILED);
    const uint64_t start_us = os_monotonic_us();
    const uint64_t failed = play_all(&o, players, &sum);
    const uint64_t took_ms = (os_monotonic_us() - start_us) / 1000 + 1;
    if (sum.shares.count > 0) {
        printf("shares: %" PRIu64
               " slots for which projects stood beside each other; above its share"
               " by %" PRIu64 " thousandths of a job, at most %" PRIu64 " (below 1000)\n",
               sum.shares.count, sum.shares.sum / sum.shares.count, sum.shares.worst);
    }
    printf("seeds %" PRIu64 "..%" PRIu64 ": %" PRIu64 " good, %" PRIu64 " bad; %" PRIu64
           " steps, %" PRIu64 " commands, %" PRIu64 " refused, %" PRIu64 " starts, %" PRIu64
           " audits, %" PRIu64 " losses; %" PRIu64 " seeds/s; hash %016" PRIx64 "\n",
           o.first, o.last, sum.seeds, failed, sum.steps, sum.commands, sum.refused, sum.starts,
           sum.audits, sum.losses, sum.seeds * 1000 / took_ms, sum.hash);
    munmap(players, JOBS_MAX * sizeof(*players));
    return failed > 0;
}
