// The operations, compiled once for each instruction set (SOFTDRAW_ISA names it). Nothing here may have external
// linkage but the table: an inline function shared with another unit could be merged into code for another CPU.
#include "backward.h"
#include "bit_draws.h"
#include "forward.h"
#include "groups.h"
#include "indices.h"
#include "rules.h"

namespace softdraw {

template <template <class> class Body>
static void each(const Call& call, const int64_t* layout, int64_t first, int64_t last) {
  switch (call.storage) {
    case kFloat32: return each_group<Float32, Body<Float32>>(call, layout, first, last);
    case kFloat64: return each_group<Float64, Body<Float64>>(call, layout, first, last);
    case kBFloat16: return each_group<BFloat16, Body<BFloat16>>(call, layout, first, last);
    default: return each_group<Float16, Body<Float16>>(call, layout, first, last);
  }
}

template <template <class> class Body>
static void each_bit(const Call& call, const int64_t*, int64_t first, int64_t last) {
  switch (call.storage) {
    case kFloat32: return Body<Float32>(call).run(first, last);
    case kFloat64: return Body<Float64>(call).run(first, last);
    case kBFloat16: return Body<BFloat16>(call).run(first, last);
    default: return Body<Float16>(call).run(first, last);
  }
}

extern const Operations SOFTDRAW_ISA;
const Operations SOFTDRAW_ISA = {each<Soft>,         each<Hard>,         each<Index>,       each<Gumbel>,
                                 each<SoftBackward>, each<HardBackward>, each<RuleBackward>,
                                 each_bit<Bits>,     each_bit<SoftBits>,  each_bit<BitsBackward>,
                                 each<TemperedIndex>, each<TopK>,         each<Leader>};

}  // namespace softdraw
