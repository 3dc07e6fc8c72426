#include "common/base.h"

#include "worker/step/git_view.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"

#define WORDS_MAX  16u
#define HEAD_MAX   ((size_t)4 * KIB)
#define SHA256_HEX 64u

static int put(struct step *s, const char *view, const char *name, struct str text)
{
    return os_put_file(arena_printf(&s->arena, "%s/%s", view, name), text.p, text.n, 0600);
}

/* The names of the objects are longer in a newer kind of repository, which its configuration says.
 */
static const char *config_of(const struct step *s)
{
    const Pb__Source *source = s->spec->source;
    bool git = source != NULL && source->from_case == PB__SOURCE__FROM_GIT;
    return git && source->git->sha.len == SHA256_HEX
               ? "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectFormat = sha256\n"
               : "[core]\n\trepositoryformatversion = 0\n";
}

/* git takes no link for HEAD. */
static int make_view(struct step *s, const char *view)
{
    static const char *const shared[] = {"index", "objects", "packed-refs", "refs", "shallow"};
    struct buf head = BUF_INIT;
    int r = step_read_project_file(s, ".git/HEAD", HEAD_MAX, &head);
    r = r < 0 ? r : os_remove_tree(view);
    r = r < 0 ? r : os_mkdir_p(view, 0700);
    r = r < 0 ? r : put(s, view, "HEAD", buf_str(&head));
    r = r < 0 ? r : put(s, view, "config", str_from(config_of(s)));
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(shared); i++) {
        const char *target = arena_printf(&s->arena, "%s/.git/%s", s->project_dir, shared[i]);
        const char *path = arena_printf(&s->arena, "%s/%s", view, shared[i]);
        r = symlink(target, path) < 0 ? err_from_errno(errno) : 0;
    }
    buf_release(&head);
    return r;
}

int git_view_run(struct step *s, const char *const *words, size_t limit, struct buf *out)
{
    const char *view = arena_printf(&s->arena, "%s/view.git", s->folder);
    const char *argv[WORDS_MAX + 4] = {"git", arena_printf(&s->arena, "--git-dir=%s", view),
                                       "--work-tree=."};
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    struct stat st;
    size_t n = 3;
    int status;
    if (lstat(".git", &st) < 0 || !S_ISDIR(st.st_mode)) {
        return -E_NOT_FOUND;
    }
    for (size_t i = 0; words[i] != NULL; i++) {
        check(i < WORDS_MAX);
        argv[n++] = words[i];
    }
    argv[n] = NULL;
    int r = make_view(s, view);
    r = r < 0 ? r : os_run(&spawn, limit, out, &status);
    return r == 0 && status != 0 ? -E_FAILED : r;
}
