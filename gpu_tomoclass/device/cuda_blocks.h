// Runs the blocks of a grid on CPU threads. Part of cuda_on_cpu.h.
#pragma once

namespace cuda_on_cpu {

// threads.cpp: calls body(context, start, stop) for portions of 0..n, on some threads at once.
using RunBlocks = void (*)(void (*body)(void*, long long, long long), void* context, long long n, long long portion,
                           int threads);

struct Job {
    dim3 grid, block;
    int threads;           // CPU threads
    unsigned seed;         // checked builds: 0 for blocks and threads in order, else each seed has its own order
    RunBlocks run_blocks;
    const char* error;     // what a kernel did wrong, or null
};

// The first message of a job wins; fibers on several CPU threads may report at once.
static inline void report(Job& job, const char* message) {
    const char* none = nullptr;
    __atomic_compare_exchange_n(&job.error, &none, message, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static inline void enter_block(const Job& job, long long number) {
    const long long nx = job.grid.x, ny = job.grid.y;
    gridDim = job.grid;
#if !defined(ONE_THREAD) || defined(CUDA_ON_CPU_CHECKED)
    blockDim = job.block;
#endif
    blockIdx = {(unsigned)(number % nx), (unsigned)(number / nx % ny), (unsigned)(number / (nx * ny))};
}

// body() runs one block; blockIdx, blockDim and gridDim are set.
template <class Body> static void for_each_block(Job& job, Body body) {
    const long long n = (long long)job.grid.x * job.grid.y * job.grid.z;
#if defined(CUDA_ON_CPU_CHECKED)
    const int threads = 1;  // __shared__ is one for all
#else
    const int threads = (int)(job.threads < n ? job.threads : n);
#endif
    if (threads <= 1) {
        // A step that is coprime to n visits every block once.
        const long long step = job.seed ? 1 + 40503ll * job.seed % n : 1, first = job.seed % n;
        long long a = step, b = n;
        while (b) { const long long r = a % b; a = b; b = r; }
        const bool in_order = !job.seed || a != 1;
        for (long long i = 0; i < n; ++i) {
            enter_block(job, in_order ? i : (first + (__int128)i * step) % n);
            body();
        }
        return;
    }
    const long long portion = n / (16ll * threads) + 1;  // few enough to hand out cheaply, enough to even out the load
    struct Context { Job& job; Body& body; } context{job, body};
    const auto run = [](void* of_job, long long start, long long stop) {
        Context& c = *(Context*)of_job;
        for (long long i = start; i < stop; ++i) {
            enter_block(c.job, i);
            c.body();
        }
    };
    job.run_blocks(run, &context, n, portion, threads);
}

template <class Kernel> static void launch_phases(Job& job, Kernel kernel) { for_each_block(job, kernel); }

#if defined(ONE_THREAD) && !defined(CUDA_ON_CPU_CHECKED)
template <class Kernel> static void launch_single(Job& job, Kernel kernel) {
    if (job.block.x * job.block.y * job.block.z != 1) report(job, "compiled with ONE_THREAD, launched with more");
    else for_each_block(job, kernel);
}
#else
template <class Kernel> static void launch_threads(Job& job, Kernel kernel) {
    for_each_block(job, [&] {
        const dim3 n = blockDim;
        for (unsigned z = 0; z < n.z; ++z)
            for (unsigned y = 0; y < n.y; ++y)
                for (unsigned x = 0; x < n.x; ++x) {
                    threadIdx = {x, y, z};
                    kernel();
                }
    });
}
#endif

}  // namespace cuda_on_cpu
