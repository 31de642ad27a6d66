// The operations of laws of k of n items, compiled once for each instruction set, as the operations of kernels.cpp are and
// with the same rule: nothing here may have external linkage but the table.
#include "subset_draw.h"

namespace softdraw {
namespace subset {
namespace {

// Nodes of short rows, side by side, stay in the second cache.
constexpr int64_t kShort = 2048;  // coefficients of a row's tree

template <class T, bool kRows>
struct Rows {
  using Bits = TiltedBits<T, kRows>;
  using TreeOf = Tree<T, kRows>;
  using E = typename TreeOf::E;
  static constexpr int kLanesOfRows = Bits::kLanesOfRows;

  explicit Rows(const Subset& call, const Shape& shape) : call(call), bits(call.n), tree(shape) {}

  // Whether there is memory for an operation. All of it is taken here, before anything is written.
  bool take_room(bool outside, bool slopes) {
    const int64_t count = bits.vectors * Bits::N;
    return bits.has_room && tree.has_room && (!outside || tree.take_room(slopes)) &&
           (!slopes || (grad.take(count) && slope.take(count)));
  }

  template <class Each>
  void run(int64_t first, int64_t last, Each each) {
    for (int64_t row = first; row < last; row += kLanesOfRows) {
      const int64_t count = lesser(kLanesOfRows, last - row);
      bits.take((const T*)call.in + row * call.n, count, call.each ? call.each + row : nullptr, call.most);
      for (int lane = 0; lane < kLanesOfRows; ++lane) k[lane] = bits.rows[lane].k;
      tree.up(bits);
      each(row, count);
    }
  }

  void normalizer(int64_t first, int64_t last) {
    run(first, last, [&](int64_t row, int64_t count) {
      double softplus[Bits::N] = {};
      bits.softplus(softplus);
      const T* const root = (const T*)tree.node(tree.polynomials, tree.shape.depth, 0);
      for (int64_t lane = 0; lane < count; ++lane) {
        const Row& r = bits.rows[lane];
        double* const out = (double*)call.out + 3 * (row + lane);
        constexpr double inf = kInfinite<double>;
        const double log_q = log((double)root[r.k * kLanesOfRows + lane]);
        out[0] = r.infinite && r.k > 0 ? inf : log_q + softplus[lane] - r.k * r.tilt;
        out[1] = log_q, out[2] = r.tilt;
        if (r.kind == Kind::kTooFew) out[0] = out[1] = -inf;
        if (r.kind == Kind::kNan) out[0] = out[1] = out[2] = __builtin_nan("");
      }
    });
  }

  void mean(int64_t first, int64_t last) {
    run(first, last, [&](int64_t row, int64_t count) {
      tree.down(k, false);
      write(row, count, [](const E& on, const E& off, const E*, const E*, E) { return on / (on + off); });
    });
  }

  void covariance(int64_t first, int64_t last) {
    run(first, last, [&](int64_t row, int64_t count) {
      for (int64_t lane = 0; lane < count; ++lane) read_grad((const T*)call.grad + (row + lane) * call.n, lane);
      tree.up_slopes((const E*)slope.at);
      tree.down(k, true);
      write(row, count, [](const E& on, const E& off, const E* out, const E* d_out, E g) {
        const E one = out[1] == 0 ? E{} : d_out[1] / out[1], zero = out[0] == 0 ? E{} : d_out[0] / out[0];
        const E total = on + off;
        return on / total * (off / total) * (g + one - zero);
      });
    });
  }

  void sample(int64_t first, int64_t last) {
    const uint64_t seed = *(const uint64_t*)call.seed;
    const Key key = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    run(first, last, [&](int64_t row, int64_t count) {
      for (int64_t lane = 0; lane < count; ++lane)
        for (int64_t stream = 0; stream < call.samples; ++stream) {
          T* const z = (T*)call.out + (stream * call.rows + row + lane) * call.n;
          const Row& r = bits.rows[lane];
          const bool nan = r.kind == Kind::kNan || r.infinite;
          for (int64_t i = 0; i < call.n; ++i) z[i] = nan ? T(__builtin_nan("")) : T(0);
          if (nan || r.kind == Kind::kTooFew) continue;
          const uint64_t id = call.ids ? (uint64_t)call.ids[row + lane] : (uint64_t)(row + lane);
          Descent<T, kRows>{tree, lane, key, (uint32_t)id, (uint32_t)(id >> 32), (uint32_t)stream, z}.draw(tree.shape.depth, 0, r.k);
        }
    });
  }

 private:
  // The vector less its mean over the bits: the product is the same, and few digits cancel.
  void read_grad(const T* from, int64_t lane) {
    double sum = 0, spread = 0;
    for (int64_t i = 0; i < call.n; ++i) {
      const T v = *bits.item(bits.on.at, i, lane) * *bits.item(bits.off.at, i, lane);
      sum += v * from[i], spread += v;
    }
    const double centre = spread == 0 ? 0 : sum / spread;
    for (int64_t i = 0; i < call.n; ++i) {
      const T g = T(from[i] - centre);
      *bits.item(grad.at, i, lane) = g;
      *bits.item(slope.at, i, lane) = *bits.item(bits.on.at, i, lane) * *bits.item(bits.off.at, i, lane) * g;
    }
  }

  // A number for each item from the probabilities that it is in and that it is not.
  template <class Number>
  void write(int64_t row, int64_t count, Number number) {
    const int64_t width = tree.shape.width(0);
    for (int64_t i = 0; i < call.n; ++i) {
      E value{};
      if (width == 2) {
        const E* const out = (const E*)tree.outside.at + i * width;
        const E* const d_out = (const E*)tree.d_outside.at + i * width;
        const E g = grad.at ? ((const E*)grad.at)[i] : E{};
        value = number(((const E*)bits.on.at)[i] * out[1], ((const E*)bits.off.at)[i] * out[0], out, d_out, g);
      }
      for (int64_t lane = 0; lane < count; ++lane) {
        T v;
        __builtin_memcpy(&v, (const char*)&value + lane * sizeof(T), sizeof(T));
        const Kind kind = bits.rows[lane].kind;
        v = kind == Kind::kOrdinary ? v : kind == Kind::kTooFew ? T(0) : T(__builtin_nan(""));
        ((T*)call.out)[(row + lane) * call.n + i] = v;
      }
    }
  }

  const Subset& call;
  Bits bits;
  TreeOf tree;
  int64_t k[kLanesOfRows];
  Memory<T> grad, slope;
};

template <class Body, class T, bool kRows>
bool with(const Subset& call, const Shape& shape, int64_t first, int64_t last) {
  Rows<T, kRows> rows(call, shape);
  if (!rows.take_room(Body::kOutside, Body::kSlopes)) return false;
  Body::run(rows, first, last);
  return true;
}

template <class Body>
bool each(const Subset& call, int64_t first, int64_t last) {
  const Shape shape(call.n, call.most);
  const auto run = shape.total <= kShort ? (call.storage == kFloat32 ? with<Body, float, true> : with<Body, double, true>)
                                         : (call.storage == kFloat32 ? with<Body, float, false> : with<Body, double, false>);
  return run(call, shape, first, last);
}

#define OPERATION(Name, name, outside, slopes)                       \
  struct Name {                                                      \
    static constexpr bool kOutside = outside, kSlopes = slopes;      \
    template <class R>                                               \
    static void run(R& rows, int64_t first, int64_t last) { rows.name(first, last); } \
  };
OPERATION(Normalizer, normalizer, false, false)
OPERATION(Mean, mean, true, false)
OPERATION(Covariance, covariance, true, true)
OPERATION(Sample, sample, false, false)

}  // namespace

extern const SubsetOperations SOFTDRAW_ISA;
const SubsetOperations SOFTDRAW_ISA = {each<Normalizer>, each<Mean>, each<Covariance>, each<Sample>};

}  // namespace subset
}  // namespace softdraw
