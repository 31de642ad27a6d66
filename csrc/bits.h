// The C interface of passes over bits: what one pass over the logits of Bernoulli laws is told. Fields are 64 bits wide,
// as those of call.h are.
//
// Elements follow one another in every operand. "Wide" is the dtype of the computation: double for double, else float.
#pragma once
#include "call.h"

namespace softdraw {

enum Allowed : int64_t { kAnyNumber = 0, kUnitInterval = 1, kZeroOrOne = 2 };

struct Bits {
  void* out;               // forward: a number for each element, or the reduced one; backward: the gradient of in
  void* other_out;         // backward: the gradient of other, wide; null: nobody wants it
  const void* in;          // logits
  const void* other;       // targets, values or other logits, wide; null where there are none
  const void* grad;        // the gradient that arrives, as out has it
  const void* weight;      // of each element, wide; null: 1
  const void* pos_weight;  // of each element, wide; null: number
  const uint8_t* mask;     // 1 = counted; null: everything is
  double* saved;           // from forward to backward: two for each row, a weighted sum (nll) or mean (share) over its
                           // elements and the sum of weights; then what a mean is divided by. Null: of nll, where
                           // neither weights nor a mask make that another number than that of the elements
  double number;           // pos_weight; the share that a row should have
  int64_t rows, cols;      // a pass without rows of its own has one
  int64_t storage;         // of in and its gradient
  int64_t wide;            // whether out and grad of single elements are wide; otherwise they are stored as in
  int64_t law;             // whether the negative log-likelihood is that of a law: its sign turns, and a bit that is
                           // certain has no gradient
  int64_t allowed;         // what other may be
  int64_t one_grad;        // whether grad is one number for all elements
  int64_t reduction;
  int64_t threads;  // at most this many work at once
};

static_assert(std::is_standard_layout<Bits>::value && sizeof(Bits) == 19 * 8, "the fields of Bits are 19 words of 64 bits");
static_assert(offsetof(Bits, number) == 9 * 8 && offsetof(Bits, rows) == 10 * 8, "pointers, a number, then integers");

// Works on elements [first, last). `sums` are two numbers for each row that they are in, and are added to. False: an
// element of other is not allowed.
using BitsOperation = bool (*)(const Bits&, int64_t first, int64_t last, double* sums);

struct BitsOperations {
  BitsOperation nll, nll_backward, entropy, entropy_backward, variance, variance_backward, kl, kl_backward, share, share_backward;
};

}  // namespace softdraw
