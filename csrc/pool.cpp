// A pool of threads that sleep between jobs. One job runs at a time; a caller that finds the pool busy works alone,
// and never waits for a worker that has not begun. A forked child has no workers: it forgets the pool and starts anew.
#include "pool.h"

#include "openmp.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace softdraw {
namespace {

struct Job {
  Chunk chunk;
  void* context;
  int64_t count;
  std::atomic<int64_t> next{0};

  void work() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) chunk(context, i);
  }
};

class Pool {
 public:
  // False, and nothing done, if another job is running.
  bool run(Job& job, int64_t workers) {
    std::unique_lock<std::mutex> only(running_, std::try_to_lock);
    if (!only.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> guard(state_);
      while ((int64_t)handles_.size() < workers && start()) {
      }
      keep_off_my_cpu();
      job_ = &job;
      wanted_ = workers;
    }
    wake_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(state_);
    job_ = nullptr;
    done_.wait(lock, [this] { return active_ == 0; });
    return true;
  }

 private:
  bool start() {
    try {
      std::thread worker([this] { serve(); });
      handles_.push_back(worker.native_handle());
      worker.detach();
    } catch (...) {  // no thread can be started: the job runs on fewer
      return false;
    }
    return true;
  }

  // After a pause the scheduler often puts a woken thread on the CPU of the thread that woke it, especially in virtual
  // machines, where a halted CPU does not count as free. There it waits for milliseconds until the scheduler moves it.
  // So workers are kept off the CPU of the caller, which seldom changes, and share the other CPUs that the caller may
  // use.
  void keep_off_my_cpu() {
#ifdef __linux__
    const int cpu = sched_getcpu();
    cpu_set_t others;
    if (cpu < 0 || sched_getaffinity(0, sizeof others, &others) != 0) return;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) == 0 || (placed_ == handles_.size() && CPU_EQUAL(&others, &allowed_))) return;
    for (auto worker : handles_) pthread_setaffinity_np(worker, sizeof others, &others);
    allowed_ = others;
    placed_ = handles_.size();
#endif
  }

  void serve() {
    std::unique_lock<std::mutex> lock(state_);
    for (;;) {
      wake_.wait(lock, [this] { return job_ && wanted_ > 0; });
      Job* job = job_;
      --wanted_;
      ++active_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex running_, state_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  int64_t wanted_ = 0, active_ = 0;
  std::vector<std::thread::native_handle_type> handles_;
#ifdef __linux__
  cpu_set_t allowed_;   // where workers were last sent,
  size_t placed_ = 0;   // and how many there were
#endif
};

// Never destroyed: workers may outlive main, and in a forked child its locks may be held by threads that are not there.
std::atomic<Pool*> current{nullptr};

Pool& pool() {
  Pool* found = current.load();
  if (found) return *found;
  Pool* made = new Pool;
  if (current.compare_exchange_strong(found, made)) {
#ifndef _WIN32
    static const int registered = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
    (void)registered;
#endif
    return *made;
  }
  delete made;
  return *found;
}

}  // namespace

void for_each_chunk(int64_t count, int64_t threads, bool wake, Chunk chunk, void* context) {
  Job job{chunk, context, count};
  const int64_t workers = (threads < count ? threads : count) - 1;
  if (workers > 0) {
    if (run_on_openmp([](void* job) { static_cast<Job*>(job)->work(); }, &job, threads)) return;
    if (wake && pool().run(job, workers)) return;
  }
  job.work();
}

}  // namespace softdraw
