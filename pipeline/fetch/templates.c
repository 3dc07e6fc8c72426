/* Where the templates of this installation are. */
#include "common/base.h"

#include <stdlib.h>

#include "common/os.h"
#include "pipeline/fetch/fetch.h"

char *fetch_find_templates(void)
{
    const char *own = getenv("DAVIT_TEMPLATES");
    if (own != NULL) {
        return xstrdup(own);
    }
    /* Beside the program, wherever the whole was put; else where it was built for. */
    char *dir = os_program_dir();
    char *path = os_path_join(dir, "../share/davit/templates");
    free(dir);
    if (!os_exists(path)) {
        free(path);
        path = xstrdup(DAVIT_TEMPLATES_DIR);
    }
    if (!os_exists(path)) {
        free(path);
        path = NULL;
    }
    return path;
}
