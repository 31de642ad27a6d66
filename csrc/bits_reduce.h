// What becomes of the sums of a pass over bits: those of one row are taken in parts of fixed size and added in order, so
// that the number of threads changes no bit, and then make the number that the pass returns.
#pragma once
#include <vector>

#include "bits.h"

namespace softdraw {

using Finish = void (*)(const Bits&);

// Sums for each part of one row, or those of every row where there are several.
class Partial {
 public:
  // Parts have `grain` elements; 0: the pass has no sums.
  Partial(const Bits& bits, int64_t grain) : bits_(bits), grain_(grain) {
    if (grain_ == 0) return;
    for (int64_t i = 0; i < 2 * bits.rows; ++i) bits.saved[i] = 0;
    if (bits.rows == 1 && bits.cols > grain) parts_.resize(2 * ((bits.cols + grain - 1) / grain));
  }
  // Where the part that begins with this element, or row, puts its sums.
  double* of(int64_t first) {
    if (grain_ == 0) return nullptr;
    return parts_.empty() ? bits_.saved + 2 * first : &parts_[2 * (first / grain_)];
  }
  void add_up() const {
    for (size_t i = 0; i < parts_.size(); ++i) bits_.saved[i % 2] += parts_[i];
  }

 private:
  const Bits& bits_;
  int64_t grain_;
  std::vector<double> parts_;
};

inline void give(const Bits& bits, int64_t at, double value) {
  if (bits.storage == kFloat64) ((double*)bits.out)[at] = value;
  else ((float*)bits.out)[at] = (float)value;
}

// The mean over nothing is 0.
inline double one_for_none(double sum) { return sum == 0 ? 1 : sum; }

inline void finish_nll(const Bits& bits) {
  double* divisor = bits.saved + 2;
  *divisor = bits.reduction == kMean ? one_for_none(bits.saved[1]) : 1;
  give(bits, 0, bits.saved[0] / *divisor);
}

inline void finish_share(const Bits& bits) {
  double sum = 0, rows = 0;
  for (int64_t r = 0; r < bits.rows; ++r) {
    double *share = bits.saved + 2 * r, weights = share[1];
    *share /= one_for_none(weights);
    const double off = *share - bits.number, loss = weights == 0 ? 0 : off * off;
    if (bits.reduction == kNone) give(bits, r, loss);
    sum += loss, rows += weights != 0;
  }
  double* divisor = bits.saved + 2 * bits.rows;
  *divisor = bits.reduction == kMean ? one_for_none(rows) : 1;
  if (bits.reduction != kNone) give(bits, 0, sum / *divisor);
}

}  // namespace softdraw
