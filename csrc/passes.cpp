// The passes without noise, compiled once for each instruction set, as the operations of kernels.cpp are and with the same
// rule: nothing here may have external linkage but the table.
#include "pass_entropy.h"

namespace softdraw {
namespace passes {

template <template <class> class Body>
static bool each(const Pass& pass, int64_t first, int64_t last) {
  switch (pass.storage) {
    case kFloat32: return each_row<Body<Float32>>(pass, first, last);
    case kFloat64: return each_row<Body<Float64>>(pass, first, last);
    case kBFloat16: return each_row<Body<BFloat16>>(pass, first, last);
    default: return each_row<Body<Float16>>(pass, first, last);
  }
}

extern const Passes SOFTDRAW_ISA;
const Passes SOFTDRAW_ISA = {each<Entropy>, each<EntropyBackward>};

}  // namespace passes
}  // namespace softdraw
