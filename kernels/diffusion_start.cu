// What anisotropic diffusion asks of a plane first.   Python: gpu_tomoclass/features/accelerated/diffusion.py
//
//   limits[z] = minimum, maximum, standard deviation (divided by n) of the plane cut to whole numbers
//
// The squares are added one by one in double, from the last column to the first and each column upwards: the order is
// part of the definition, as the time step hangs on every bit. So one block has a plane: its threads fill a shared
// chunk with squares, then the first one adds them. The sum for the mean is one of integers, exact in any order. Reads
// 8 bytes per pixel; a serial chain of one addition per pixel, once per plane against hundreds of smoothing steps.
//
// Compile-time: THREADS (a power of two), CHUNK.
__device__ __forceinline__ float cut_to_whole(float value) {  // as Java casts to int: NaN is 0
    const float limited = fminf(fmaxf(value, -2147483648.0f), 2147483648.0f);
    return value == value ? truncf(limited) : 0.0f;
}

extern "C" __global__ void __launch_bounds__(THREADS)
diffusion_start(const float* __restrict__ image, double* __restrict__ limits, int ny, int nx) {
    __shared__ double chunk[CHUNK];
    __shared__ double sums[THREADS];
    __shared__ float lows[THREADS], highs[THREADS];
    const long long n_pixels = (long long)ny * nx;
    const float* plane = image + blockIdx.x * (size_t)n_pixels;
    const int lane = threadIdx.x;
    float low = __int_as_float(0x7f800000), high = -low;
    double sum = 0.0;
    for (long long i = lane; i < n_pixels; i += THREADS) {
        const float value = cut_to_whole(plane[i]);
        low = value < low ? value : low;
        high = value > high ? value : high;
        sum += (double)value;
    }
    lows[lane] = low;
    highs[lane] = high;
    sums[lane] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) {
            lows[lane] = fminf(lows[lane], lows[lane + half]);
            highs[lane] = fmaxf(highs[lane], highs[lane + half]);
            sums[lane] += sums[lane + half];
        }
    }
    __syncthreads();
    const double mean = sums[0] / (double)n_pixels;
    double squares = 0.0;
    int x = nx - 1 - lane / ny, y = ny - 1 - lane % ny;  // of this thread's next pixel
    for (long long first = 0; first < n_pixels; first += CHUNK) {
        const int n = (int)min((long long)CHUNK, n_pixels - first);
        for (int i = lane; i < n; i += THREADS) {
            const double from_mean = (double)cut_to_whole(plane[(size_t)y * nx + x]) - mean;
            chunk[i] = from_mean * from_mean;
            for (y -= THREADS; y < 0; y += ny) --x;
        }
        __syncthreads();
        if (lane == 0)
            for (int i = 0; i < n; ++i) squares += chunk[i];
        __syncthreads();
    }
    if (lane == 0) {
        limits[blockIdx.x * 3 + 0] = (double)lows[0];
        limits[blockIdx.x * 3 + 1] = (double)highs[0];
        limits[blockIdx.x * 3 + 2] = sqrt(squares / (double)n_pixels);
    }
}
