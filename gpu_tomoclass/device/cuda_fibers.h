// One fiber per CUDA thread, for kernels with barriers and warp functions. Part of cuda_on_cpu.h.
//
// The blocks of a cluster (macro CLUSTER, along x) run side by side; each has its part of what CLUSTER_MEMORY declares.
//
// A fiber runs until it waits. A warp's fibers run until all wait for the block or have ended; then the next warp.
// Divergent barriers, wrong masks and lanes that have left are reported instead of hanging.
#pragma once
#if defined(CLUSTER)
#define CUDA_CLUSTER CLUSTER
#else
#define CUDA_CLUSTER 1
#endif
#if !defined(__x86_64__) || defined(CUDA_ON_CPU_UCONTEXT)
#define CUDA_ON_CPU_UCONTEXT 1
#include <ucontext.h>
#endif
#if defined(CUDA_ON_CPU_CHECKED) && !defined(CUDA_ON_CPU_SANITIZED)
extern "C" __attribute__((weak, visibility("hidden"))) char __start_cuda_shared[], __stop_cuda_shared[];
#endif

namespace cuda_on_cpu {

#if defined(CUDA_ON_CPU_UCONTEXT)
using Context = ucontext_t;
static inline void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }
static inline void start_context(Context& context, char* stack, size_t size, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = size;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#else
// Saves what the System V ABI asks a callee to keep, and changes stacks; swapcontext would make a system call each time.
using Context = void*;
extern "C" void cuda_on_cpu_switch(void** save, void* to);
asm(R"(
.text
.p2align 4
.weak cuda_on_cpu_switch
.hidden cuda_on_cpu_switch
.type cuda_on_cpu_switch,@function
cuda_on_cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_on_cpu_switch,.-cuda_on_cpu_switch
)");
static inline void switch_context(Context& from, Context& to) { cuda_on_cpu_switch(&from, to); }
static inline void start_context(Context& context, char* stack, size_t size, void (*entry)()) {
    void** top = (void**)(stack + size);
    *--top = nullptr;  // the return address of entry, which never returns; also keeps the ABI's alignment
    *--top = (void*)entry;
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context = top;
}
#endif

enum State : unsigned char { READY, AT_BLOCK, AT_WARP, AT_CLUSTER, DONE };
struct Fiber {
    Context context;
    uint3 index, block;
    State state;
    unsigned mask;   // at a warp function: the lanes that it waits for; at a barrier: its line in the source
    uint64_t slot;   // what it shows to the other lanes
};

struct Scheduler {
    static constexpr size_t STACK = 128 * 1024;
    // Not std::vector: to read <vector> takes the compiler longer than most kernels, and every kernel includes this.
    Fiber* fibers = nullptr;
    int* order = nullptr;  // lanes within each warp
    char* stacks = nullptr;
    size_t n_stacks = 0;
    Context main;
    int current = 0, n = 0;
    Job* job = nullptr;
    void (*run)(void*) = nullptr;
    void* argument = nullptr;

    ~Scheduler() {
        if (stacks) munmap(stacks, STACK * n_stacks);
        free(fibers);
        free(order);
    }

    void prepare(int count) {
        if ((size_t)count > n_stacks) {
            if (stacks) munmap(stacks, STACK * n_stacks);
            stacks = (char*)mmap(nullptr, STACK * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            free(fibers);
            free(order);
            fibers = (Fiber*)calloc(count, sizeof(Fiber));
            order = (int*)calloc(count, sizeof(int));
            if (stacks == MAP_FAILED || !fibers || !order) abort();
            n_stacks = count;
        }
        n = count;
    }
};
static thread_local Scheduler scheduler;

static inline Fiber& self() { return scheduler.fibers[scheduler.current]; }
static inline void wait(State state, unsigned mask = 0) {
    Fiber& fiber = self();
    fiber.state = state;
    fiber.mask = mask;
    switch_context(fiber.context, scheduler.main);
}
static void entry() {
    scheduler.run(scheduler.argument);
    wait(DONE);
    abort();  // nobody resumes a fiber that is done
}

static inline int per_block() { return scheduler.n / CUDA_CLUSTER; }  // threads
static inline int rank() { return scheduler.current / per_block(); }  // of the block within its cluster

// Lanes that name each other and have all arrived go on.
static bool release_warp(int first, int last) {
    Scheduler& s = scheduler;
    const unsigned live = last - first == 32 ? 0xffffffffu : (1u << (last - first)) - 1u;
    unsigned at = 0;
    for (int i = first; i < last; ++i) if (s.fibers[i].state == AT_WARP) at |= 1u << (i - first);
    bool released = false;
    while (at) {
        const int lane = __builtin_ctz(at);
        const unsigned mask = s.fibers[first + lane].mask;
        if (!(mask >> lane & 1u)) report(*s.job, "a lane is not named in its own warp mask");
        if (mask & ~live) report(*s.job, "a warp mask names lanes that do not exist");
        unsigned group = (mask & live) | 1u << lane;
        bool all = (group & ~at) == 0;
        for (unsigned q = group & at; q && all; q &= q - 1) all = s.fibers[first + __builtin_ctz(q)].mask == mask;
        if (all) {
            for (unsigned q = group; q; q &= q - 1) s.fibers[first + __builtin_ctz(q)].state = READY;
            released = true;
        }
        at &= all ? ~group : at - 1;
    }
    return released;
}

static void shuffle_order(unsigned seed) {
    Scheduler& s = scheduler;
    unsigned random = seed * 2654435761u + blockIdx.x * 40503u + blockIdx.y * 9176u + blockIdx.z * 977u;
    for (int first = 0; first < s.n; first += 32)
        for (int i = (s.n - first < 32 ? s.n - first : 32) - 1; i > 0; --i) {
            random = random * 1664525u + 1013904223u;
            const int j = (int)((random >> 8) % (unsigned)(i + 1)), kept = s.order[first + i];
            s.order[first + i] = s.order[first + j];
            s.order[first + j] = kept;
        }
}

// The fibers of a block that wait for it go on, if they are all of it that have not ended and wait at one place.
static bool release_block(int first, int last) {
    Scheduler& s = scheduler;
    int n_done = 0, n_block = 0;
    unsigned line = 0;
    for (int i = first; i < last; ++i) {
        const Fiber& f = s.fibers[i];
        n_done += f.state == DONE;
        if (f.state != AT_BLOCK) continue;
        if (n_block++ && f.mask != line) report(*s.job, "divergent: the threads of a block wait at different barriers");
        line = f.mask;
    }
    if (!n_block || n_done + n_block < last - first) return false;
    if (n_done) report(*s.job, "__syncthreads is reached by a part of the block only");
    for (int i = first; i < last; ++i)
        if (s.fibers[i].state == AT_BLOCK) s.fibers[i].state = READY;
    return true;
}

static bool release_cluster() {
    Scheduler& s = scheduler;
    int n_done = 0, n_cluster = 0;
    for (int i = 0; i < s.n; ++i) {
        const Fiber& f = s.fibers[i];
        n_done += f.state == DONE;
        n_cluster += f.state == AT_CLUSTER;
    }
    if (!n_cluster || n_done + n_cluster < s.n) return false;
    if (n_done) report(*s.job, "a barrier of a cluster is reached by a part of it only");
    for (int i = 0; i < s.n; ++i)
        if (s.fibers[i].state == AT_CLUSTER) s.fibers[i].state = READY;
    return true;
}

// The blocks of a cluster; the first one has been entered. Without clusters, a block.
static void run_cluster() {
    Scheduler& s = scheduler;
    const int n_threads = (int)(blockDim.x * blockDim.y * blockDim.z);
    s.prepare(CUDA_CLUSTER * n_threads);
    if (CUDA_CLUSTER > 1 && n_threads % 32) report(*s.job, "blocks of a cluster are not whole warps");
    for (int i = 0; i < s.n; ++i) {
        const unsigned u = (unsigned)(i % n_threads);
        s.fibers[i].index = {u % blockDim.x, u / blockDim.x % blockDim.y, u / (blockDim.x * blockDim.y)};
        s.fibers[i].block = {blockIdx.x + i / n_threads, blockIdx.y, blockIdx.z};
        s.fibers[i].state = READY;
        s.order[i] = i;
        start_context(s.fibers[i].context, s.stacks + Scheduler::STACK * i, Scheduler::STACK, entry);
    }
    if (s.job->seed) shuffle_order(s.job->seed);
#if defined(CUDA_ON_CPU_CHECKED) && !defined(CUDA_ON_CPU_SANITIZED)
    if (__start_cuda_shared) memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
#endif
    const int n_warps = (s.n + 31) / 32;
    for (unsigned round = 0;; ++round) {
        for (int w = 0; w < n_warps; ++w) {
            const bool reversed = s.job->seed && ((s.job->seed >> (round & 7)) & 1);  // warps forwards or backwards
            const int first = 32 * (reversed ? n_warps - 1 - w : w), last = first + 32 < s.n ? first + 32 : s.n;
            do {
                for (int k = first; k < last; ++k) {
                    const int i = s.order[k];
                    if (s.fibers[i].state != READY) continue;
                    s.current = i;
                    threadIdx = s.fibers[i].index;
                    blockIdx = s.fibers[i].block;
                    switch_context(s.main, s.fibers[i].context);
                }
            } while (release_warp(first, last));
        }
        bool is_done = true, goes_on = false;
        for (int i = 0; i < s.n; ++i) is_done &= s.fibers[i].state == DONE;
        if (is_done) return;
        for (int first = 0; first < s.n; first += n_threads) goes_on |= release_block(first, first + n_threads);
        if (!goes_on && !release_cluster()) {
            report(*s.job, "deadlock: threads wait for others that never come");
            return;
        }
    }
}

template <class Kernel> static void launch_fibers(Job& job, Kernel kernel) {
    if (job.grid.x % CUDA_CLUSTER) return report(job, "the grid along x is no multiple of the cluster");
    for_each_block(job, [&] {
        if (blockIdx.x % CUDA_CLUSTER) return;  // runs with the first of its cluster
        scheduler.job = &job;
        scheduler.run = [](void* k) { (*(Kernel*)k)(); };
        scheduler.argument = &kernel;
        run_cluster();
    });
}

// Shows `value` to the lanes of `mask` and returns what lane `source` of this warp shows; its own if `source` < 0.
template <class T> static inline T exchange(unsigned mask, T value, int source) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "at most 8 bytes can be exchanged");
    const int warp = scheduler.current & ~31;
    memcpy(&self().slot, &value, sizeof value);
    wait(AT_WARP, mask);
    T result = value;
    if (source >= 0) {
        if (!(mask >> source & 1u) || warp + source >= scheduler.n)
            report(*scheduler.job, "a shuffle reads a lane outside its mask");
        else
            memcpy(&result, &scheduler.fibers[warp + source].slot, sizeof result);
    }
    wait(AT_WARP, mask);
    return result;
}
static inline int lane() { return scheduler.current & 31; }

}  // namespace cuda_on_cpu

#define __syncthreads() cuda_on_cpu::wait(cuda_on_cpu::AT_BLOCK, __LINE__)
static inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_on_cpu::wait(cuda_on_cpu::AT_WARP, mask); }
template <class T> static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    const int lane = cuda_on_cpu::lane();
    return cuda_on_cpu::exchange(mask, value, (lane & ~(width - 1)) + (source & (width - 1)));
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const int lane = cuda_on_cpu::lane();
    return cuda_on_cpu::exchange(mask, value, (lane & (width - 1)) + (int)by < width ? lane + (int)by : -1);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const int lane = cuda_on_cpu::lane();
    return cuda_on_cpu::exchange(mask, value, (lane & (width - 1)) >= (int)by ? lane - (int)by : -1);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32) {
    const int lane = cuda_on_cpu::lane(), source = lane ^ by;
    return cuda_on_cpu::exchange(mask, value, (source & ~(width - 1)) == (lane & ~(width - 1)) ? source : -1);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    using namespace cuda_on_cpu;
    self().slot = predicate != 0;
    wait(AT_WARP, mask);
    unsigned result = 0;
    const int warp = scheduler.current & ~31;
    for (int i = 0; i < 32 && warp + i < scheduler.n; ++i)
        if (mask >> i & 1u && scheduler.fibers[warp + i].slot) result |= 1u << i;
    wait(AT_WARP, mask);
    return result;
}
#if defined(CLUSTER)
#define CLUSTER_MEMORY(type, name)                                       \
    __shared__ type name##_of_blocks[CLUSTER][SHARED_BYTES / sizeof(type)]; \
    type* const name = name##_of_blocks[cuda_on_cpu::rank()];
// Where a block of the cluster has what this block has at `own`, which CLUSTER_MEMORY declared.
template <class T> static inline void* __cluster_map_shared_rank(T* own, int rank) {
    if (rank < 0 || rank >= CLUSTER) cuda_on_cpu::report(*cuda_on_cpu::scheduler.job, "a cluster has no such block");
    return (char*)own + (ptrdiff_t)SHARED_BYTES * (rank - cuda_on_cpu::rank());
}
static inline void __cluster_barrier_arrive() {}
static inline void __cluster_barrier_wait() { cuda_on_cpu::wait(cuda_on_cpu::AT_CLUSTER); }
#endif
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
