#include "common/base.h"

#include "worker/step/dotenv.h"

#include "common/err.h"
#include "common/limits.h"

static const char *parse_line(struct str line, struct vars *vars)
{
    ptrdiff_t equals = str_chr(line, '=');
    if (equals < 0) {
        return "this is not NAME=VALUE";
    }
    struct var var = {
        .name = str_trim(str_sub(line, 0, (size_t)equals)),
        .value = str_trim(str_sub(line, (size_t)equals + 1, line.n)),
        .raw = true,
    };
    if (!var_name_valid(var.name)) {
        return "before the `=` stands no name of a variable: letters, digits and _, no digit first";
    }
    if (var.name.n > LIMIT_NAME) {
        return "the name has more than 255 bytes";
    }
    if (vars->count >= LIMIT_DOTENV_VARIABLES && vars_get(vars, var.name) == NULL) {
        return "these are too many variables";
    }
    vars_set(vars, var);
    return NULL;
}

int dotenv_parse(struct str text, struct vars *vars, struct dotenv_mistake *ret)
{
    struct dotenv_mistake at = {.line = 0};
    struct str line;
    if (str_starts(text, STR("\xef\xbb\xbf"))) {
        text = str_sub(text, 3, text.n);
    }
    while (at.reason == NULL && str_split(&text, '\n', &line)) {
        at.line++;
        struct str tidy = str_trim(line);
        if (!str_is_utf8(tidy, NULL)) {
            at.reason = "this is not UTF-8 text";
        } else if (tidy.n > 0 && tidy.p[0] != '#') {
            at.reason = parse_line(tidy, vars);
        }
    }
    if (at.reason != NULL) {
        *ret = at;
        return -E_INVALID;
    }
    return 0;
}
