// The product tree of k of n items: polynomials of the nodes up to the degree k, their outsides, and derivatives of both
// along a vector (softdraw/kernels/reference/subset.py has the mathematics).
//
// Node i of a level l covers the items from i 2^l on. E is a vector of rows side by side, or one number of a row alone;
// only a row alone has its polynomials trimmed to what is not tiny, which is a band around the expected number of ones.
#pragma once
#include "subset_bits.h"

namespace {

struct Shape {
  Shape(int64_t n, int64_t most) : n(n), most(most) {
    while ((int64_t(1) << depth) < n) ++depth;
    for (int l = 0; l <= depth; ++l) {
      at[l] = total, first[l] = nodes;
      total += count(l) * width(l), nodes += count(l);
      widest = greater(widest, count(l) * width(l));
    }
  }
  int64_t count(int l) const { return (n + (int64_t(1) << l) - 1) >> l; }
  int64_t width(int l) const { return lesser(int64_t(1) << l, most) + 1; }  // coefficients of a node
  int64_t size(int l, int64_t i) const { return lesser(int64_t(1) << l, n - (i << l)); }

  int64_t n, most, total = 0, nodes = 0, widest = 0;
  int depth = 0;
  int64_t at[64], first[64];  // where a level begins, in coefficients and in nodes
};

struct Range {
  int64_t low, high;
};

// out[j] += sum_a left[a] right[j - a] for j in `to`.
template <class T>
INLINE void add_product(Abreast<T>* out, Range to, const Abreast<T>* left, Range l, const Abreast<T>* right, Range r) {
  for (int64_t j = to.low; j <= to.high; ++j) {
    Abreast<T> sum = out[j];
    for (int64_t a = greater(l.low, j - r.high), end = lesser(l.high, j - r.low); a <= end; ++a) sum += left[a] * right[j - a];
    out[j] = sum;
  }
}
template <class T>
INLINE void add_product(T* __restrict out, Range to, const T* __restrict left, Range l, const T* __restrict right, Range r) {
  if (l.high - l.low > r.high - r.low) return add_product(out, to, right, r, left, l);
  for (int64_t a = l.low; a <= l.high; ++a) {
    const T factor = left[a];
    T* const o = out + a;
    for (int64_t b = r.low, end = lesser(r.high, to.high - a); b <= end; ++b) o[b] += factor * right[b];
  }
}

// out[a] += sum_b outer[a + b] other[b] for a in `to`.
template <class T>
INLINE void add_correlation(Abreast<T>* out, Range to, const Abreast<T>* outer, Range o, const Abreast<T>* other, Range r) {
  for (int64_t a = to.low; a <= to.high; ++a) {
    Abreast<T> sum = out[a];
    for (int64_t b = greater(r.low, o.low - a), end = lesser(r.high, o.high - a); b <= end; ++b) sum += outer[a + b] * other[b];
    out[a] = sum;
  }
}
template <class T>
INLINE void add_correlation(T* __restrict out, Range to, const T* __restrict outer, Range o, const T* __restrict other, Range r) {
  for (int64_t b = r.low; b <= r.high; ++b) {
    const T factor = other[b];
    const T* const from = outer + b;
    for (int64_t a = greater(to.low, o.low - b), end = lesser(to.high, o.high - b); a <= end; ++a) out[a] += factor * from[a];
  }
}

// What a coefficient is: a vector of rows, or one number.
template <class T, bool kRows>
struct Element {
  using type = Abreast<T>;
};
template <class T>
struct Element<T, false> {
  using type = T;
};

template <class T, bool kRows>
struct Tree {
  using Bits = TiltedBits<T, kRows>;
  using V = Abreast<T>;
  using E = typename Element<T, kRows>::type;
  static constexpr int kLanesOfRows = Bits::kLanesOfRows;

  explicit Tree(const Shape& shape) : shape(shape) {
    has_room = ranges.take(shape.nodes) && polynomials.take(shape.total * kLanesOfRows);
  }

  // Whether there is memory for what `down` writes, and with `with_slopes` for what `up_slopes` does.
  bool take_room(bool with_slopes) {
    const int64_t room = shape.widest * kLanesOfRows;
    if (!outside.take(room) || !below.take(room)) return false;
    return !with_slopes || (slopes.take(shape.total * kLanesOfRows) && d_outside.take(room) && d_below.take(room));
  }

  E* node(Memory<T>& of, int l, int64_t i) const { return (E*)of.at + shape.at[l] + i * shape.width(l); }
  Range& range(int l, int64_t i) { return ranges.at[shape.first[l] + i]; }

  static void copy(E* to, const E* from, Range r) {
    for (int64_t j = r.low; j <= r.high; ++j) to[j] = from[j];
  }
  static void clear(E* at, Range r) {
    for (int64_t j = r.low; j <= r.high; ++j) at[j] = E{};
  }
  static E without_tiny(E v) { return v < kTiny<T, kRows> ? E{} : v; }

  void up(const Bits& bits) {
    const int64_t high = lesser(1, shape.most);
    for (int64_t i = 0; i < shape.n; ++i) {
      E* const leaf = node(polynomials, 0, i);
      leaf[0] = ((const E*)bits.off.at)[i];
      if (high) leaf[1] = ((const E*)bits.on.at)[i];
      range(0, i) = {0, high};
    }
    for (int l = 1; l <= shape.depth; ++l)
      for (int64_t i = 0; i < shape.count(l); ++i) multiply(l, i);
  }

  void multiply(int l, int64_t i) {
    E* const out = node(polynomials, l, i);
    const E* const left = node(polynomials, l - 1, 2 * i);
    const Range a = range(l - 1, 2 * i);
    Range& to = range(l, i);
    if (2 * i + 1 == shape.count(l - 1)) {  // what lies beyond n is never chosen
      copy(out, left, a);
      to = a;
      return;
    }
    const E* const right = node(polynomials, l - 1, 2 * i + 1);
    const Range b = range(l - 1, 2 * i + 1);
    to = {lesser(a.low + b.low, shape.most), lesser(a.high + b.high, shape.most)};
    clear(out, to);
    add_product<T>(out, to, left, a, right, b);
    for (int64_t j = to.low; j <= to.high; ++j) out[j] = without_tiny(out[j]);
    if constexpr (!kRows) {
      while (to.low < to.high && out[to.low] == 0) ++to.low;
      while (to.high > to.low && out[to.high] == 0) --to.high;
    }
  }

  // The derivatives of the polynomials where the probabilities of ones change by `slope`, an element an item.
  void up_slopes(const E* slope) {
    slopes.take(shape.total * kLanesOfRows);
    for (int64_t i = 0; i < shape.n; ++i) {
      E* const leaf = node(slopes, 0, i);
      leaf[0] = -slope[i];
      if (shape.most) leaf[1] = slope[i];
    }
    for (int l = 1; l <= shape.depth; ++l)
      for (int64_t i = 0; i < shape.count(l); ++i) {
        E* const out = node(slopes, l, i);
        const Range to = range(l, i), a = range(l - 1, 2 * i);
        const E* const d_left = node(slopes, l - 1, 2 * i);
        if (2 * i + 1 == shape.count(l - 1)) {
          copy(out, d_left, a);
          continue;
        }
        const Range b = range(l - 1, 2 * i + 1);
        add_within(out, to, d_left, a, node(polynomials, l - 1, 2 * i + 1), b);
        add_within(out, to, node(polynomials, l - 1, 2 * i), a, node(slopes, l - 1, 2 * i + 1), b);
      }
  }

  // A product of which only what lies in `to` is wanted: a trimmed node leaves the rest out.
  void add_within(E* out, Range to, const E* left, Range l, const E* right, Range r) {
    if constexpr (kRows) {
      add_product<T>(out, to, left, l, right, r);
    } else {
      for (int64_t a = l.low; a <= l.high; ++a)
        for (int64_t b = greater(r.low, to.low - a), end = lesser(r.high, to.high - a); b <= end; ++b)
          out[a + b] += left[a] * right[b];
    }
  }

  // The outsides of the leaves, `width(0)` elements each, and with `with_slopes` their derivatives. `root` is 1 at the k of
  // each row.
  void down(const int64_t* k, bool with_slopes) {
    const int64_t room = shape.widest * kLanesOfRows;
    outside.take(room), below.take(room);
    if (with_slopes) d_outside.take(room), d_below.take(room);
    for (int lane = 0; lane < kLanesOfRows; ++lane)
      if (k[lane] < shape.width(shape.depth)) outside.at[k[lane] * kLanesOfRows + lane] = T(1);
    for (int l = shape.depth; l > 0; --l) {
      for (int64_t i = 0; i < shape.count(l); ++i) divide(l, i, with_slopes);
      exchange(outside.at, below.at), exchange(d_outside.at, d_below.at);
    }
  }

  static void exchange(T*& a, T*& b) {
    T* const held = a;
    a = b, b = held;
  }

  void divide(int l, int64_t i, bool with_slopes) {
    const Range o = range(l, i);
    const int64_t from = i * shape.width(l), width = shape.width(l - 1);
    const E *outer = (E*)outside.at + from, *d_outer = (E*)d_outside.at + from;
    for (int side = 0; side < 2; ++side) {
      const int64_t child = 2 * i + side, sibling = child ^ 1;
      if (child >= shape.count(l - 1)) return;
      const Range to = range(l - 1, child);
      E *out = (E*)below.at + child * width, *d_out = (E*)d_below.at + child * width;
      clear(out, {0, width - 1});
      if (with_slopes) clear(d_out, {0, width - 1});
      if (sibling >= shape.count(l - 1)) {
        copy(out, outer, to);
        if (with_slopes) copy(d_out, d_outer, to);
        return;
      }
      const Range r = range(l - 1, sibling);
      const E* const other = node(polynomials, l - 1, sibling);
      add_correlation<T>(out, to, outer, o, other, r);
      for (int64_t a = to.low; a <= to.high; ++a) out[a] = without_tiny(out[a]);
      if (!with_slopes) continue;
      add_correlation<T>(d_out, to, d_outer, o, other, r);
      add_correlation<T>(d_out, to, outer, o, node(slopes, l - 1, sibling), r);
    }
  }

  Shape shape;
  bool has_room;
  Memory<Range> ranges;
  Memory<T> polynomials, slopes, outside, below, d_outside, d_below;
};

}  // namespace
