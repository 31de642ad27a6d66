// The threads of the OpenMP runtime that torch has loaded. For some milliseconds after an operation of torch's own they
// do not sleep: they spin, and occupy the CPUs that other threads need. Work is then given to them.
// Nothing here is compiled for OpenMP or linked with it: two runtimes in one process disturb each other.
#pragma once
#include <cstdint>

namespace softdraw {

using Function = void (*)(void* data);
// GOMP_parallel, which LLVM's and Intel's runtimes have too: every thread of the caller's team calls function(data).
using Team = void (*)(Function function, void* data, unsigned threads, unsigned flags);

// Applies to the calling thread only, because each thread has a team of its own, and a team that torch never uses would
// waste threads. Null: there is none. A forked child forgets it, because the runtime would wait for threads that the
// child does not have.
void use_openmp(Team team);

// Runs function(data) on a team of `threads`, the caller among them, if the others are awake; says whether it did.
// `threads` is torch's own number: for another one the runtime would end threads, or start some.
bool run_on_openmp(Function function, void* data, int64_t threads);

}  // namespace softdraw
