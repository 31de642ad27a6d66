// What an x86-64 processor, and the system that it runs, can do. __builtin_cpu_supports would say the same, but in the
// runtime library of zig, which builds the wheels, it answers no to everything.
#pragma once
#include <cpuid.h>

namespace softdraw {

struct Processor {
  bool v2, v3, v4;  // the levels of x86-64, as far as the kernels' instructions go

  Processor() {
    unsigned a, b = 0, c = 0, d, features = 0, c7, d7, xcr0 = 0;
    __get_cpuid(1, &a, &b, &c, &d);
    __get_cpuid_count(7, 0, &a, &features, &c7, &d7);
    if (c >> 27 & 1) __asm__("xgetbv" : "=a"(xcr0), "=d"(d) : "c"(0));  // which registers the system keeps for a thread
    const auto has = [](unsigned word, unsigned bits) { return (word & bits) == bits; };
    v2 = has(c, kSse42 | kPopcnt);
    v3 = v2 && has(xcr0, kYmm) && has(c, kAvx | kFma) && has(features, kBmi | kAvx2 | kBmi2);
    v4 = v3 && has(xcr0, kZmm) && has(features, kAvx512f | kAvx512dq | kAvx512cd | kAvx512bw | kAvx512vl);
  }

 private:
  // Of leaf 1 in ECX, of leaf 7 in EBX, of XCR0.
  static constexpr unsigned kFma = 1u << 12, kSse42 = 1u << 20, kPopcnt = 1u << 23, kAvx = 1u << 28;
  static constexpr unsigned kBmi = 1u << 3, kAvx2 = 1u << 5, kBmi2 = 1u << 8, kAvx512f = 1u << 16, kAvx512dq = 1u << 17,
                            kAvx512cd = 1u << 28, kAvx512bw = 1u << 30, kAvx512vl = 1u << 31;
  static constexpr unsigned kYmm = 0x6, kZmm = 0xE6;
};

}  // namespace softdraw
