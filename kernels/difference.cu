// Difference of two images.   Python: gpu_tomoclass/accelerated/edges.py
//
//   result = a - b, 8 bytes read and 4 written per pixel
//
// Compile-time: THREADS.
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
difference(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ result, long long n) {
    FOR_EACH_THREAD {
        const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
        if (i < n) result[i] = a[i] - b[i];
    }
}
