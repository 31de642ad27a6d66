// A tile of logits x and one of what arrives at the one-hot, h, turned into the gradient for the logits,
// exp(x - top) scale (share h - less), with the sum of each row.
#pragma once
#include "call.h"
#include "math.h"
#include "rows.h"

namespace {

template <class S>
class Turn {
 public:
  using T = typename S::T;
  explicit Turn(const softdraw::TileCall& call) : call_(call) {}

  void run(int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      double* const numbers = call_.numbers + 4 * r;
      const int64_t at = r * call_.cols;
      Raw* const out = (Raw*)call_.out + at;
      if (!(numbers[0] + numbers[2] == numbers[0] + numbers[2])) {  // the row is NaN
        fill<S>(out, call_.cols, T(__builtin_nan("")));
        numbers[3] = __builtin_nan("");
      } else {
        numbers[3] = turn(numbers, (const Raw*)call_.in + at, call_.other ? (const Raw*)call_.other + at : nullptr,
                          call_.mask ? call_.mask + at : nullptr, out);
      }
    }
  }

 private:
  using Raw = typename S::Raw;
  static constexpr int N = kLanes<T>;
  using V = Vec<T, N>;
  using Bytes = Vec<uint8_t, N>;
  using Mask = Vec<typename Format<T>::Int, N>;

  double turn(const double* numbers, const Raw* x, const Raw* h, const uint8_t* mask, Raw* out) const {
    constexpr int64_t few = 4 * N;
    const T top = (T)numbers[0], scale = (T)numbers[1], share = (T)call_.share * scale, less = (T)numbers[2] * scale;
    const auto gradient = [&](V logits, V arriving, Bytes allowed) {
      const V e = exp_of<T, N>(logits - top), v = where_mass(e, e * (arriving * share - less));
      return mask ? (__builtin_convertvector(allowed, Mask) != 0 ? v : V{}) : v;
    };
    Vec<double, N> sum{};
    int64_t i = 0;
    for (; i + few <= call_.cols; i += few) {
      V part{};
      for (int64_t j = i; j < i + few; j += N) {
        const V v = gradient(read<S, N>(x + j), h ? read<S, N>(h + j) : V{}, mask ? load<Bytes>(mask + j) : Bytes{});
        part += v;
        write<S, N>(out + j, v);
      }
      sum += __builtin_convertvector(part, Vec<double, N>);
    }
    for (; i < call_.cols; i += N) {
      const int64_t n = call_.cols - i < N ? call_.cols - i : N;
      V v = gradient(read_part<S, N>(x + i, n), h ? read_part<S, N>(h + i, n) : V{},
                     mask ? load_part<Bytes>(mask + i, n) : Bytes{});
      for (int64_t lane = n; lane < N; ++lane) v[lane] = 0;
      write_part<S, N>(out + i, n, v);
      sum += __builtin_convertvector(v, Vec<double, N>);
    }
    return fold<double, N>(sum, [](auto a, auto b) { return a + b; });
  }

  const softdraw::TileCall& call_;
};

}  // namespace
