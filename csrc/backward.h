// Gradients for the logits: dx_j = y_j (g_j - <g, y>) / tau, where a category of no mass passes nothing on.
#pragma once
#include "forward.h"

namespace {

template <class S, int N, class Y, class G>
INLINE void write_jacobian_product(typename S::Raw* out, typename S::T tau, Y y, G g, const Parts& parts, OfParts<double>& sums) {
  using T = typename S::T;
  using Sum = Vec<double, N>;
  parts.each([=, &sums](int64_t part, int64_t i, int64_t n) {
    Sum sum{};
    const int64_t end = i + n;
    for (; i + N <= end; i += N) sum += __builtin_convertvector(y(i, N) * where_mass(y(i, N), g(i, N)), Sum);
    if (i < end) sum += __builtin_convertvector(y(i, end - i) * where_mass(y(i, end - i), g(i, end - i)), Sum);
    sums[part] = fold<double, N>(sum, [](auto a, auto b) { return a + b; });
  });
  const T mean = (T)sums.all([](double& sum, double next) { sum += next; });
  auto dx = [=](int64_t i, int64_t m) { return y(i, m) * (where_mass(y(i, m), g(i, m)) - mean) / tau; };
  parts.each([=](int64_t, int64_t i, int64_t n) {
    const int64_t end = i + n;
    for (; i + N <= end; i += N) write<S, N>(out + i, dx(i, N));
    if (i < end) write_part<S, N>(out + i, end - i, dx(i, end - i));
  });
}

// N elements at p + i, of which the first m are there.
template <class S, int N>
struct Reader {
  const typename S::Raw* p;
  INLINE Vec<typename S::T, N> operator()(int64_t i, int64_t m) const {
    return m == N ? read<S, N>(p + i) : read_part<S, N>(p + i, m);
  }
};

template <class S>
class SoftBackward {
 public:
  static constexpr bool kDense = true;
  static bool tiles(int64_t cols) { return narrow(cols); }
  explicit SoftBackward(const Call& call) : parts_(call), sums_(parts_) {}

  void run(const Row<S>* rows, int count) {
    constexpr int N = kLanes<typename S::T>;
    for (int r = 0; r < count; ++r) {
      const Row<S>& row = rows[r];
      write_jacobian_product<S, N>(row.out, row.tau, Reader<S, N>{row.in}, Reader<S, N>{row.grad}, parts_, sums_);
    }
  }

 private:
  Parts parts_;
  OfParts<double> sums_;
};

// The soft draw with the same noise is made again, rounded nowhere but in the result, and takes the gradient.
template <class S>
struct HardBackwardFinish {
  using T = typename S::T;
  static constexpr bool kDense = true, kKeepsScores = true;
  static constexpr int N = kLanes<T>;

  static INLINE void finish(Tile<S>& tile) {
    tile.soften();
    tile.take_jacobian_product();
    tile.give();
  }

  static INLINE void finish(const Row<S>& row, T* s, int64_t n, const Top<T>& top, const Parts& parts) {
    if (no_draw<S>(row, n, top)) return;
    const T scale = (T)(1 / exponentials(s, n, top.score, row.tau, parts));
    auto y = [=](int64_t i, int64_t) { return load<Vec<T, N>>(s + i) * scale; };
    OfParts<double> sums(parts);
    write_jacobian_product<S, N>(row.out, row.tau, y, Reader<S, N>{row.grad}, parts, sums);
  }
};

template <class S>
using HardBackward = Draw<S, HardBackwardFinish<S>>;

}  // namespace
