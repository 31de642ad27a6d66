// What passes over rows are made of: blocks of logits, the running maximum and its sums, and how a body walks its rows.
//
// A forward pass reads each row once, in blocks. Its sums are of exp(x - top) for the largest logit so far; where a block
// has a larger one, the sums are brought to it. They are taken in double, so that the order of lanes shows nowhere.
#pragma once
#include "pass.h"
#include "rows.h"

namespace {

using softdraw::Pass;

// Elements whose vectors may be added in T before they go to a sum in double: few enough to lose less than one of their
// own roundings.
template <class T>
constexpr int64_t kFew = 4 * kLanes<T>;

template <class T>
constexpr T kMinusInf = T(-__builtin_inf());

inline double exp_scalar(double x) { return exp_of<double, 2>(Vec<double, 2>{x, x})[0]; }  // x <= 0
inline double log_scalar(double x) { return -gumbel_of<double, 2>(Vec<double, 2>{x, x})[0]; }

template <class T, int N>
INLINE double total(Vec<T, N> x) {
  return fold<T, N>(x, [](auto a, auto b) { return a + b; });
}

// An operand of a pass, read block by block with what its mask forbids at -inf. Its element type is looked up for each
// block, so that bodies are compiled for the dtype of the computation alone.
template <class T>
class Source {
 public:
  Source(const void* data, const uint8_t* mask, int64_t rows, const Pass& pass, int64_t storage)
      : data_((const char*)data), mask_(mask), rows_(rows), cols_(pass.cols), storage_(storage) {}

  int64_t start(int64_t row) const { return rows_ == 1 ? 0 : (row < rows_ ? row : row % rows_) * cols_; }
  void place(int64_t row) { at_ = start(row); }
  const char* data() const { return data_; }
  const uint8_t* mask() const { return mask_; }
  int64_t cols() const { return cols_; }
  int64_t storage() const { return storage_; }

  // Columns [first, first + n), and -inf up to the next multiple of 16.
  void read(T* block, int64_t first, int64_t n) const {
    if constexpr (sizeof(T) == 8) return read_as<Float64>(block, first, n);
    else if (storage_ == softdraw::kFloat32) read_as<Float32>(block, first, n);
    else if (storage_ == softdraw::kBFloat16) read_as<BFloat16>(block, first, n);
    else read_as<Float16>(block, first, n);
  }

 private:
  template <class S>
  INLINE void read_as(T* block, int64_t first, int64_t n) const {
    Row<S> row;
    row.in = (const typename S::Raw*)data_ + at_;
    row.mask = mask_ ? mask_ + at_ : nullptr;
    load_logits(block, row, first, n);
  }

  const char* data_;
  const uint8_t* mask_;
  int64_t rows_, cols_, storage_, at_ = 0;
};

template <class T>
Source<T> logits_of(const Pass& pass) {
  return {pass.in, pass.mask, pass.in_rows, pass, pass.storage};
}
template <class T>
Source<T> second_of(const Pass& pass) {
  return {pass.other, pass.other_mask, pass.other_rows, pass, pass.other_storage};
}

// A gradient of the shape of the pass, written block by block.
template <class T>
class Sink {
 public:
  Sink(void* data, const Pass& pass, int64_t storage) : data_(data), cols_(pass.cols), storage_(storage) {}
  explicit operator bool() const { return data_ != nullptr; }
  void* data() const { return data_; }
  int64_t cols() const { return cols_; }
  int64_t storage() const { return storage_; }

  // scale block, to columns [first, first + n).
  void write(int64_t row, const T* block, int64_t first, int64_t n, T scale) const {
    const int64_t at = row * cols_ + first;
    if constexpr (sizeof(T) == 8) write_as<Float64>(block, at, n, scale);
    else if (storage_ == softdraw::kFloat32) write_as<Float32>(block, at, n, scale);
    else if (storage_ == softdraw::kBFloat16) write_as<BFloat16>(block, at, n, scale);
    else write_as<Float16>(block, at, n, scale);
  }
  void zero(int64_t row) const {
    if (!data_) return;
    const int64_t width = sizeof(T) == 8 ? 8 : storage_ == softdraw::kFloat32 ? 4 : 2;
    __builtin_memset((char*)data_ + row * cols_ * width, 0, cols_ * width);
  }

 private:
  template <class S>
  INLINE void write_as(const T* block, int64_t at, int64_t n, T scale) const {
    write_scaled<S>((typename S::Raw*)data_ + at, block, n, scale);
  }

  void* data_;
  int64_t cols_, storage_;
};

template <class T>
struct Block {
  alignas(64) T at[kBlock + kSlack];
  operator T*() { return at; }
};

// The largest element so far. Sums of exp(x - top) are multiplied by a factor where it grows.
template <class T>
struct RunningTop {
  T top = kMinusInf<T>;

  // Takes a block's largest element. False: it is +inf or NaN. Otherwise calls grow(new - old, exp(old - new)) for what
  // was summed, where there is something.
  template <class Grow>
  INLINE bool take(T larger, Grow grow) {
    if (!(larger < T(__builtin_inf()))) return false;
    if (larger > top) {
      if (top > kMinusInf<T>) {
        const double up = (double)larger - (double)top;
        grow(up, exp_scalar(-up));
      }
      top = larger;
    }
    return true;
  }
  bool finite() const { return top > kMinusInf<T>; }
};

// The largest of n elements, up to the next multiple of 16; NaN if one of them is.
template <class T>
NOINLINE T largest(const T* x, int64_t n) {
  constexpr int N = kLanes<T>;
  using V = Vec<T, N>;
  using Int = typename Format<T>::Int;
  V best = splat<V>(kMinusInf<T>);
  Vec<Int, N> nan{};
  for (int64_t i = 0; i < n; i += N) {
    const V v = load<V>(x + i);
    best = v > best ? v : best;
    nan |= v != v;
  }
  if (fold<Int, N>(nan, [](auto a, auto b) { return a | b; })) return T(__builtin_nan(""));
  return fold<T, N>(best, [](auto a, auto b) { return a > b ? a : b; });
}

// w v, where 0 inf is 0: what has no weight is not there.
template <class T>
INLINE T weighed(T weight, T v) {
  return weight == 0 && (v == T(__builtin_inf()) || v == kMinusInf<T>) ? T(0) : weight * v;
}

// Where the number of a row goes: into out, weighed, or to what is reduced.
template <class T>
class Results {
 public:
  explicit Results(const Pass& pass)
      : out_((T*)pass.out), weight_((const T*)pass.weight), value_(pass.reduction ? pass.saved : nullptr) {}

  void put(int64_t row, double v) const {
    if (value_) value_[row] = v;
    else out_[row] = (weight_ ? weighed(weight_[row], (T)v) : (T)v) + T(0);  // never -0
  }

 private:
  T* out_;
  const T* weight_;
  double* value_;
};

// The gradient that arrives at a row, times the factor of the operation.
template <class T>
class Arriving {
 public:
  explicit Arriving(const Pass& pass)
      : grad_((const T*)pass.grad),
        weight_((const T*)pass.weight),
        rows_(pass.reduction ? 1 : pass.grad_rows),
        scale_(pass.reduction == softdraw::kMean ? pass.scale / *softdraw::Saved(pass).divisor : pass.scale) {}

  INLINE T operator()(int64_t row) const {
    const T g = (T)(grad_[rows_ == 1 ? 0 : row % rows_] * scale_);
    return weight_ ? g * weight_[row] : g;
  }

 private:
  const T *grad_, *weight_;
  int64_t rows_;
  double scale_;
};

// x - log sum exp(x), in two steps: the second is small beside a large logit, and would be lost in their sum.
template <class T>
struct Normalizer {
  T top, rest;  // log sum exp(x - top)
  template <class V>
  INLINE V operator()(V x) const { return (x - top) - rest; }
};

// Logits become probabilities.
template <class T>
NOINLINE void to_probabilities(T* block, int64_t n, Normalizer<T> less) {
  constexpr int N = kLanes<T>;
  for (int64_t i = 0; i < n; i += N) store(block + i, exp_of<T, N>(less(load<Vec<T, N>>(block + i))));
}

// Calls body(first, n) for the blocks of a row.
template <class Body>
INLINE bool each_block(int64_t cols, Body body) {
  for (int64_t first = 0; first < cols; first += kBlock)
    if (!body(first, cols - first < kBlock ? cols - first : kBlock)) return false;
  return true;
}

}  // namespace
