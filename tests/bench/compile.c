/* Times the compiler on a folder: bench_compile DIR FILE ROUNDS. Prints one line of JSON with the
 * samples in microseconds, the peak memory of the whole process, and what the plan holds. The files
 * are read before the first round. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/os.h"
#include "tests/golden/tree_input.h"

/* Not of getrusage: that one remembers what the parent had before exec. */
static long peak_kib(void)
{
    struct buf status = BUF_INIT;
    check(os_read_file("/proc/self/status", 64u * 1024, &status) == 0);
    const char *line = strstr(buf_cstr(&status), "VmHWM:");
    long kib = line ? strtol(line + strlen("VmHWM:"), NULL, 10) : 0;
    buf_release(&status);
    return kib;
}

struct samples {
    json_t *wall_us;
    json_t *cpu_us; /* of the processor: what the rest of the machine does is not in it */
};

static uint64_t cpu_us(void)
{
    struct timespec ts;
    check(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts) == 0);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* One compilation; the samples after the first, which also reads the files. */
static json_t *run(struct tree *tree, const char *file, struct samples *samples)
{
    struct case_input *c = xmalloc(sizeof(*c));
    struct diags diags;
    Pb__Plan *plan = NULL;
    tree_prepare(tree, file, NULL, c);
    diags_init(&diags);
    uint64_t before_cpu_us = cpu_us();
    uint64_t before_us = os_monotonic_us();
    int r = pipeline_compile(&c->arena, &c->in, &diags, &plan);
    uint64_t took_us = os_monotonic_us() - before_us;
    uint64_t used_us = cpu_us() - before_cpu_us;
    if (samples) {
        json_array_append_new(samples->wall_us, json_integer((json_int_t)took_us));
        json_array_append_new(samples->cpu_us, json_integer((json_int_t)used_us));
    }
    json_t *result = json_pack("{s:i, s:i}", "jobs", r == 0 ? (int)plan->n_jobs : 0, "errors",
                               (int)diags.errors);
    diags_release(&diags);
    case_input_release(c);
    free(c);
    return result;
}

int main(int argc, char **argv)
{
    struct tree tree;
    if (argc != 4) {
        fprintf(stderr, "usage: bench_compile DIR FILE ROUNDS\n");
        return 64;
    }
    long rounds = strtol(argv[3], NULL, 10);
    tree_open(&tree, argv[1]);
    struct samples samples = {.wall_us = json_array(), .cpu_us = json_array()};
    json_t *result = run(&tree, argv[2], NULL);
    for (long i = 0; i < rounds; i++) {
        json_decref(run(&tree, argv[2], &samples));
    }
    json_object_set_new(result, "samples_us", samples.wall_us);
    json_object_set_new(result, "cpu_us", samples.cpu_us);
    json_object_set_new(result, "peak_kib", json_integer(peak_kib()));
    json_dumpf(result, stdout, 0);
    putchar('\n');
    json_decref(result);
    tree_release(&tree);
    return 0;
}
