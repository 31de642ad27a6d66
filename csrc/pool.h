// Runs a loop over chunks on several threads. Safe to call from several threads at once and after a fork.
#pragma once
#include <cstdint>

namespace softdraw {

// Columns of a row that are worth waking threads for, once for each step over the row.
constexpr int64_t kWakeRow = 1 << 17;

using Chunk = void (*)(void* context, int64_t index);

// Calls chunk(context, i) for i = 0 .. count - 1 on at most `threads` threads, the caller's included. `wake` says whether
// the work is worth waking threads for; those that are awake take their part in any case.
void for_each_chunk(int64_t count, int64_t threads, bool wake, Chunk chunk, void* context);

}  // namespace softdraw
