// Smallest and largest finite value of each plane.   Python: gpu_tomoclass/features/accelerated/source.py
//
// First step: block (b, z) reads every gridDim.x-th run of THREADS pixels of plane z, coalesced, 4 bytes per pixel, two
// comparisons each; its threads meet in shared memory. Second step: one thread per plane joins the parts.
// A plane without a finite pixel gives 0, 0.
//
// Compile-time: THREADS (a power of two; 1 on a CPU).
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#endif
#define LARGEST 3.402823466e+38f

extern "C" __global__ void __launch_bounds__(THREADS)
extremes_of_parts(const float* __restrict__ image, float* __restrict__ partial, long long n_pixels) {
    __shared__ float low[THREADS], high[THREADS];
    const float* plane = image + blockIdx.y * n_pixels;
    const int t = threadIdx.x;
    const float infinite = __int_as_float(0x7f800000);
    float smallest = infinite, largest = -infinite;
    for (long long i = (long long)blockIdx.x * THREADS + t; i < n_pixels; i += (long long)gridDim.x * THREADS) {
        const float value = plane[i];
        const bool is_finite = fabsf(value) <= LARGEST;  // false for NaN
        smallest = is_finite && value < smallest ? value : smallest;
        largest = is_finite && value > largest ? value : largest;
    }
    low[t] = smallest;
    high[t] = largest;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            low[t] = low[t + half] < low[t] ? low[t + half] : low[t];
            high[t] = high[t + half] > high[t] ? high[t + half] : high[t];
        }
    }
    if (t == 0) {
        float* pair = partial + 2 * ((size_t)blockIdx.y * gridDim.x + blockIdx.x);
        pair[0] = low[0];
        pair[1] = high[0];
    }
}

extern "C" __global__ void extremes(const float* __restrict__ partial, float* __restrict__ result, int n_parts) {
    const float* pairs = partial + 2 * (size_t)blockIdx.x * n_parts;
    float smallest = pairs[0], largest = pairs[1];
    for (int i = 1; i < n_parts; ++i) {
        smallest = pairs[2 * i] < smallest ? pairs[2 * i] : smallest;
        largest = pairs[2 * i + 1] > largest ? pairs[2 * i + 1] : largest;
    }
    result[2 * blockIdx.x] = smallest <= largest ? smallest : 0.0f;
    result[2 * blockIdx.x + 1] = smallest <= largest ? largest : 0.0f;
}
