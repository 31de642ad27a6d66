// Walks the draws of a call in groups of rows, each with contiguous columns, and hands them to an operation's body.
#pragma once
#include "layout.h"
#include "narrow.h"

namespace {

// How many rows are worked on together: rows of few columns share vectors, and strided ones share cache lines. ``tiles``:
// the operation takes rows of this width in tiles, which may have a seed each.
inline int group_size(const Call& call, const Layout& layout, bool tiles) {
  if (tiles) return kMaxRows;
  if (!layout.one_seed()) return 1;
  if (call.cols < kNarrow) return kMaxRows;
  return call.cols <= 1 << 15 ? 16 : 1;
}

template <class S>
INLINE void describe(Row<S>& row, const Call& call, const Layout& layout, int64_t sample, int64_t index) {
  const auto* tau = (const typename S::T*)call.tau;
  const uint64_t seed = call.seed ? (uint64_t)call.seed[layout.offset(softdraw::kSeed, index)] : 0;
  const uint64_t id = call.ids ? (uint64_t)call.ids[layout.offset(softdraw::kIds, index)] : (uint64_t)index;
  row.noisy = call.seed != nullptr;
  row.stream = {{(uint32_t)seed, (uint32_t)(seed >> 32)},
                (uint32_t)id,
                (uint32_t)(id >> 32),
                (uint32_t)(call.stream + sample),
                (uint32_t)call.col_start};
  row.tau = tau ? tau[layout.offset(softdraw::kTau, index)] : (typename S::T)call.tau_value;
}

template <class S, class Body>
void each_group(const Call& call, const int64_t* packed, int64_t first, int64_t last) {
  using Raw = typename S::Raw;
  const Layout layout(call, packed);
  const int size = group_size(call, layout, Body::tiles(call.cols));
  Stage<Raw> in(layout, softdraw::kIn, call.in, call.cols, size), grad(layout, softdraw::kGrad, call.grad, call.cols, size);
  Stage<uint8_t> mask(layout, softdraw::kMask, call.mask, call.cols, size);
  Stage<Raw> out(layout, softdraw::kOut, Body::kDense ? call.out : nullptr, call.cols, size);
  Row<S> rows[kMaxRows];
  Body body(call);
  for (int64_t draw = first; draw < last;) {
    const int64_t sample = draw / call.rows, row = draw % call.rows, left = last - draw, ends = call.rows - row;
    int count = size < left ? size : (int)left;
    count = count < ends ? count : (int)ends;
    const int64_t part = sample * call.rows * call.cols;
    in.place(row, count), grad.place(row, count, part), mask.place(row, count), out.place(row, count, part);
    in.gather(), grad.gather(), mask.gather();
    for (int r = 0; r < count; ++r) {
      rows[r].in = in.row(r), rows[r].grad = grad.row(r), rows[r].mask = mask.row(r);
      // What is not dense has one number for each draw, in the dtype of the computation, or uses no out.
      rows[r].out = Body::kDense ? out.row(r) : (Raw*)((typename S::T*)call.out + draw + r);
      rows[r].index = call.index ? call.index + draw + r : nullptr;
      describe(rows[r], call, layout, sample, row + r);
    }
    body.run(rows, count);
    out.scatter();
    draw += count;
  }
}

}  // namespace
