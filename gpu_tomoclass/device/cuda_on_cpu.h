// Lets a C++ compiler build our CUDA sources for a CPU: keywords, types, arithmetic, atomics, and launching blocks.
//
// A kernel runs in one of four styles (gpu_tomoclass/device/signature.py tells which):
//   single   launched with one thread per block, macro ONE_THREAD: barriers are nothing, threadIdx is a constant
//   threads  no barriers: a loop over the threads of a block calls the kernel
//   phases   the kernel is called once per block; FOR_EACH_THREAD loops over its threads, so that what stands between
//            two barriers is one loop nest that the compiler can vectorise; __syncthreads() is nothing
//   fibers   one fiber per thread, switched at barriers and warp functions (cuda_fibers.h)
// With CUDA_ON_CPU_CHECKED every kernel runs as fibers, in a shuffled order, over poisoned shared memory.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(CUDA_ON_CPU_CHECKED) || defined(CUDA_ON_CPU_FIBERS)
#include <stdlib.h>
#include <sys/mman.h>
#endif
#include "cuda_math.h"

#define CUDA_ON_CPU 1
#define __device__ static __attribute__((unused))
#define __host__
#define __constant__ const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)

#if defined(CUDA_ON_CPU_CHECKED)
#define CUDA_ON_CPU_FIBERS 1
#define __global__
#if defined(CUDA_ON_CPU_SANITIZED)
#define __shared__ static __attribute__((aligned(16)))  // plain statics: the sanitizer guards their ends
#else
#define __shared__ static __attribute__((section("cuda_shared"), aligned(16)))  // one section: poisoned as a whole
#endif
#define FOR_EACH_THREAD
#else
#define __global__ inline __attribute__((always_inline))
#if defined(CUDA_ON_CPU_FIBERS)
#define __shared__ static thread_local __attribute__((aligned(64)))
#else
#define __shared__ __attribute__((aligned(64)))  // single and phases: called once per block, so on the stack
#endif
#endif

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
#define CUDA_VECTORS(name, type)                                                                       \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                           \
    struct name##3 { type x, y, z; };                                                                  \
    struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; };        \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }                            \
    static inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                 \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
CUDA_VECTORS(uchar, unsigned char)
CUDA_VECTORS(ushort, unsigned short)
CUDA_VECTORS(int, int)
CUDA_VECTORS(float, float)
CUDA_VECTORS(double, double)
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static thread_local uint3 blockIdx;
static thread_local dim3 gridDim;
#if defined(ONE_THREAD) && !defined(CUDA_ON_CPU_CHECKED)
static constexpr uint3 threadIdx{0, 0, 0};
static constexpr dim3 blockDim{1, 1, 1};
#else
static thread_local uint3 threadIdx;
static thread_local dim3 blockDim;
#endif
static constexpr int warpSize = 32;

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#define CUDA_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define UNROLL _Pragma("GCC unroll 128")  // without it, a loop over threads around this one is not vectorised
#define CUDA_INDEPENDENT _Pragma("GCC ivdep")
#endif
#define INDEPENDENT CUDA_INDEPENDENT  // a loop whose passes do not depend on each other, though its arrays may overlap
// Keeps a compiler from making vectors, and so gathers, of what a value is computed from.
#define KEEP_SCALAR(value) __asm__("" : "+r"(value))
// Keeps a vector in a register: GCC reads it from memory again for each of its uses.
#if defined(__x86_64__)
#define KEEP_VECTOR(value) __asm__("" : "+v"(value))
#elif defined(__aarch64__)
#define KEEP_VECTOR(value) __asm__("" : "+w"(value))
#else
#define KEEP_VECTOR(value)
#endif
// As many floats as this CPU's vectors hold doubles, as doubles. Of __builtin_convertvector, GCC makes two halves.
typedef double cuda_doubles __attribute__((vector_size(__BIGGEST_ALIGNMENT__)));
static inline __attribute__((always_inline)) cuda_doubles cuda_widened(const float* f) {
#if __BIGGEST_ALIGNMENT__ == 64
    return cuda_doubles{f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7]};
#elif __BIGGEST_ALIGNMENT__ == 32
    return cuda_doubles{f[0], f[1], f[2], f[3]};
#else
    cuda_doubles values;
    for (size_t i = 0; i < sizeof values / sizeof(double); ++i) values[i] = f[i];
    return values;
#endif
}
// fma of vectors; GCC makes single ones of a loop whose factor is the same in all lanes.
static inline __attribute__((always_inline)) cuda_doubles cuda_fused(cuda_doubles a, cuda_doubles b, cuda_doubles c) {
#if defined(__FMA__) && __BIGGEST_ALIGNMENT__ == 32 && !defined(__clang__)
    return __builtin_ia32_vfmaddpd256(a, b, c);
#elif defined(__AVX512F__) && __BIGGEST_ALIGNMENT__ == 64 && !defined(__clang__)
    return __builtin_ia32_vfmaddpd512_mask(a, b, c, -1, 4);  // all lanes; rounded as all else
#else
    for (size_t i = 0; i < sizeof c / sizeof(double); ++i) c[i] = fma(a[i], b[i], c[i]);
    return c;
#endif
}
#if !defined(CUDA_ON_CPU_CHECKED)
// Threads between two barriers do not depend on each other (the race checks in tests/kernels prove it). Indices are
// signed here, so that the compiler sees that threadIdx.x + 1 is next to threadIdx.x and can use vectors.
#define FOR_EACH_THREAD                                                                                     \
    for (int tz_ = 0, tnz_ = blockDim.z, tny_ = blockDim.y, tnx_ = blockDim.x; tz_ < tnz_; ++tz_)           \
        for (int ty_ = 0; ty_ < tny_; ++ty_)                                                                \
            CUDA_INDEPENDENT for (int tx_ = 0; tx_ < tnx_; ++tx_)                                           \
                if (const int3 threadIdx{tx_, ty_, tz_}; true)
// Those whose pixel (x, y) = (x0, y0) + threadIdx lies inside of a plane, or whose x = x0 + threadIdx.x lies on a line.
// As FOR_EACH_THREAD { if (x < nx && y < ny) .. }, but the limits are the loops': of conditional loads, GCC makes
// vectors with AVX-512 only.
#define FOR_EACH_THREAD_INSIDE(X, x0, nx, Y, y0, ny)                                                        \
    for (int x0_ = (x0), y0_ = (y0), stop_x_ = min((int)blockDim.x, (nx) - x0_),                            \
             stop_y_ = min((int)blockDim.y, (ny) - y0_), ty_ = 0; ty_ < stop_y_; ++ty_)                     \
        if (const int Y = y0_ + ty_; true)                                                                  \
            CUDA_INDEPENDENT for (int tx_ = 0; tx_ < stop_x_; ++tx_)                                        \
                if (const int X = x0_ + tx_; true)
#define FOR_EACH_THREAD_ALONG(X, x0, nx) FOR_EACH_THREAD_INSIDE(X, x0, nx, of_block_, 0, (int)blockDim.y)
#else
#define FOR_EACH_THREAD_INSIDE(X, x0, nx, Y, y0, ny)          \
    const int X = (x0) + threadIdx.x, Y = (y0) + threadIdx.y; \
    if (X < (nx) && Y < (ny))
#define FOR_EACH_THREAD_ALONG(X, x0, nx) \
    const int X = (x0) + threadIdx.x;    \
    if (X < (nx))
#endif

// ---- arithmetic ----------------------------------------------------------------------------------------------------
#define CUDA_MIN_MAX(type)                                                \
    static inline type min(type a, type b) { return b < a ? b : a; }      \
    static inline type max(type a, type b) { return a < b ? b : a; }
CUDA_MIN_MAX(int)
CUDA_MIN_MAX(unsigned)
CUDA_MIN_MAX(long long)
CUDA_MIN_MAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

template <class T> static inline T __ldg(const T* p) { return *p; }
template <class To, class From> static inline To cuda_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "bits of different sizes");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}
static inline int __float_as_int(float a) { return cuda_bits<int>(a); }
static inline unsigned __float_as_uint(float a) { return cuda_bits<unsigned>(a); }
static inline float __int_as_float(int a) { return cuda_bits<float>(a); }
static inline float __uint_as_float(unsigned a) { return cuda_bits<float>(a); }
static inline long long __double_as_longlong(double a) { return cuda_bits<long long>(a); }
static inline double __longlong_as_double(long long a) { return cuda_bits<double>(a); }

static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }

// Conversions saturate, and NaN becomes 0, as on a GPU; a C++ cast would be undefined there.
static inline int cuda_to_int(double a) {
    return a != a ? 0 : a >= 2147483647.0 ? 2147483647 : a <= -2147483648.0 ? -2147483647 - 1 : (int)a;
}
static inline int __float2int_rz(float a) { return cuda_to_int(a); }
static inline int __float2int_rn(float a) { return cuda_to_int(rint((double)a)); }
static inline int __float2int_rd(float a) { return cuda_to_int(floor((double)a)); }
static inline int __float2int_ru(float a) { return cuda_to_int(ceil((double)a)); }
static inline float __int2float_rn(int a) { return (float)a; }

static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
static inline int __clz(int a) { return a ? __builtin_clz((unsigned)a) : 32; }
static inline int __clzll(long long a) { return a ? __builtin_clzll((unsigned long long)a) : 64; }
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline int __ffsll(long long a) { return __builtin_ffsll(a); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }

// ---- atomics -------------------------------------------------------------------------------------------------------
// Blocks may run on several CPU threads, the threads of a block run on one: *_block needs no locked instruction.
template <class T> struct cuda_same { using type = T; };
template <class T> static inline T cuda_compare_exchange(T* p, T expected, T wanted) {
    __atomic_compare_exchange(p, &expected, &wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
template <class T, class Change> static inline T cuda_update(T* p, Change change) {
    T old, wanted;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do {
        wanted = change(old);
    } while (!__atomic_compare_exchange(p, &old, &wanted, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
#define CUDA_ATOMIC(name, expression)                                                                                  \
    template <class T> static inline T name(T* p, typename cuda_same<T>::type v) {                                     \
        return cuda_update(p, [v](T old) -> T { return expression; });                                                 \
    }                                                                                                                  \
    template <class T> static inline T name##_block(T* p, typename cuda_same<T>::type v) {                             \
        const T old = *p;                                                                                              \
        *p = expression;                                                                                               \
        return old;                                                                                                    \
    }
CUDA_ATOMIC(atomicAdd, old + v)
CUDA_ATOMIC(atomicSub, old - v)
CUDA_ATOMIC(atomicMin, old < v ? old : v)
CUDA_ATOMIC(atomicMax, old > v ? old : v)
CUDA_ATOMIC(atomicAnd, old & v)
CUDA_ATOMIC(atomicOr, old | v)
CUDA_ATOMIC(atomicXor, old ^ v)
CUDA_ATOMIC(atomicExch, ((void)old, v))
template <class T>
static inline T atomicCAS(T* p, typename cuda_same<T>::type expected, typename cuda_same<T>::type v) {
    return cuda_compare_exchange(p, (T)expected, (T)v);
}
static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() {}

#include "cuda_blocks.h"
#if defined(CUDA_ON_CPU_FIBERS)
#include "cuda_fibers.h"
#else
static inline void __syncthreads() {}  // phases: the end of a loop over threads is the barrier
static inline void __syncwarp(unsigned = 0xffffffffu) {}
#endif
