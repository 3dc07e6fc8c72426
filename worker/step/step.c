#include "common/base.h"

#include "worker/step/step.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/http.h"
#include "common/os.h"
#include "worker/exec/exec.h"
#include "worker/exec/prepared.h"

static const struct {
    const char *name;
    int (*run)(struct step *s);
    bool bare; /* gets by with the folder alone */
} programs[] = {
    {"container", step_container},
    {"pre_get_sources", step_pre_get_sources},
    {"source", step_source},
    {"cache_in", step_cache_in},
    {"artifacts_in", step_artifacts_in},
    {"script", step_script},
    {"after_script", step_after_script},
    {"container_end", step_container_end, .bare = true},
    {"cache_out", step_cache_out},
    {"artifacts_out", step_artifacts_out},
    {"result", step_result},
    {"coverage", step_coverage},
};

PRINTF_LIKE(3, 0)
static void say(const char *before, const char *after, const char *fmt, va_list ap)
{
    struct buf line = BUF_INIT;
    buf_addz(&line, before);
    buf_vaddf(&line, fmt, ap);
    buf_addz(&line, after);
    /* Past stdio, so that the lines of git come where they belong. */
    (void)os_write_all(STDOUT_FILENO, line.p, line.n);
    buf_release(&line);
}

void step_say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("", "\n", fmt, ap);
    va_end(ap);
}

void step_warn(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("\033[33;1mWARNING: ", "\033[0;m\n", fmt, ap);
    va_end(ap);
}

void step_error(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say("\033[31;1mERROR: ", "\033[0;m\n", fmt, ap);
    va_end(ap);
}

struct str step_var(const struct step *s, const char *name, const char *usual)
{
    const struct var *var = vars_get(&s->vars, str_from(name));
    struct str value = var != NULL ? str_trim(var->value) : STR_NULL;
    return value.n > 0 ? value : str_from(usual);
}

bool step_var_is(const struct step *s, const char *name, const char *value)
{
    return str_eqz(step_var(s, name, ""), value);
}

char **step_var_words(struct step *s, const char *name, const char *usual, size_t *ret_count)
{
    struct str rest = step_var(s, name, usual);
    struct str word;
    size_t count = 0;
    char **words = arena_array(&s->arena, rest.n / 2 + 2, sizeof(*words));
    while (str_split(&rest, ' ', &word)) {
        word = str_trim(word);
        if (word.n > 0) {
            words[count++] = arena_strdup(&s->arena, word);
        }
    }
    words[count] = NULL;
    *ret_count = count;
    return words;
}

const char *step_size_text(struct step *s, uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1000 && unit + 1 < ARRAY_LEN(units)) {
        value /= 1000;
        unit++;
    }
    return arena_printf(&s->arena, "%.*f %s", unit > 0 && value < 10 ? 1 : 0, value, units[unit]);
}

bool step_is_wanted(Pb__ArtifactWhen when)
{
    const char *status = getenv("DAVIT_JOB_STATUS");
    bool success = status != NULL && strcmp(status, "success") == 0;
    bool canceled = status != NULL && strcmp(status, "canceled") == 0;
    switch (when) {
    case PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_SUCCESS:
        return success;
    case PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_FAILURE:
        return !success && !canceled;
    case PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS:
        return true;
    case _PB__ARTIFACT_WHEN_IS_INT_SIZE:
        break;
    }
    return success;
}

int step_open_project_file(const struct step *s, const char *path, int *ret_fd)
{
    struct stat st;
    size_t root = strlen(s->project_dir);
    char *real = os_absolute_path(path);
    if (real == NULL) {
        return -E_NOT_FOUND;
    }
    bool inside = strncmp(real, s->project_dir, root) == 0 && real[root] == '/';
    int fd = inside ? open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW) : -1;
    int r = !inside ? -E_INVALID : fd < 0 ? err_from_errno(errno) : 0;
    if (r == 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
        close(fd);
        r = -E_INVALID;
    }
    free(real);
    if (r == 0) {
        *ret_fd = fd;
    }
    return r;
}

int step_read_project_file(const struct step *s, const char *path, size_t limit, struct buf *out)
{
    int fd;
    int r = step_open_project_file(s, path, &fd);
    if (r < 0) {
        return r;
    }
    char *bytes = xmalloc(limit + 1);
    size_t n = 0;
    ssize_t got = 1;
    while (n <= limit && (got = read(fd, bytes + n, limit + 1 - n)) > 0) {
        n += (size_t)got;
    }
    r = got < 0 ? err_from_errno(errno) : n > limit ? -E_TOO_BIG : 0;
    if (r == 0) {
        buf_add(out, bytes, n);
    }
    free(bytes);
    close(fd);
    return r;
}

static void load_vars(struct step *s)
{
    vars_init(&s->vars, &s->arena);
    for (size_t i = 0; i < s->spec->n_variables; i++) {
        const Pb__Variable *v = s->spec->variables[i];
        vars_set(&s->vars, (struct var){.name = str_from(v->name),
                                        .value = pb_str(v->value),
                                        .raw = true,
                                        .file = v->file,
                                        .masked = v->masked});
    }
}

static int run(struct step *s, int (*program)(struct step *s))
{
    int r = prepared_read(s->folder, &s->arena, &s->spec);
    if (r < 0) {
        step_error("cannot read what to do from %s: %s", s->folder, err_text(r));
        return STEP_EXIT_SYSTEM;
    }
    s->project_dir = getcwd(NULL, 0);
    s->api_url = getenv("DAVIT_API_URL");
    if (s->api_url != NULL && getenv("DAVIT_CA_FILE") != NULL) {
        http_trust_broker(s->api_url, getenv("DAVIT_CA_FILE"));
    }
    if (s->project_dir == NULL || s->api_url == NULL) {
        step_error("this is run by davit-shim only");
        return STEP_EXIT_SYSTEM;
    }
    load_vars(s);
    return program(s);
}

int step_main(const char *name, const char *folder)
{
    struct step s = {.folder = folder};
    int code = STEP_EXIT_SYSTEM;
    bool known = false;
    arena_init(&s.arena, 0);
    http_global_init();
    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        if (strcmp(programs[i].name, name) == 0) {
            known = true;
            code = programs[i].bare ? programs[i].run(&s) : run(&s, programs[i].run);
        }
    }
    if (!known) {
        step_error("there is no step `%s`", name);
    }
    free(s.project_dir);
    arena_release(&s.arena);
    return code;
}
