// What becomes of the numbers of rows, and of sums over rows: they are added in an order that the number of threads does
// not change.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "pass.h"

namespace softdraw {

inline void give(const Pass& pass, int64_t at, double value) {
  value += 0.0;  // never -0
  if (pass.storage == kFloat64) ((double*)pass.out)[at] = value;
  else ((float*)pass.out)[at] = (float)value;
}

inline double weight_of(const Pass& pass, int64_t row) {
  if (!pass.weight) return 1;
  return pass.storage == kFloat64 ? ((const double*)pass.weight)[row] : (double)((const float*)pass.weight)[row];
}

// The sum of the rows, in eight parts that are added last.
template <class Of>
double sum_over(int64_t rows, Of of) {
  double parts[8] = {};
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8)
    for (int i = 0; i < 8; ++i) parts[i] += of(r + i);
  for (; r < rows; ++r) parts[r % 8] += of(r);
  return ((parts[0] + parts[4]) + (parts[2] + parts[6])) + ((parts[1] + parts[5]) + (parts[3] + parts[7]));
}

// sum w v, or that over sum w; the mean over nothing is 0.
inline void reduce_rows(const Pass& pass) {
  if (!pass.reduction) return;
  const Saved saved(pass);
  const bool plain = !pass.weight && !pass.keep;
  auto weight = [&](int64_t r) { return pass.keep && !pass.keep[r] ? 0.0 : weight_of(pass, r); };
  auto weighed = [&](int64_t r) {
    const double w = weight(r), v = saved.value[r];
    return w == 0 && (std::isinf(v) || (pass.keep && !pass.keep[r])) ? 0.0 : w * v;
  };
  const double sum = plain ? sum_over(pass.rows, [&](int64_t r) { return saved.value[r]; }) : sum_over(pass.rows, weighed);
  const double weights = plain ? (double)pass.rows : sum_over(pass.rows, weight);
  *saved.divisor = pass.reduction == kMean && weights != 0 ? weights : 1;
  give(pass, 0, sum / *saved.divisor);
}

// The mean law of each group, its loss, and the slopes of that for the law, divided by the weights.
class UsageSums {
 public:
  // Groups are worked on in parts of `grain` rows.
  explicit UsageSums(const Pass& pass, int64_t elements) : pass_(pass), rows_(pass.groups ? pass.rows / pass.groups : 0) {
    constexpr int64_t most = 64;  // parts, for each has sums of its own
    grain_ = elements / pass.cols;
    if (grain_ < (rows_ + most - 1) / most) grain_ = (rows_ + most - 1) / most;
    grain_ = (grain_ + 15) / 16 * 16;
    parts_ = (rows_ + grain_ - 1) / grain_;
  }
  void clear() { sums_.assign(parts_ * pass_.groups * size(), 0.0); }

  int64_t count() const { return parts_ * pass_.groups; }
  int64_t grain() const { return grain_; }
  int64_t group(int64_t part) const { return part / parts_; }
  int64_t first(int64_t part) const { return group(part) * rows_ + part % parts_ * grain_; }
  int64_t last(int64_t part) const {
    const int64_t end = (group(part) + 1) * rows_, last = first(part) + grain_;
    return last < end ? last : end;
  }
  double* of(int64_t part) { return &sums_[part * size()]; }

  void finish() {
    double sum = 0, groups = 0;
    std::vector<double> total(size());
    const UsageSaved saved(pass_);
    for (int64_t g = 0; g < pass_.groups; ++g) {
      total.assign(size(), 0.0);
      for (int64_t part = g * parts_; part < (g + 1) * parts_; ++part)
        for (int64_t i = 0; i < size(); ++i) total[i] += of(part)[i];
      const double weights = total[2 * pass_.cols];
      double* slope = saved.slope(g);
      const double loss = of_group(total.data(), weights == 0 ? 1 : weights, slope, g);
      for (int64_t k = weights == 0 ? 0 : pass_.cols; k < saved.stride; ++k) slope[k] = 0;
      if (!pass_.reduction) give(pass_, g, weights == 0 ? 0 : loss);
      if (weights != 0) sum += loss, groups += 1;
    }
    *saved.divisor = pass_.reduction == kMean && groups != 0 ? groups : 1;
    if (pass_.reduction) give(pass_, 0, sum / *saved.divisor);
  }

 private:
  int64_t size() const { return 2 * pass_.cols + 1; }

  double of_group(const double* total, double weights, double* slope, int64_t group) const {
    const int64_t cols = pass_.cols;
    return pass_.check == kBalance ? balance(total, total + cols, cols, weights, slope, group)
                                   : diversity(total, cols, weights, slope);
  }

  // (K - exp H) / K. Its slope for q is exp(H) (log q + 1) / K, of which softmax passes no constant on.
  double diversity(const double* law, int64_t cols, double weights, double* slope) const {
    const double tiny = pass_.storage == kFloat64 ? std::numeric_limits<double>::min() : std::numeric_limits<float>::min();
    double h = 0;
    for (int64_t k = 0; k < cols; ++k) {
      const double q = law[k] / weights, log_q = std::log(q < tiny ? tiny : q);
      h -= q * log_q, slope[k] = log_q;
    }
    const double perplexity = std::exp(h);
    for (int64_t k = 0; k < cols; ++k) slope[k] *= perplexity / cols / weights;
    return (cols - perplexity) / cols;
  }

  // K sum f q, where f are the choices scaled to sum to 1: those that were given, or the largest logits.
  double balance(const double* law, const double* chosen, int64_t cols, double weights, double* slope, int64_t group) const {
    auto choice = [&](int64_t k) {
      if (!pass_.other) return chosen[k];
      const int64_t at = group * cols + k;
      return pass_.storage == kFloat64 ? ((const double*)pass_.other)[at] : (double)((const float*)pass_.other)[at];
    };
    double all = 0, loss = 0;
    for (int64_t k = 0; k < cols; ++k) all += choice(k);
    for (int64_t k = 0; k < cols; ++k) {
      slope[k] = cols * choice(k) / (all == 0 ? 1 : all) / weights;
      loss += slope[k] * law[k];
    }
    return loss;
  }

  const Pass& pass_;
  int64_t rows_, grain_, parts_;
  std::vector<double> sums_;
};

}  // namespace softdraw
