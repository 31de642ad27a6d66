// The passes without noise, compiled once for each instruction set, as the operations of kernels.cpp are and with the same
// rule: nothing here may have external linkage but the table.
#include "pass_drawn.h"
#include "pass_entropy.h"
#include "pass_kl.h"
#include "pass_nll.h"

namespace softdraw {
namespace passes {

template <template <class> class Body>
static bool each(const Pass& pass, int64_t first, int64_t last) {
  return pass.storage == kFloat64 ? each_row<Body<double>>(pass, first, last) : each_row<Body<float>>(pass, first, last);
}

extern const Passes SOFTDRAW_ISA;
const Passes SOFTDRAW_ISA = {each<Entropy>, each<EntropyBackward>, each<IndexNll>, each<IndexNllBackward>,
                             each<Nll>,     each<NllBackward>,     each<Kl>,       each<KlBackward>,
                             each<DrawnBackward>};

}  // namespace passes
}  // namespace softdraw
