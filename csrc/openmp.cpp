#include "openmp.h"

#ifdef __linux__
#include <pthread.h>
#include <time.h>

#include <mutex>
#include <vector>

namespace softdraw {
namespace {

thread_local Team team = nullptr;
thread_local int64_t size = 0;               // of the team that is known
thread_local std::vector<clockid_t> clocks;  // of its threads' processor time; none if it cannot be used
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { team = nullptr; });

constexpr size_t kWitnesses = 4;     // threads that are watched: they fall asleep together
constexpr size_t kStack = 1 << 18;   // bytes, several times what the kernels' blocks take; OMP_STACKSIZE may say less

struct Roll {
  pthread_t caller;
  std::mutex mutex;
  bool usable = true;
  std::vector<clockid_t> clocks;

  void sign() {
    const pthread_t self = pthread_self();
    clockid_t clock;
    pthread_attr_t attributes;
    if (pthread_equal(self, caller) || pthread_getcpuclockid(self, &clock) || pthread_getattr_np(self, &attributes)) return;
    size_t stack = 0;
    pthread_attr_getstacksize(&attributes, &stack);
    pthread_attr_destroy(&attributes);
    std::lock_guard<std::mutex> guard(mutex);
    usable = usable && stack >= kStack;
    if (clocks.size() < kWitnesses) clocks.push_back(clock);
  }
};

void call_the_roll(int64_t threads) {
  Roll roll{pthread_self(), {}, true, {}};
  team([](void* roll) { static_cast<Roll*>(roll)->sign(); }, &roll, (unsigned)threads, 0);
  clocks = roll.usable ? roll.clocks : std::vector<clockid_t>{};
  size = threads;
}

// In nanoseconds; -1 if one of the threads is gone.
int64_t processor_time() {
  int64_t taken = 0;
  for (auto clock : clocks) {
    timespec time;
    if (clock_gettime(clock, &time) != 0) return -1;
    taken += time.tv_sec * int64_t(1000000000) + time.tv_nsec;
  }
  return taken;
}

// Whether threads of the team take processor time from one look to the next. One that waits for the caller's own CPU takes
// none.
bool awake() {
  const int64_t before = processor_time();
  if (before < 0) size = 0;  // another team than the one that is known
  return before >= 0 && processor_time() > before;
}

}  // namespace

void use_openmp(Team given) {
  team = given;
  size = 0;
}

bool run_on_openmp(Function function, void* data, int64_t threads) {
  if (!team) return false;
  if (size != threads) call_the_roll(threads);
  if (!awake()) return false;
  team(function, data, (unsigned)threads, 0);
  return true;
}

}  // namespace softdraw
#else
namespace softdraw {
void use_openmp(Team) {}
bool run_on_openmp(Function, void*, int64_t) { return false; }
}  // namespace softdraw
#endif
