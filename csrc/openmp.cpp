#include "openmp.h"

#ifdef __linux__
#include <pthread.h>
#include <time.h>

#include <atomic>
#include <mutex>
#include <vector>

namespace softdraw {
namespace {

std::atomic<Team> team{nullptr};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { team.store(nullptr); });

constexpr size_t kWitnesses = 4;             // threads that are watched: they fall asleep together
thread_local std::vector<clockid_t> clocks;  // of processor time, of threads of the caller's team

struct Task {
  Function function;
  void* data;
  pthread_t caller;
  std::mutex mutex;
  std::vector<clockid_t> clocks;

  void run() {
    clockid_t clock;
    if (!pthread_equal(pthread_self(), caller) && pthread_getcpuclockid(pthread_self(), &clock) == 0) {
      std::lock_guard<std::mutex> guard(mutex);
      if (clocks.size() < kWitnesses) clocks.push_back(clock);
    }
    function(data);
  }
};

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
// none. Before the team is known it is called, for this is how it gets known.
bool awake() {
  const int64_t before = processor_time();
  return clocks.empty() || before < 0 || processor_time() != before;
}

}  // namespace

void use_openmp(Team given) { team.store(given); }

bool run_on_openmp(Function function, void* data, int64_t threads) {
  const Team all = team.load();
  if (!all || !awake()) return false;
  Task task{function, data, pthread_self(), {}, {}};
  all([](void* task) { static_cast<Task*>(task)->run(); }, &task, (unsigned)threads, 0);
  clocks = task.clocks;
  return true;
}

}  // namespace softdraw
#else
namespace softdraw {
void use_openmp(Team) {}
bool run_on_openmp(Function, void*, int64_t) { return false; }
}  // namespace softdraw
#endif
