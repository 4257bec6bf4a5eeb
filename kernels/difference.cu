// Up to four images less the same other one.   Python: gpu_tomoclass/features/accelerated/edges.py
//
//   result[k] = (a, b, c or d) - other     for k = 0 .. gridDim.y - 1
//
// 8 bytes read (`other` mostly from a cache after its first time) and 4 written per pixel and k.
//
// Compile-time: THREADS.
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
difference(const float* __restrict__ a, const float* __restrict__ b, const float* __restrict__ c,
           const float* __restrict__ d, const float* __restrict__ other, float* __restrict__ result, long long n) {
    const int k = blockIdx.y;
    const float* from = k == 0 ? a : k == 1 ? b : k == 2 ? c : d;
    float* to = result + k * n;
    FOR_EACH_THREAD {
        const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
        if (i < n) to[i] = from[i] - other[i];
    }
}
