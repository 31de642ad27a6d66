// Exact subsets: a descent of the product tree, one 64-bit uniform a node (softdraw/kernels/reference/subset.py).
#pragma once
#include "philox.h"
#include "subset_tree.h"

namespace {

// The first two words of one counter. Nodes are drawn one after the other, so there are no counters to put side by side.
inline void two_words(uint32_t out[2], uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, Key key) {
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = (uint64_t)c0 * kMultiplier0, p1 = (uint64_t)c2 * kMultiplier1;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ key.low, c2 = (uint32_t)(p0 >> 32) ^ c3 ^ key.high;
    c1 = (uint32_t)p1, c3 = (uint32_t)p0;
    key.low += kWeyl0, key.high += kWeyl1;
  }
  out[0] = c0, out[1] = c1;
}

template <class T, bool kRows>
struct Descent {
  static constexpr int64_t kStep = TiltedBits<T, kRows>::kLanesOfRows;  // from one coefficient to the next

  // Puts a 1 at each item that is chosen: `held` of the items of node i of level l.
  void draw(int l, int64_t i, int64_t held) {
    if (held == 0) return;
    const int64_t begin = i << l, size = tree.shape.size(l, i);
    if (held >= size) {
      for (int64_t item = begin; item < begin + size; ++item) z[item] = T(1);
      return;
    }
    const int64_t left = 2 * i + 1 < tree.shape.count(l - 1) ? split(l, i, held) : held;
    draw(l - 1, 2 * i, left);
    if (held > left) draw(l - 1, 2 * i + 1, held - left);
  }

  // How many of them are in the left half. The uniform is read from the end that it is nearer to, and so are the weights.
  int64_t split(int l, int64_t i, int64_t held) {
    const T* const left = (const T*)tree.node(tree.polynomials, l - 1, 2 * i) + lane;
    const T* const right = (const T*)tree.node(tree.polynomials, l - 1, 2 * i + 1) + lane;
    const Range a = tree.range(l - 1, 2 * i), b = tree.range(l - 1, 2 * i + 1);
    const int64_t low = greater(a.low, held - b.high), high = lesser(a.high, held - b.low);
    uint32_t words[2];
    const int64_t middle = (i << l) + (int64_t(1) << (l - 1));
    two_words(words, (uint32_t)middle, row_low, row_high, stream, key);
    const bool from_above = words[0] >> 31;
    if (from_above) words[0] = ~words[0], words[1] = ~words[1];
    const T u = (T(words[0]) + (T(words[1]) + T(0.5)) * T(0x1p-32)) * T(0x1p-32);
    const int64_t first = from_above ? high : low, last = from_above ? low : high, step = from_above ? -1 : 1;
    double total = 0;
    for (int64_t j = first; j != last + step; j += step) total += left[j * kStep] * right[(held - j) * kStep];
    const T threshold = u * T(total);
    double sum = 0;
    for (int64_t j = first; j != last; j += step) {
      sum += left[j * kStep] * right[(held - j) * kStep];
      if (T(sum) > threshold) return j;
    }
    return last;
  }

  Tree<T, kRows>& tree;
  int64_t lane;
  Key key;
  uint32_t row_low, row_high, stream;
  T* z;
};

}  // namespace
