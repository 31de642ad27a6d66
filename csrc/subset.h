// The C interface of laws of k of n items: what one call is told. Fields are 64 bits wide, as those of call.h are.
//
// Logits are in the dtype of the computation, -inf where forbidden, and rows follow one another.
#pragma once
#include "call.h"

namespace softdraw {

struct Subset {
  void* out;            // normalizer: three doubles a row, log Z, log q_k and the tilt; else rows of items, as in has them
  const void* in;       // logits
  const void* grad;     // covariance: the vector that it is multiplied with
  const int64_t* each;  // k of each row; null: most
  const int64_t* seed;  // sample
  const int64_t* ids;   // sample: the id of each row; null: 0, 1, 2, ...
  int64_t rows, n;
  int64_t most;     // the largest k
  int64_t storage;  // float or double
  int64_t samples;  // sample: streams 0 .. samples - 1, each with all rows
  int64_t threads;  // at most this many work at once
};

static_assert(std::is_standard_layout<Subset>::value && sizeof(Subset) == 12 * 8, "the fields of Subset are 12 words of 64 bits");
static_assert(offsetof(Subset, rows) == 6 * 8, "pointers, then integers");

// Works on rows [first, last); false: there was no memory to work in.
using SubsetOperation = bool (*)(const Subset&, int64_t first, int64_t last);

struct SubsetOperations {
  SubsetOperation normalizer, mean, covariance, sample;
};

// Rows that are worked on together, where they are small: the lanes of 64 bytes, on every instruction set.
constexpr int64_t kTogether = 16;

}  // namespace softdraw
