/* A folder of a test's own below /tmp, made before it and removed after it; *state is its path. */
#ifndef DAVIT_TEST_FOLDER_H
#define DAVIT_TEST_FOLDER_H

#include "common/os.h"

int folder_set_up(void **state);
int folder_tear_down(void **state);

/* PATH/NAME; lives until the next call but seven. */
const char *in(const char *path, const char *name);
void file_write(const char *path, const char *text);
void assert_file(const char *path, const char *text);

#endif
