/* Named ranges in a profile. NVTX is a header whose functions do nothing unless a profiler is attached; this
 * gives two of them names that Rust can link against. Built with the feature `nvtx` only. */

#include <nvtx3/nvToolsExt.h>

void fpc_nvtx_push(const char *name) { nvtxRangePushA(name); }

void fpc_nvtx_pop(void) { nvtxRangePop(); }
