// Runs the blocks of a launch on this CPU's threads: one pool of helpers per process, used by all compiled kernels.
//
// Python: gpu_tomoclass/device/native.py
//
// The calling thread works too and waits for nobody who has not begun: on a busy machine, where a helper may wake late,
// it does the work itself. Who waits looks for a while, because launches follow each other within microseconds, and then
// sleeps. OpenMP's threads would all have to come to its barrier, and those of GCC look for milliseconds: beside other
// busy processes, short launches then take 10 to 40 times as long.
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>

namespace {

using Clock = std::chrono::steady_clock;
using Body = void (*)(void* context, long long start, long long stop);
constexpr auto LOOKING = std::chrono::microseconds(60);  // before sleeping; twice what Python needs between launches
constexpr auto GLANCE = std::chrono::microseconds(2);    // where looking has been in vain
constexpr size_t STACK = size_t(8) << 20;                // bytes of a helper, as much as a main thread usually has
constexpr unsigned CLOSED = 1u << 31;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

// Looks until a condition holds; false if it does not within a time.
template <class Condition> bool look(Clock::duration time, Condition holds) {
    const auto end = Clock::now() + time;
    do {
        for (int i = 0; i < 16; ++i) {
            if (holds()) return true;
            pause();
        }
    } while (Clock::now() < end);
    return holds();
}

struct Pool {
    const pid_t process = getpid();
    std::atomic<bool> is_taken{false};    // by the one caller that has helpers
    std::atomic<unsigned> job{0};         // its number
    std::atomic<unsigned> state{CLOSED};  // helpers at work on it, and whether others may still join
    std::atomic<long long> next{0};       // block
    Body body = nullptr;
    void* context = nullptr;
    long long n = 0, portion = 1;
    std::atomic<unsigned> places{0};
    int n_helpers = 0;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t has_job = PTHREAD_COND_INITIALIZER, is_done = PTHREAD_COND_INITIALIZER;
    std::atomic<int> n_asleep{0};
    std::atomic<bool> caller_sleeps{false};

    void work() {
        for (long long start; (start = next.fetch_add(portion, std::memory_order_relaxed)) < n;)
            body(context, start, start + portion < n ? start + portion : n);
    }

    bool join() {
        for (unsigned s = state.load(); !(s & CLOSED) && s < places;)
            if (state.compare_exchange_weak(s, s + 1)) return true;
        return false;
    }

    void leave() {
        if (state.fetch_sub(1) - 1 == CLOSED && caller_sleeps.load()) {
            pthread_mutex_lock(&mutex);
            pthread_cond_signal(&is_done);
            pthread_mutex_unlock(&mutex);
        }
    }

    void help() {
        unsigned seen = 0;
        Clock::duration time = LOOKING;
        for (;;) {
            const auto began = Clock::now();
            const auto has_come = [&] { return job.load() != seen; };
            if (!look(time, has_come)) {
                pthread_mutex_lock(&mutex);
                ++n_asleep;
                while (!has_come()) pthread_cond_wait(&has_job, &mutex);
                --n_asleep;
                pthread_mutex_unlock(&mutex);
            }
            time = Clock::now() - began < LOOKING ? LOOKING : GLANCE;
            seen = job.load();
            if (join()) {
                work();
                leave();
            }
        }
    }

    void add_helpers(int wanted) {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attributes, STACK);
        while (n_helpers < wanted) {
            pthread_t thread;
            const auto start = [](void* pool) -> void* { return ((Pool*)pool)->help(), nullptr; };
            if (pthread_create(&thread, &attributes, start, this)) break;  // the caller does what is left
            ++n_helpers;
        }
        pthread_attr_destroy(&attributes);
    }

    void run(Body body_, void* context_, long long n_, long long portion_, int threads) {
        add_helpers(threads - 1);
        body = body_, context = context_, n = n_, portion = portion_, places = (unsigned)(threads - 1);
        next = 0;
        state = 0;
        ++job;
        if (n_asleep.load() > 0) {
            pthread_mutex_lock(&mutex);
            pthread_cond_broadcast(&has_job);
            pthread_mutex_unlock(&mutex);
        }
        work();
        state.fetch_or(CLOSED);
        const auto is_over = [&] { return state.load() == CLOSED; };
        if (look(LOOKING, is_over)) return;
        pthread_mutex_lock(&mutex);
        caller_sleeps = true;
        while (!is_over()) pthread_cond_wait(&is_done, &mutex);
        caller_sleeps = false;
        pthread_mutex_unlock(&mutex);
    }
};

std::atomic<Pool*> the_pool{nullptr};  // never freed: its helpers sleep on until the process ends

}  // namespace

extern "C" __attribute__((visibility("default"))) void run_blocks(Body body, void* context, long long n,
                                                                   long long portion, int threads) {
    Pool* pool = the_pool.load();
    if (!pool || pool->process != getpid()) {  // a forked process has no helpers, and locks in any state
        Pool* fresh = new Pool;
        if (the_pool.compare_exchange_strong(pool, fresh)) pool = fresh;
        else delete fresh;
    }
    if (pool->is_taken.exchange(true)) return body(context, 0, n);  // by another caller: this one works alone
    pool->run(body, context, n, portion, threads);
    pool->is_taken = false;
}
