// The functions of <math.h> that CUDA has, as the compiler knows them. Part of cuda_on_cpu.h.
//
// <math.h> itself is not read: in C++ that takes as long as all the rest of a small kernel, for every kernel, and each new
// C library puts names there that CUDA had first (rsqrtf in glibc 2.42). Macros rename what a kernel calls, so a system
// header that does include it changes nothing. As in CUDA, a function takes float or double and gives the same.
#pragma once
#define CUDA_OF_ONE(name)                                                          \
    static inline float cuda_##name(float a) { return __builtin_##name##f(a); }    \
    static inline double cuda_##name(double a) { return __builtin_##name(a); }
#define CUDA_OF_TWO(name)                                                                      \
    static inline float cuda_##name(float a, float b) { return __builtin_##name##f(a, b); }    \
    static inline double cuda_##name(double a, double b) { return __builtin_##name(a, b); }
CUDA_OF_ONE(sqrt)
CUDA_OF_ONE(fabs)
CUDA_OF_ONE(floor)
CUDA_OF_ONE(ceil)
CUDA_OF_ONE(trunc)
CUDA_OF_ONE(round)
CUDA_OF_ONE(rint)
CUDA_OF_ONE(exp)
CUDA_OF_ONE(log)
CUDA_OF_ONE(sin)
CUDA_OF_ONE(cos)
CUDA_OF_TWO(fmin)
CUDA_OF_TWO(fmax)
static inline float cuda_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double cuda_fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline int cuda_abs(int a) { return __builtin_abs(a); }
static inline long long cuda_abs(long long a) { return __builtin_llabs(a); }
static inline float cuda_abs(float a) { return __builtin_fabsf(a); }
static inline double cuda_abs(double a) { return __builtin_fabs(a); }
#define sqrt cuda_sqrt
#define fabs cuda_fabs
#define floor cuda_floor
#define ceil cuda_ceil
#define trunc cuda_trunc
#define round cuda_round
#define rint cuda_rint
#define exp cuda_exp
#define log cuda_log
#define sin cuda_sin
#define cos cuda_cos
#define fmin cuda_fmin
#define fmax cuda_fmax
#define fma cuda_fma
#define sqrtf __builtin_sqrtf
#define fabsf __builtin_fabsf
#define floorf __builtin_floorf
#define ceilf __builtin_ceilf
#define truncf __builtin_truncf
#define roundf __builtin_roundf
#define rintf __builtin_rintf
#define expf __builtin_expf
#define logf __builtin_logf
#define sinf __builtin_sinf
#define cosf __builtin_cosf
#define fminf __builtin_fminf
#define fmaxf __builtin_fmaxf
#define fmaf __builtin_fmaf
#define abs cuda_abs
#undef isnan
#define isnan __builtin_isnan
#undef isinf
#define isinf __builtin_isinf
#undef isfinite
#define isfinite __builtin_isfinite
#undef signbit
#define signbit __builtin_signbit
#undef NAN
#define NAN __builtin_nanf("")
#undef INFINITY
#define INFINITY __builtin_inff()
