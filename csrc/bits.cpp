// The passes over bits, compiled once for each instruction set, as the operations of kernels.cpp are and with the same
// rule: nothing here may have external linkage but the table.
#include "bits_passes.h"

namespace softdraw {
namespace bits {

// An operation for every element type.
template <class Body>
static bool each(const Bits& bits, int64_t first, int64_t last, double* sums) {
  switch (bits.storage) {
    case kFloat32: return Body::template run<Float32>(bits, first, last, sums);
    case kFloat64: return Body::template run<Float64>(bits, first, last, sums);
    case kBFloat16: return Body::template run<BFloat16>(bits, first, last, sums);
    default: return Body::template run<Float16>(bits, first, last, sums);
  }
}

extern const BitsOperations SOFTDRAW_ISA;
const BitsOperations SOFTDRAW_ISA = {
    each<Nll>,      each<NllBackward>,       each<Value<EntropyOf>>, each<Slope<EntropyOf>>, each<Value<VarianceOf>>, each<Slope<VarianceOf>>,
    each<Divergence>, each<DivergenceBackward>, each<Share>,           each<ShareBackward>};

}  // namespace bits
}  // namespace softdraw
