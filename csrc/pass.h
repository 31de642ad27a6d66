// The C interface of passes without noise: what one pass over rows of logits is told. Fields are 64 bits wide, as those of
// call.h are, and a change of this file makes another ABI number too.
//
// Rows follow one another and so do their columns. An operand with fewer rows than the pass is read again from its first:
// its row is r % (its rows).
#pragma once
#include "call.h"

namespace softdraw {

struct Pass {
  void* out;            // forward: a number a row, in the dtype of the computation; backward: the gradient of in
  void* other_out;      // backward: the gradient of other; null: nobody wants it
  const void* in;       // logits
  const void* other;    // the second operand: a target, or other logits
  const uint8_t* mask;        // of in: 1 = allowed; null: everything is
  const uint8_t* other_mask;  // of other
  const uint8_t* keep;        // 1 = the row counts; null: every row does. Others are not read, and give 0
  const int64_t* index;       // a category a row; drawn_backward: of each sample of each row, -1 for none
  const void* grad;     // the gradient that arrives, a number a row, in the dtype of the computation; drawn_backward: of the
                        // log-probability of every sample, and then of the entropy
  double* saved;        // from forward to backward: the logsumexp of a row, and what else its operation keeps
  double scale, shift;  // of the operation; the gradient that arrives is multiplied by scale
  int64_t rows, cols;
  int64_t in_rows, other_rows, grad_rows;  // the rows that in, other (each with its mask) and grad have; drawn_backward:
                                           // grad has (samples + 1) rows of them
  int64_t storage, other_storage;          // of in and other; each gradient has that of its operand
  int64_t check;    // what the rows of the second operand must be, a Check
  int64_t threads;  // at most this many work at once
};

// A distribution has elements from 0 to 1 that sum to 1, give or take shift.
enum Check : int64_t { kAnything = 0, kOneHot = 1, kDistribution = 2 };

static_assert(std::is_standard_layout<Pass>::value && sizeof(Pass) == 21 * 8, "the fields of Pass are 21 words of 64 bits");
static_assert(offsetof(Pass, scale) == 10 * 8 && offsetof(Pass, rows) == 12 * 8, "pointers, then numbers, then integers");

// Does rows [first, last). False: a value is not one that the kernels know, such as a row without a finite largest logit
// or a target out of range; then nothing that the pass wrote counts, and plain torch does it all.
using PassOperation = bool (*)(const Pass&, int64_t first, int64_t last);

struct Passes {
  PassOperation entropy, entropy_backward, index_nll, index_nll_backward, nll, nll_backward, kl, kl_backward, drawn_backward;
};

}  // namespace softdraw
