// The passes without noise, compiled once for each instruction set, as the operations of kernels.cpp are and with the same
// rule: nothing here may have external linkage but the table.
#include "pass_drawn.h"
#include "pass_entropy.h"
#include "pass_index.h"
#include "pass_kl.h"
#include "pass_nll.h"
#include "pass_usage.h"

namespace softdraw {
namespace passes {

template <template <class> class Body>
static bool each(const Pass& pass, int64_t first, int64_t last) {
  if (pass.storage == kFloat64) {
    Body<double> body(pass);
    return each_row(pass, body, first, last);
  }
  Body<float> body(pass);
  return each_row(pass, body, first, last);
}

template <class T>
static bool usage_of(const Pass& pass, int64_t first, int64_t last, double* sums) {
  Usage<T> body(pass, sums);
  const bool known = each_row(pass, body, first, last);
  body.finish();
  return known;
}

static bool usage(const Pass& pass, int64_t, int64_t first, int64_t last, double* sums) {
  return pass.storage == kFloat64 ? usage_of<double>(pass, first, last, sums) : usage_of<float>(pass, first, last, sums);
}

static bool usage_backward(const Pass& pass, int64_t group, int64_t first, int64_t last, double*) {
  if (pass.storage == kFloat64) {
    UsageBackward<double> body(pass, group);
    return each_row(pass, body, first, last);
  }
  UsageBackward<float> body(pass, group);
  return each_row(pass, body, first, last);
}

extern const Passes SOFTDRAW_ISA;
const Passes SOFTDRAW_ISA = {each<Entropy>, each<EntropyBackward>, each<IndexNll>, each<IndexNllBackward>,
                             each<Nll>,     each<NllBackward>,     each<Kl>,       each<KlBackward>,
                             each<DrawnBackward>, usage,       usage_backward};

}  // namespace passes
}  // namespace softdraw
