// The exported functions: they pick the instruction set once and divide the rows among threads.
#include "call.h"
#include "openmp.h"
#include "pool.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace softdraw {

struct Variant {
  const char* name;
  const Operations* operations;
  bool supported;
};

#if SOFTDRAW_X86
extern const Operations x86_64_v2, x86_64_v3, x86_64_v4;
#else
extern const Operations baseline;
#endif

namespace {

// Elements worth another thread, at 1 to 3 nanoseconds each: a part for one that is awake, and a call for one that must be
// woken, which takes 20 to 150 microseconds.
constexpr int64_t kGrain = 1 << 13, kWake = 1 << 15;

// Best first; ends with one that has no name.
const Variant* variants() {
#if SOFTDRAW_X86
  __builtin_cpu_init();
  static const bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
  static const bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  static const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                         __builtin_cpu_supports("avx512vl");
  static const Variant all[] = {{"x86-64-v4", &x86_64_v4, v4},
                                {"x86-64-v3", &x86_64_v3, v3},
                                {"x86-64-v2", &x86_64_v2, v2},
                                {nullptr, nullptr, true}};
#else
  static const Variant all[] = {{"baseline", &baseline, true}, {nullptr, nullptr, true}};
#endif
  return all;
}

const Variant* best() {
  const Variant* v = variants();
  while (!v->supported) ++v;
  return v;
}

const Variant* chosen = best();

struct Range {
  const Call& call;
  const int64_t* layout;
  Operation operation;
  int64_t draws, grain;
};

void chunk(void* context, int64_t index) {
  const Range& range = *(const Range*)context;
  const int64_t first = index * range.grain, end = first + range.grain;
  range.operation(range.call, range.layout, first, end < range.draws ? end : range.draws);
}

// An output this large is fresh memory from the system every time, and the faults of its first touch cost more than the
// draw. Pages of 2 MB take a small part of them; only those that the output fills are asked for.
void ask_for_huge_pages(const Call& call) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = 1 << 21, large = 1 << 25;
  const int64_t size = call.storage == kFloat64 ? 8 : call.storage == kFloat32 ? 4 : 2;
  const uintptr_t start = ((uintptr_t)call.out + page - 1) / page * page;
  const uintptr_t end = ((uintptr_t)call.out + (uintptr_t)(call.rows * call.cols * size)) / page * page;
  if (end >= start + large - page) madvise((void*)start, end - start, MADV_HUGEPAGE);
#endif
}

void run(const Call* call, const int64_t* layout, Operation operation, bool dense) {
  const int64_t draws = call->rows * call->samples;
  if (draws == 0 || call->cols == 0) return;
  if (dense && !layout) ask_for_huge_pages(*call);
  int64_t grain = kGrain / call->cols;
  grain = grain < 1 ? 1 : layout && grain < 16 ? 16 : grain;  // strided rows share cache lines
  Range range{*call, layout, operation, draws, grain};
  for_each_chunk((draws + grain - 1) / grain, call->threads, draws * call->cols >= kWake, chunk, &range);
}

}  // namespace
}  // namespace softdraw

using softdraw::Call;
using softdraw::chosen;

EXPORT void softdraw_soft(const Call* call, const int64_t* layout) { softdraw::run(call, layout, chosen->operations->soft, true); }
EXPORT void softdraw_hard(const Call* call, const int64_t* layout) { softdraw::run(call, layout, chosen->operations->hard, true); }
EXPORT void softdraw_index(const Call* call, const int64_t* layout) { softdraw::run(call, layout, chosen->operations->index, false); }
EXPORT void softdraw_gumbel(const Call* call, const int64_t* layout) { softdraw::run(call, layout, chosen->operations->gumbel, true); }
EXPORT void softdraw_soft_backward(const Call* call, const int64_t* layout) {
  softdraw::run(call, layout, chosen->operations->soft_backward, true);
}
EXPORT void softdraw_hard_backward(const Call* call, const int64_t* layout) {
  softdraw::run(call, layout, chosen->operations->hard_backward, true);
}
EXPORT void softdraw_rule_backward(const Call* call, const int64_t* layout) {
  softdraw::run(call, layout, chosen->operations->rule_backward, true);
}
EXPORT void softdraw_bits(const Call* call, const int64_t*) { softdraw::run(call, nullptr, chosen->operations->bits, true); }
EXPORT void softdraw_bits_backward(const Call* call, const int64_t*) {
  softdraw::run(call, nullptr, chosen->operations->bits_backward, true);
}

// Which version of call.h this library was built from (CMakeLists.txt makes the number). A caller asks first of all.
EXPORT uint32_t softdraw_abi() { return SOFTDRAW_ABI; }

// The instruction set in use (null: this CPU has none that was compiled), and a way to take another, for tests and
// comparisons: null if this CPU lacks it.
EXPORT const char* softdraw_isa() { return chosen->name; }
EXPORT const char* softdraw_use_isa(const char* name) {
  for (const auto* v = softdraw::variants(); v->name; ++v)
    if (v->supported && __builtin_strcmp(v->name, name) == 0) return (chosen = v)->name;
  return nullptr;
}

EXPORT void softdraw_use_openmp(softdraw::Team team) { softdraw::use_openmp(team); }
