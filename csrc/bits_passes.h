// The passes over bits: what each reads, makes of every element and writes, or adds up.
#pragma once
#include "bit.h"
#include "bits.h"
#include "storage.h"

namespace {

using softdraw::Bits;

// Calls body(i, m) for the vectors of elements [first, last): m elements are there, all of them but in the last one.
template <int N, class Body>
INLINE void each_vector(int64_t first, int64_t last, Body body) {
  int64_t i = first;
  for (; i + N <= last; i += N) body(i, (int64_t)N);
  if (i < last) body(i, last - i);
}

template <class S, int N = kLanes<typename S::T>>
INLINE Vec<typename S::T, N> get(const void* data, int64_t i, int64_t m) {
  const auto* p = (const typename S::Raw*)data + i;
  return m == N ? read<S, N>(p) : read_part<S, N>(p, m);
}

template <class S, int N = kLanes<typename S::T>>
INLINE void put(void* data, int64_t i, int64_t m, Vec<typename S::T, N> x) {
  auto* p = (typename S::Raw*)data + i;
  if (m == N) write<S, N>(p, x);
  else write_part<S, N>(p, m, x);
}

// What all passes read. An element that the mask leaves out has logit, target and weight 0, and so have idle lanes.
// "Bare": there are no masks and no weights of elements, which saves loops most of their branches.
template <class S, bool kBare = false>
struct Elements {
  using T = typename S::T;
  static constexpr int N = kLanes<T>;
  using V = Vec<T, N>;
  using I = typename Bit<T, N>::I;
  using B = Bit<T, N>;
  using Wide = Plain<T>;

  explicit INLINE Elements(const Bits& bits) : bits(bits) {
    for (int i = 0; i < N; ++i) lane[i] = i;
  }

  INLINE I kept(int64_t i, int64_t m) const {
    using Bytes = Vec<uint8_t, N>;
    if (kBare || !bits.mask) return m == N ? ~I{} : lane < (typename Format<T>::Int)m;
    const auto* p = bits.mask + i;
    return __builtin_convertvector(m == N ? load<Bytes>(p) : load_part<Bytes>(p, m), I) != 0;
  }
  INLINE V x(I kept, int64_t i, int64_t m) const { return kept ? get<S>(bits.in, i, m) : V{}; }
  INLINE V other(I kept, int64_t i, int64_t m) const { return kept ? get<Wide>(bits.other, i, m) : V{}; }
  INLINE V weight(I kept, int64_t i, int64_t m) const {
    return kept ? (!kBare && bits.weight ? get<Wide>(bits.weight, i, m) : splat<V>(T(1))) : V{};
  }
  INLINE V pos_weight(int64_t i, int64_t m) const {
    return !kBare && bits.pos_weight ? get<Wide>(bits.pos_weight, i, m) : splat<V>((T)bits.number);
  }
  INLINE bool weighted() const { return !kBare && (bits.weight || bits.mask); }
  // The gradient that arrives at a row, or at what all rows were reduced to.
  double arriving(int64_t row) const {
    const double grad = ((const T*)bits.grad)[bits.reduction == softdraw::kNone ? row : 0];
    if (bits.reduction != softdraw::kMean) return grad;
    return grad / (bits.saved ? bits.saved[2 * bits.rows] : (double)(bits.rows * bits.cols));
  }
  // The gradient that arrives at each element, where a pass has reduced nothing.
  template <class Out>
  INLINE V grad(int64_t i, int64_t m) const {
    return bits.one_grad ? splat<V>(get<Out>(bits.grad, 0, 1)[0]) : get<Out>(bits.grad, i, m);
  }

  const Bits& bits;
  I lane;
};

INLINE bool bare(const Bits& bits) { return !bits.mask && !bits.weight && !bits.pos_weight; }

// Adds w * v and w up in double, in an order that threads do not change.
template <class T, int N>
struct Sums {
  INLINE void add(Vec<T, N> value, Vec<T, N> weight, bool weighted) {
    values.add(value);
    if (weighted) weights.add(weight);
  }
  INLINE void give(double* sums, bool weighted, int64_t count) const {
    sums[0] += values.total();
    sums[1] += weighted ? weights.total() : (double)count;
  }
  DoubleSum<T, N> values, weights;
};

// The negative log-likelihood of targets y: p y (-log sigmoid(x)) + (1 - y) (-log sigmoid(-x)), times w.
struct Nll {
  template <class S>
  static bool run(const Bits& bits, int64_t first, int64_t last, double* sums) {
    if (!bits.wide) return stored<S, S, false>(bits, first, last, sums);
    return bare(bits) ? stored<S, Plain<typename S::T>, true>(bits, first, last, sums)
                      : stored<S, Plain<typename S::T>, false>(bits, first, last, sums);
  }

  template <class S, class Out, bool kBare>
  static bool stored(const Bits& bits, int64_t first, int64_t last, double* sums) {
    using E = Elements<S, kBare>;
    using T = typename S::T;
    using V = typename E::V;
    using B = typename E::B;
    const E e(bits);
    const bool weighted = e.weighted(), each = bits.reduction == softdraw::kNone;
    typename E::I legal = ~typename E::I{};
    Sums<T, E::N> sum;
    each_vector<E::N>(first, last, [&](int64_t i, int64_t m) LAMBDA_INLINE {
      const auto kept = e.kept(i, m);
      const V y = e.other(kept, i, m), w = e.weight(kept, i, m);
      legal &= (bits.allowed == softdraw::kZeroOrOne) ? (y == 0) | (y == 1) : (y >= 0) & (y <= 1);
      const B bit(e.x(kept, i, m));
      const Costs<T, E::N> cost(bit);
      V loss = B::times_cost(e.pos_weight(i, m) * y, cost.one) + B::times_cost(T(1) - y, cost.zero);
      if (weighted) loss = B::times(w, loss);
      if (each) put<Out>(bits.out, i, m, bits.law ? T(0) - loss : loss);
      else sum.add(kept ? loss : V{}, w, weighted);
    });
    if (!each) sum.give(sums, weighted, last - first);
    return bits.allowed == softdraw::kAnyNumber || fold<typename Format<T>::Int, E::N>(legal, [](auto a, auto b) { return a & b; });
  }
};

struct NllBackward {
  template <class S>
  static bool run(const Bits& bits, int64_t first, int64_t last, double*) {
    if (!bits.wide) return stored<S, S, false>(bits, first, last);
    return bare(bits) ? stored<S, Plain<typename S::T>, true>(bits, first, last)
                      : stored<S, Plain<typename S::T>, false>(bits, first, last);
  }

  template <class S, class Out, bool kBare>
  static bool stored(const Bits& bits, int64_t first, int64_t last) {
    using E = Elements<S, kBare>;
    using T = typename S::T;
    using V = typename E::V;
    const E e(bits);
    const bool weighted = e.weighted(), each = bits.reduction == softdraw::kNone;
    const V one = splat<V>(each ? T(0) : (T)e.arriving(0));
    each_vector<E::N>(first, last, [&](int64_t i, int64_t m) LAMBDA_INLINE {
      const auto kept = e.kept(i, m);
      const V y = e.other(kept, i, m);
      const typename E::B bit(e.x(kept, i, m));
      V slope = (T(1) - y) * bit.on() - e.pos_weight(i, m) * y * bit.off();
      if (bits.law) slope = bit.certain() ? V{} : -slope;
      const V g = each ? e.template grad<Out>(i, m) : one;
      const V dx = slope * (weighted ? g * e.weight(kept, i, m) : g);
      put<S>(bits.out, i, m, kept ? dx : V{});
    });
    return true;
  }
};

// A function of one logit: its value for each element.
template <class Function>
struct Value {
  template <class S>
  static bool run(const Bits& bits, int64_t first, int64_t last, double*) {
    using E = Elements<S>;
    each_vector<E::N>(first, last, [&](int64_t i, int64_t m) LAMBDA_INLINE {
      put<S>(bits.out, i, m, Function::value(typename E::B(get<S>(bits.in, i, m))));
    });
    return true;
  }
};

template <class Function>
struct Slope {
  template <class S>
  static bool run(const Bits& bits, int64_t first, int64_t last, double*) {
    using E = Elements<S>;
    const E e(bits);
    each_vector<E::N>(first, last, [&](int64_t i, int64_t m) LAMBDA_INLINE {
      put<S>(bits.out, i, m, e.template grad<S>(i, m) * Function::slope(typename E::B(get<S>(bits.in, i, m))));
    });
    return true;
  }
};

struct EntropyOf {
  template <class B>
  static INLINE auto value(const B& bit) { return entropy_of(bit); }
  template <class B>
  static INLINE auto slope(const B& bit) { return entropy_slope(bit); }
};

struct VarianceOf {
  template <class B>
  static INLINE auto value(const B& bit) { return bit.variance(); }
  template <class B>
  static INLINE auto slope(const B& bit) { return bit.variance() * (bit.off() - bit.on()); }
};

// The divergence of the law of `in` from that of `other`, and the gradients for both.
struct Divergence {
  template <class S>
  static bool run(const Bits& bits, int64_t first, int64_t last, double*) {
    using E = Elements<S>;
    using B = typename E::B;
    each_vector<E::N>(first, last, [&](int64_t i, int64_t m) LAMBDA_INLINE {
      put<S>(bits.out, i, m, divergence_of(B(get<S>(bits.in, i, m)), B(get<typename E::Wide>(bits.other, i, m))));
    });
    return true;
  }
};

struct DivergenceBackward {
  template <class S>
  static bool run(const Bits& bits, int64_t first, int64_t last, double*) {
    using E = Elements<S>;
    using B = typename E::B;
    const E e(bits);
    each_vector<E::N>(first, last, [&](int64_t i, int64_t m) LAMBDA_INLINE {
      const B p(get<S>(bits.in, i, m)), q(get<typename E::Wide>(bits.other, i, m));
      const auto g = e.template grad<S>(i, m);
      if (bits.out) put<S>(bits.out, i, m, g * divergence_slope(p, q));
      if (bits.other_out) put<typename E::Wide>(bits.other_out, i, m, g * divergence_other_slope(p, q));
    });
    return true;
  }
};

// Calls body(row, start, end) for the part of each row that is among elements [first, last).
template <class Body>
INLINE void each_part(const Bits& bits, int64_t first, int64_t last, Body body) {
  for (int64_t start = first; start < last;) {
    const int64_t row = start / bits.cols, rest = (row + 1) * bits.cols, end = rest < last ? rest : last;
    body(row, start, end);
    start = end;
  }
}

// The sums of w sigmoid(x) and of w over each row, of which its share is made.
struct Share {
  template <class S>
  static bool run(const Bits& bits, int64_t first, int64_t last, double* sums) {
    return bare(bits) ? stored<S, true>(bits, first, last, sums) : stored<S, false>(bits, first, last, sums);
  }

  template <class S, bool kBare>
  static bool stored(const Bits& bits, int64_t first, int64_t last, double* sums) {
    using E = Elements<S, kBare>;
    const E e(bits);
    const bool weighted = e.weighted();
    each_part(bits, first, last, [&](int64_t, int64_t start, int64_t end) {
      Sums<typename S::T, E::N> sum;
      each_vector<E::N>(start, end, [&](int64_t i, int64_t m) LAMBDA_INLINE {
        const auto kept = e.kept(i, m);
        const auto w = e.weight(kept, i, m);
        sum.add(w * typename E::B(e.x(kept, i, m)).on(), w, weighted);
      });
      sum.give(sums, weighted, end - start);
      sums += 2;
    });
    return true;
  }
};

// Of (share - number)^2 for each row.
struct ShareBackward {
  template <class S>
  static bool run(const Bits& bits, int64_t first, int64_t last, double*) {
    return bare(bits) ? stored<S, true>(bits, first, last) : stored<S, false>(bits, first, last);
  }

  template <class S, bool kBare>
  static bool stored(const Bits& bits, int64_t first, int64_t last) {
    using E = Elements<S, kBare>;
    using T = typename S::T;
    using V = typename E::V;
    const E e(bits);
    each_part(bits, first, last, [&](int64_t row, int64_t start, int64_t end) {
      const double share = bits.saved[2 * row], weights = bits.saved[2 * row + 1];
      const V factor = splat<V>((T)(weights == 0 ? 0 : e.arriving(row) * 2 * (share - bits.number) / weights));
      each_vector<E::N>(start, end, [&](int64_t i, int64_t m) LAMBDA_INLINE {
        const auto kept = e.kept(i, m);
        const V dx = factor * e.weight(kept, i, m) * typename E::B(e.x(kept, i, m)).variance();
        put<S>(bits.out, i, m, kept ? dx : V{});
      });
    });
    return true;
  }
};

}  // namespace
