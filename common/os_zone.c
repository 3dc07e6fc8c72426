#include "common/base.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "common/limits.h"
#include "common/os.h"
#include "common/tz.h"

int os_read_zone(struct str name, struct buf *out)
{
    const char *folder = getenv("TZDIR");
    if (!tz_name_valid(name)) {
        return -E_INVALID;
    }
    char *zone = str_dup(name);
    char *path = os_path_join(folder && folder[0] == '/' ? folder : "/usr/share/zoneinfo", zone);
    struct stat st;
    int r = stat(path, &st) == 0 && S_ISREG(st.st_mode) ? os_read_file(path, LIMIT_TZ_BYTES, out)
                                                        : -E_NOT_FOUND;
    free(zone);
    free(path);
    return r;
}
