// Probabilities as bytes: 255 times each, rounded to even.   Python: gpu_tomoclass/forest/labels_on_device.py
//
//   byte = rint(255 p)     in float, 0 <= p <= 1
//
// 4 bytes read and 1 written per probability: a quarter of what would else be copied from a GPU to the host.
//
// Compile-time: THREADS.
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
probability_bytes(const float* __restrict__ probabilities, unsigned char* __restrict__ result, long long n) {
    FOR_EACH_THREAD {
        const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
        if (i < n) result[i] = (unsigned char)(int)rintf(probabilities[i] * 255.0f);
    }
}
