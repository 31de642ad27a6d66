// The exported functions: they pick the instruction set once and divide the rows among threads.
#include "bits_reduce.h"
#include "call.h"
#include "openmp.h"
#include "pass_reduce.h"
#include "pool.h"
#include "subset.h"
#if SOFTDRAW_X86
#include "processor.h"
#endif

#include <utility>

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
  const Passes* passes;
  const BitsOperations* bits;
  const SubsetOperations* subset;
  const TileOperations* tiles;
  bool supported;
};

#if SOFTDRAW_X86
extern const Operations x86_64_v2, x86_64_v3, x86_64_v4;
namespace passes {
extern const Passes x86_64_v2, x86_64_v3, x86_64_v4;
}
namespace bits {
extern const BitsOperations x86_64_v2, x86_64_v3, x86_64_v4;
}
namespace subset {
extern const SubsetOperations x86_64_v2, x86_64_v3, x86_64_v4;
}
namespace tiles {
extern const TileOperations x86_64_v2, x86_64_v3, x86_64_v4;
}
#else
extern const Operations baseline;
namespace passes {
extern const Passes baseline;
}
namespace bits {
extern const BitsOperations baseline;
}
namespace subset {
extern const SubsetOperations baseline;
}
namespace tiles {
extern const TileOperations baseline;
}
#endif

namespace {

// Elements worth another thread, at 1 to 3 nanoseconds each: a part for one that is awake, and a call for one that must be
// woken, which takes 20 to 150 microseconds.
constexpr int64_t kGrain = 1 << 13, kWake = 1 << 15;

// Best first; ends with one that has no name.
const Variant* variants() {
#if SOFTDRAW_X86
  static const Processor here;
  static const Variant all[] = {{"x86-64-v4", &x86_64_v4, &passes::x86_64_v4, &bits::x86_64_v4, &subset::x86_64_v4,
                                 &tiles::x86_64_v4, here.v4},
                                {"x86-64-v3", &x86_64_v3, &passes::x86_64_v3, &bits::x86_64_v3, &subset::x86_64_v3,
                                 &tiles::x86_64_v3, here.v3},
                                {"x86-64-v2", &x86_64_v2, &passes::x86_64_v2, &bits::x86_64_v2, &subset::x86_64_v2,
                                 &tiles::x86_64_v2, here.v2},
                                {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, true}};
#else
  static const Variant all[] = {{"baseline", &baseline, &passes::baseline, &bits::baseline, &subset::baseline, &tiles::baseline, true}, {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, true}};
#endif
  return all;
}

const Variant* best() {
  const Variant* v = variants();
  while (!v->supported) ++v;
  return v;
}

const Variant* chosen = best();

// Calls work(first, last) for parts of `rows` rows of `cols` columns, each of a multiple of `least` rows, on several threads.
template <class Work>
void in_parts(int64_t rows, int64_t cols, int64_t least, int64_t threads, Work work) {
  if (rows == 0 || cols == 0) return;
  int64_t grain = kGrain / cols;
  grain = grain < least ? least : grain / least * least;
  struct Parts {
    Work& work;
    int64_t rows, grain;
  } parts{work, rows, grain};
  const Chunk chunk = [](void* context, int64_t index) {
    const Parts& all = *(const Parts*)context;
    const int64_t first = index * all.grain, end = first + all.grain;
    all.work(first, end < all.rows ? end : all.rows);
  };
  for_each_chunk((rows + grain - 1) / grain, threads, rows * cols >= kWake, chunk, &parts);
}

// An output this large is fresh memory from the system every time, and the faults of its first touch cost more than the
// draw. Pages of 2 MB take a small part of them; only those that the output fills are asked for.
void ask_for_huge_pages(void* out, int64_t elements, int64_t storage) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = 1 << 21, large = 1 << 25;
  const int64_t size = storage == kFloat64 ? 8 : storage == kFloat32 ? 4 : 2;
  const uintptr_t start = ((uintptr_t)out + page - 1) / page * page;
  const uintptr_t end = ((uintptr_t)out + (uintptr_t)(elements * size)) / page * page;
  if (end >= start + large - page) madvise((void*)start, end - start, MADV_HUGEPAGE);
#endif
}

void run(const Call* call, const int64_t* layout, Operation operation, bool dense) {
  const int64_t draws = call->rows * call->samples;
  if (dense && !layout) ask_for_huge_pages(call->out, call->rows * call->cols, call->storage);
  // Fewer rows than threads: the operation divides each of them.
  if (draws == 1 || (draws < call->threads && call->cols >= kWakeRow)) return operation(*call, layout, 0, draws);
  Call part = *call;
  part.threads = 1;
  const bool share = layout && call->cols <= 1 << 15;  // strided rows share cache lines
  in_parts(draws, call->cols, share ? 16 : 1, call->threads,
           [&](int64_t first, int64_t last) { operation(part, layout, first, last); });
}

// 0 if every row was done.
int64_t pass(const Pass* pass, PassOperation operation, bool backward) {
  if (backward) ask_for_huge_pages(pass->out, pass->rows * pass->cols, pass->storage);
  if (backward && pass->other_out) ask_for_huge_pages(pass->other_out, pass->rows * pass->cols, pass->other_storage);
  int64_t refused = 0;
  in_parts(pass->rows, pass->cols, pass->cols < 512 ? 16 : 1, pass->threads, [&](int64_t first, int64_t last) {
    if (__atomic_load_n(&refused, __ATOMIC_RELAXED)) return;
    if (!operation(*pass, first, last)) __atomic_store_n(&refused, 1, __ATOMIC_RELAXED);
  });
  if (!backward && !refused) reduce_rows(*pass);
  return refused;
}

// The same of a pass over the usage of categories, in parts that do not depend on the threads.
int64_t usage(const Pass* pass, UsageOperation operation, bool backward) {
  if (backward) ask_for_huge_pages(pass->out, pass->rows * pass->cols, pass->storage);
  int64_t refused = 0;
  UsageSums sums(*pass, kGrain);
  if (!backward) sums.clear();
  in_parts(sums.count(), sums.grain() * pass->cols, 1, pass->threads, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      if (__atomic_load_n(&refused, __ATOMIC_RELAXED)) return;
      double* own = backward ? nullptr : sums.of(part);
      if (!operation(*pass, sums.group(part), sums.first(part), sums.last(part), own))
        __atomic_store_n(&refused, 1, __ATOMIC_RELAXED);
    }
  });
  if (!backward && !refused) sums.finish();
  return refused;
}

// 0 if everything was allowed. Elements are worked on in parts whatever rows they are in, except where rows are summed.
int64_t over_bits(const Bits* given, BitsOperation operation, Finish finish, bool writes_elements) {
  double own_sums[3];
  Bits own = *given;
  const Bits* bits = &own;
  if (finish && !own.saved) own.saved = own_sums;
  const int64_t count = bits->rows * bits->cols;
  if (writes_elements && bits->out) ask_for_huge_pages(bits->out, count, bits->storage);
  int64_t refused = 0;
  Partial sums(*bits, finish ? kGrain : 0);
  const bool whole_rows = finish && bits->rows != 1;
  const int64_t scale = whole_rows ? bits->cols : 1;
  in_parts(whole_rows ? bits->rows : count, scale, 1, bits->threads, [&](int64_t first, int64_t last) {
    if (!operation(*bits, first * scale, last * scale, sums.of(first))) __atomic_store_n(&refused, 1, __ATOMIC_RELAXED);
  });
  if (finish) sums.add_up(), finish(*bits);
  return refused;
}

// 0 if there was memory for everything. Rows in groups that are worked on together; an element takes some nanoseconds for
// each number of ones up to k.
int64_t subsets(const Subset* subset, SubsetOperation operation) {
  if (subset->rows == 0) return 0;
  struct Context {
    const Subset* all;
    SubsetOperation run;
    int64_t failed;
  } context{subset, operation, 0};
  const Chunk chunk = [](void* data, int64_t index) {
    Context& c = *(Context*)data;
    const int64_t first = index * kTogether, end = first + kTogether;
    if (!c.run(*c.all, first, end < c.all->rows ? end : c.all->rows)) __atomic_store_n(&c.failed, 1, __ATOMIC_RELAXED);
  };
  const int64_t work = subset->rows * subset->n * (subset->most + 1);
  for_each_chunk((subset->rows + kTogether - 1) / kTogether, subset->threads, work >= kWake, chunk, &context);
  return context.failed;
}

void tile(const TileCall* call, TileOperation operation) {
  in_parts(call->rows, call->cols, 1, call->threads,
           [&](int64_t first, int64_t last) { operation(*call, first, last); });
}

}  // namespace
}  // namespace softdraw

using softdraw::Bits;
using softdraw::Call;
using softdraw::chosen;
using softdraw::Pass;
using softdraw::Subset;
using softdraw::TileCall;

EXPORT void softdraw_soft(const Call* call, const int64_t* layout) { softdraw::run(call, layout, chosen->operations->soft, true); }
EXPORT void softdraw_hard(const Call* call, const int64_t* layout) { softdraw::run(call, layout, chosen->operations->hard, true); }
EXPORT void softdraw_index(const Call* call, const int64_t* layout) { softdraw::run(call, layout, chosen->operations->index, false); }
EXPORT void softdraw_best(const Call* call, const int64_t* layout) { softdraw::run(call, layout, chosen->operations->best, false); }
EXPORT void softdraw_gumbel(const Call* call, const int64_t* layout) { softdraw::run(call, layout, chosen->operations->gumbel, true); }
EXPORT void softdraw_tempered(const Call* call, const int64_t* layout) {
  softdraw::run(call, layout, chosen->operations->tempered, false);
}
EXPORT void softdraw_topk(const Call* call, const int64_t* layout) { softdraw::run(call, layout, chosen->operations->topk, false); }
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
EXPORT void softdraw_soft_bits(const Call* call, const int64_t*) {
  softdraw::run(call, nullptr, chosen->operations->soft_bits, true);
}
EXPORT void softdraw_bits_backward(const Call* call, const int64_t*) {
  softdraw::run(call, nullptr, chosen->operations->bits_backward, true);
}

EXPORT int64_t softdraw_entropy(const Pass* pass) { return softdraw::pass(pass, chosen->passes->entropy, false); }
EXPORT int64_t softdraw_entropy_backward(const Pass* pass) { return softdraw::pass(pass, chosen->passes->entropy_backward, true); }
EXPORT int64_t softdraw_drawn_backward(const Pass* pass) { return softdraw::pass(pass, chosen->passes->drawn_backward, true); }
EXPORT int64_t softdraw_index_nll(const Pass* pass) { return softdraw::pass(pass, chosen->passes->index_nll, false); }
EXPORT int64_t softdraw_index_nll_backward(const Pass* pass) { return softdraw::pass(pass, chosen->passes->index_nll_backward, true); }
EXPORT int64_t softdraw_nll(const Pass* pass) { return softdraw::pass(pass, chosen->passes->nll, false); }
EXPORT int64_t softdraw_nll_backward(const Pass* pass) { return softdraw::pass(pass, chosen->passes->nll_backward, true); }
EXPORT int64_t softdraw_kl(const Pass* pass) { return softdraw::pass(pass, chosen->passes->kl, false); }
EXPORT int64_t softdraw_kl_backward(const Pass* pass) { return softdraw::pass(pass, chosen->passes->kl_backward, true); }
EXPORT int64_t softdraw_usage(const Pass* pass) { return softdraw::usage(pass, chosen->passes->usage, false); }
EXPORT int64_t softdraw_usage_backward(const Pass* pass) { return softdraw::usage(pass, chosen->passes->usage_backward, true); }

// The passes over bits.
EXPORT int64_t softdraw_bits_nll(const Bits* bits) {
  const bool each = bits->reduction == softdraw::kNone;
  return softdraw::over_bits(bits, chosen->bits->nll, each ? nullptr : softdraw::finish_nll, each);
}
EXPORT int64_t softdraw_bits_share(const Bits* bits) {
  return softdraw::over_bits(bits, chosen->bits->share, softdraw::finish_share, false);
}
#define OVER_EACH_BIT(name) \
  EXPORT int64_t softdraw_bits_##name(const Bits* bits) { return softdraw::over_bits(bits, chosen->bits->name, nullptr, true); }
OVER_EACH_BIT(nll_backward)
OVER_EACH_BIT(entropy)
OVER_EACH_BIT(entropy_backward)
OVER_EACH_BIT(variance)
OVER_EACH_BIT(variance_backward)
OVER_EACH_BIT(kl)
OVER_EACH_BIT(kl_backward)
OVER_EACH_BIT(share_backward)

// The laws of k of n items.
EXPORT int64_t softdraw_subset_normalizer(const Subset* subset) { return softdraw::subsets(subset, chosen->subset->normalizer); }
EXPORT int64_t softdraw_subset_mean(const Subset* subset) { return softdraw::subsets(subset, chosen->subset->mean); }
EXPORT int64_t softdraw_subset_covariance(const Subset* subset) { return softdraw::subsets(subset, chosen->subset->covariance); }
EXPORT int64_t softdraw_subset_sample(const Subset* subset) { return softdraw::subsets(subset, chosen->subset->sample); }

// Tiles of a linear layer's logits.
EXPORT void softdraw_tile_take(const TileCall* call) { softdraw::tile(call, chosen->tiles->take); }
EXPORT void softdraw_tile_turn(const TileCall* call) { softdraw::tile(call, chosen->tiles->turn); }

// Which version of call.h, pass.h, bits.h and subset.h this library was built from (CMakeLists.txt makes the number). A
// caller checks it first.
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
