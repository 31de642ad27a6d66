// Makes the calls that tools/record_vectors recorded of a library that may be for another system, and compares.
//   replay_vectors VECTORS LIBRARY
// Ends with 0 if all results are equal: integers exactly, numbers to some units of their last place times the largest.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
static void* open_library(const char* path) { return (void*)LoadLibraryA(path); }
static void* find(void* library, const char* name) { return (void*)GetProcAddress((HMODULE)library, name); }
#else
#include <dlfcn.h>
static void* open_library(const char* path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL); }
static void* find(void* library, const char* name) { return dlsym(library, name); }
#endif

enum Kind { kFloat32, kFloat64, kBFloat16, kFloat16, kInt64 };  // then bytes
typedef int64_t (*Operation)(const void* call, const void* layout);

static int64_t* words;  // what is left of the file

static int64_t next(void) { return *words++; }

static int64_t* skip(int64_t bytes) {
  int64_t* here = words;
  words += (bytes + 7) / 8;
  return here;
}

static double half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 31  ? (fraction ? NAN : INFINITY)
                      : exponent == 0 ? ldexp(fraction, -24)
                                      : ldexp(1024 + fraction, exponent - 25);
  return bits >> 15 ? -size : size;
}

static double element(const void* data, int64_t kind, int64_t i) {
  float narrow;
  uint32_t bits;
  switch (kind) {
    case kFloat32: return ((const float*)data)[i];
    case kFloat64: return ((const double*)data)[i];
    case kFloat16: return half(((const uint16_t*)data)[i]);
    default:
      bits = (uint32_t)((const uint16_t*)data)[i] << 16;
      memcpy(&narrow, &bits, sizeof narrow);
      return narrow;
  }
}

// Whether what was written is what was recorded, to the precision of `computed`, which is that of float32 for doubles that
// were summed from float32 numbers; sums up how many results have the same bits.
static int equal(const void* got, const void* want, int64_t kind, int64_t computed, int64_t bytes, int64_t* same,
                 int64_t* all) {
  static const double close[] = {4e-6, 1e-13, 0x1p-7, 0x1p-10};
  *same += memcmp(got, want, (size_t)bytes) == 0;
  ++*all;
  if (kind >= kInt64) return memcmp(got, want, (size_t)bytes) == 0;
  const int64_t count = bytes / (kind == kFloat32 ? 4 : kind == kFloat64 ? 8 : 2);
  double largest = 0;
  for (int64_t i = 0; i < count; ++i)
    if (isfinite(element(want, kind, i))) largest = fmax(largest, fabs(element(want, kind, i)));
  for (int64_t i = 0; i < count; ++i) {
    const double a = element(got, kind, i), b = element(want, kind, i);
    if (a != b && !(isnan(a) && isnan(b)) && !(fabs(a - b) <= close[computed] * largest)) return 0;
  }
  return 1;
}

static int replay(void* library, int64_t* same, int64_t* all) {
  char name[64] = "softdraw_";
  memcpy(name + 9, skip(32), 32);
  const int64_t layout_words = next();
  const int64_t* layout = skip(8 * layout_words);
  int64_t call[32];
  const int64_t call_words = next();
  memcpy(call, skip(8 * call_words), 8 * (size_t)call_words);
  const int64_t returned = next(), count = next();
  void* made[16];
  int64_t logits = kFloat64;  // their kind, in word 1 of a call, or of one without it in word 0
  struct {
    int64_t kind, bytes;
    const void* want;
  } operands[16];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t places = next(), kind = next(), written = next(), bytes = next();
    made[i] = malloc((size_t)bytes + 64);
    memcpy(made[i], skip(bytes), (size_t)bytes);
    for (int word = 0; word < call_words; ++word)
      if (places >> word & 1) call[word] = (int64_t)(intptr_t)made[i];
    operands[i].kind = kind, operands[i].bytes = bytes;
    if (places & 3) logits = kind;
    operands[i].want = written ? skip(bytes) : NULL;
  }
  Operation operation = (Operation)find(library, name);
  if (!operation) return printf("%s is not there\n", name), 0;
  const int64_t got = operation(call, layout_words ? layout : NULL);
  int right = returned < 0 || got == returned;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t kind = operands[i].kind, computed = kind == kFloat64 && logits != kFloat64 ? kFloat32 : kind;
    if (operands[i].want) right &= equal(made[i], operands[i].want, kind, computed, operands[i].bytes, same, all);
    free(made[i]);
  }
  if (!right) printf("%s differs\n", name);
  return right;
}

int main(int argc, char** argv) {
  if (argc != 3) return fprintf(stderr, "usage: replay_vectors VECTORS LIBRARY\n"), 2;
  FILE* file = fopen(argv[1], "rb");
  if (!file) return fprintf(stderr, "%s cannot be read\n", argv[1]), 2;
  fseek(file, 0, SEEK_END);
  const long size = ftell(file);
  rewind(file);
  words = malloc((size_t)size);
  if (!words || fread(words, 1, (size_t)size, file) != (size_t)size) return 2;
  void* library = open_library(argv[2]);
  if (!library) return fprintf(stderr, "%s does not load\n", argv[2]), 2;
  int64_t wrong = 0, same = 0, all = 0;
  const int64_t calls = next();
  for (int64_t i = 0; i < calls; ++i) wrong += !replay(library, &same, &all);
  const char* isa = ((const char* (*)(void))find(library, "softdraw_isa"))();
  printf("%s: %lld of %lld calls right; %lld of %lld results have the same bits\n", isa, (long long)(calls - wrong),
         (long long)calls, (long long)same, (long long)all);
  return wrong != 0;
}
