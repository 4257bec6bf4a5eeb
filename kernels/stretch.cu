// The 8-bit image that ImageJ makes of a float image.   Python: gpu_tomoclass/features/accelerated/source.py
//
//   byte = min(255, int(max(0, v - low) * 255 / (high - low) + 0.5))     in double
//
// Where high = low the factor is infinite: values above low give 255, others 0 * inf = NaN, which becomes 0, as does a
// NaN pixel. 4 bytes read and 1 written per pixel, 5 operations in double.
//
// Compile-time: THREADS.
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
stretch(const float* __restrict__ image, const float* __restrict__ limits, unsigned char* __restrict__ result,
        long long n_pixels) {
    const double low = limits[2 * blockIdx.y], high = limits[2 * blockIdx.y + 1];
    const double factor = 255.0 / (high - low);
    const float* from = image + blockIdx.y * n_pixels;
    unsigned char* to = result + blockIdx.y * n_pixels;
    FOR_EACH_THREAD {
        const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
        if (i < n_pixels) {
            double value = (double)from[i] - low;
            value = (value > 0.0 ? value : 0.0) * factor + 0.5;
            // NaN fails the first comparison.
            to[i] = value >= 0.0 ? (value < 255.0 ? (unsigned char)(int)value : (unsigned char)255) : (unsigned char)0;
        }
    }
}
