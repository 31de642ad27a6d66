// The C interface of passes without noise: what one pass over rows of logits is told. Fields are 64 bits wide, as those of
// call.h are, and a change of this file makes another ABI number too.
//
// Rows follow one another and so do their columns. An operand with fewer rows than the pass is read again from its first:
// its row is r % (its rows).
#pragma once
#include "call.h"

namespace softdraw {

struct Pass {
  void* out;            // forward: a number a row, or what they reduce to, in the dtype of the computation; backward: the
                        // gradient of in
  void* other_out;      // backward: the gradient of other; null: nobody wants it
  const void* in;       // logits
  const void* other;    // the second operand: a target, or other logits
  const uint8_t* mask;        // of in: 1 = allowed; null: everything is
  const uint8_t* other_mask;  // of other
  const uint8_t* keep;        // 1 = the row counts; null: every row does. Others are not read, and give 0
  const void* weight;   // of a row, in the dtype of the computation; null: 1
  const int64_t* index;       // a category a row; drawn_backward: of each sample of each row, -1 for none
  const void* grad;     // the gradient that arrives, a number for each of out, in the dtype of the computation;
                        // drawn_backward: of the log-probability of every sample, and then of the entropy
  double* saved;        // from forward to backward: Saved
  double scale, shift;  // of the operation; the gradient that arrives is multiplied by scale
  int64_t rows, cols;
  int64_t in_rows, other_rows, grad_rows;  // the rows that in, other (each with its mask) and grad have; drawn_backward:
                                           // grad has (samples + 1) rows of them
  int64_t storage, other_storage;          // of in and other; each gradient has that of its operand
  int64_t check;      // what the rows of the second operand must be, a Check; of usage, a UsageLoss
  int64_t reduction;  // of the numbers of rows, or of the losses of groups
  int64_t groups;     // parts of the rows, one after the other: those of each have a mean law of their own
  int64_t threads;  // at most this many work at once
};

// What rows keep for the backward pass, in the dtype of the computation: a number a row of the first kind, then those of the
// next. Where the pass reduces, these come after what it reduced, a number a row, and what the sum was divided by.
struct Saved {
  const Pass& pass;
  double *value, *divisor;  // where the pass reduces
  explicit Saved(const Pass& pass) : pass(pass), value(pass.saved), divisor(pass.saved + pass.rows) {}
  template <class T>
  T* kept(int64_t kind) const {
    return (T*)(pass.saved + (pass.reduction ? pass.rows + 1 : 0)) + kind * pass.rows;
  }
};

// Those of the passes over the usage of categories: a number for each category of each group, up to the next multiple of
// 16, and two for each row.
struct UsageSaved {
  int64_t stride;
  double *divisor, *slopes;
  const Pass& pass;
  explicit UsageSaved(const Pass& pass)
      : stride((pass.cols + 15) / 16 * 16),
        divisor(pass.saved),
        slopes(divisor + 1),
        pass(pass) {}
  double* slope(int64_t group) const { return slopes + group * stride; }
  template <class T>
  T* kept(int64_t kind) const {
    return (T*)(slopes + pass.groups * stride) + kind * pass.rows;
  }
};

// Of the balance, `other` are the choices of each group, in the dtype of the computation; null: the largest logits.
enum UsageLoss : int64_t { kDiversity = 0, kBalance = 1 };

// A distribution has elements from 0 to 1 that sum to 1, give or take shift.
enum Check : int64_t { kAnything = 0, kOneHot = 1, kDistribution = 2 };

static_assert(std::is_standard_layout<Pass>::value && sizeof(Pass) == 24 * 8, "the fields of Pass are 24 words of 64 bits");
static_assert(offsetof(Pass, scale) == 11 * 8 && offsetof(Pass, rows) == 13 * 8, "pointers, then numbers, then integers");

// Does rows [first, last). False: a value is not one that the kernels know, such as a row without a finite largest logit
// or a target out of range; then nothing that the pass wrote counts, and plain torch does it all.
using PassOperation = bool (*)(const Pass&, int64_t first, int64_t last);

// The same for rows of one group; `sums` are cols of the laws, cols of the choices, and one of the weights.
using UsageOperation = bool (*)(const Pass&, int64_t group, int64_t first, int64_t last, double* sums);

struct Passes {
  PassOperation entropy, entropy_backward, index_nll, index_nll_backward, nll, nll_backward, kl, kl_backward, drawn_backward;
  UsageOperation usage, usage_backward;
};

}  // namespace softdraw
