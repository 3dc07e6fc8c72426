#include "common/base.h"

#include "pipeline/emit.h"
#include "pipeline/explain.h"
#include "tests/golden/merged.h"

static void add_diag(const struct diags *diags, struct buf *out)
{
    for (size_t i = 0; i < diags->count; i++) {
        if (diags->items[i].level == DIAG_ERROR) {
            diag_render(&diags->items[i], NULL, NULL, false, out);
        }
    }
}

static bool compile_alike(struct arena *arena, const struct pipeline_input *in,
                          const Pb__Plan *plan, struct buf *out)
{
    struct pipeline_input again = *in;
    struct buf want = BUF_INIT;
    struct buf got = BUF_INIT;
    struct diags diags;
    Pb__Plan *other = NULL;
    again.text = arena_str(arena, buf_str(out));
    again.explain = NULL;
    again.inputs = NULL;
    again.input_count = 0;
    if (str_starts(again.text, STR("include:")) || str_find(again.text, STR("\ninclude:")) >= 0) {
        buf_addz(out, "includes a file\n");
        return false;
    }
    diags_init(&diags);
    bool ok = pipeline_compile(arena, &again, &diags, &other) == 0;
    if (ok) {
        PB_PACK(plan, &want);
        PB_PACK(other, &got);
        ok = str_eq(buf_str(&want), buf_str(&got));
        buf_addz(out, ok ? "" : "compiles to another plan\n");
    } else {
        add_diag(&diags, out);
    }
    diags_release(&diags);
    buf_release(&want);
    buf_release(&got);
    return ok;
}

bool merged_compiles_alike(const struct pipeline_input *in, struct buf *out)
{
    struct pipeline_input asked = *in;
    struct explain explain = {0};
    struct arena arena;
    struct diags diags;
    Pb__Plan *plan = NULL;
    bool ok = true;
    arena_init(&arena, 0);
    diags_init(&diags);
    asked.explain = &explain;
    if (pipeline_compile(&arena, &asked, &diags, &plan) == 0) {
        check(explain.merged);
        emit_yaml(explain.merged, out);
        ok = compile_alike(&arena, in, plan, out);
    }
    diags_release(&diags);
    arena_release(&arena);
    return ok;
}
