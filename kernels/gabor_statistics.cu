// Means of planes, means and deviations of Gabor responses.   Python: gpu_tomoclass/features/accelerated/gabor.py
//
// `gabor_sums` reads 4 bytes per pixel, coalesced, and adds in double; `gabor_statistics` adds the parts that
// `gabor_filter` has left. Threads of a block meet in shared memory.
//
// Compile-time: THREADS (a power of two; 1 on a CPU).
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#endif
#define FLAT 1e-6  // a response that varies by less than this part of the largest possible one is taken as constant

// How often a pixel occurs in one period of that line, half as often as it does.
__device__ __forceinline__ double occurrence(int i, int n) { return n > 1 && (i == 0 || i == n - 1) ? 0.5 : 1.0; }

// Sums over a plane and over one period of its mirrored repetition, in parts: block (b, z) adds every gridDim.x-th row
// of plane z.
extern "C" __global__ void __launch_bounds__(THREADS)
gabor_sums(const float* __restrict__ image, double* __restrict__ partial, int ny, int nx) {
    __shared__ double sums[THREADS], repeated_sums[THREADS];
    const float* plane = image + blockIdx.y * ((size_t)ny * nx);
    const int t = threadIdx.x;
    double sum = 0.0, repeated = 0.0;
    for (int y = blockIdx.x; y < ny; y += gridDim.x) {
        double of_row = 0.0;
        for (int x = t; x < nx; x += THREADS) {
            const double value = plane[(size_t)y * nx + x];
            sum += value;
            of_row += occurrence(x, nx) * value;
        }
        repeated += occurrence(y, ny) * of_row;
    }
    sums[t] = sum;
    repeated_sums[t] = repeated;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            sums[t] += sums[t + half];
            repeated_sums[t] += repeated_sums[t + half];
        }
    }
    if (t == 0) {
        double* pair = partial + 2 * ((size_t)blockIdx.y * gridDim.x + blockIdx.x);
        pair[0] = sums[0];
        pair[1] = repeated_sums[0];
    }
}

// Means of a plane: of its pixels, and of one period of its mirrored repetition. The latter is subtracted before
// filtering: it leaves the smallest sums to kernels that reach far beyond a small plane.
extern "C" __global__ void gabor_means(const double* __restrict__ partial, double* __restrict__ means, int n_parts,
                                       int ny, int nx) {
    const double* pairs = partial + 2 * (size_t)blockIdx.x * n_parts;
    double sum = 0.0, repeated = 0.0;
    for (int i = 0; i < n_parts; ++i) {
        sum += pairs[2 * i];
        repeated += pairs[2 * i + 1];
    }
    means[2 * blockIdx.x] = sum / ((double)ny * nx);
    means[2 * blockIdx.x + 1] = repeated / ((double)(ny > 1 ? ny - 1 : 1) * (nx > 1 ? nx - 1 : 1));
}

// Mean and 1 / standard deviation of each response, as 2 floats; 0 for the latter where the response is constant. Block
// (response, z) adds n_parts pairs (sum, sum of squares); `weights` are sums of absolute taps, one per response.
extern "C" __global__ void __launch_bounds__(THREADS)
gabor_statistics(const double* __restrict__ partial, const double* __restrict__ means,
                 const float* __restrict__ extremes, const double* __restrict__ weights, float* __restrict__ statistics,
                 int n_parts, long long n_pixels) {
    __shared__ double sums[THREADS], squares[THREADS];
    const int t = threadIdx.x, z = blockIdx.y;
    const size_t response = (size_t)blockIdx.x * gridDim.y + z;
    double sum = 0.0, sum_of_squares = 0.0;
    for (int i = t; i < n_parts; i += THREADS) {
        sum += partial[2 * (response * n_parts + i)];
        sum_of_squares += partial[2 * (response * n_parts + i) + 1];
    }
    sums[t] = sum;
    squares[t] = sum_of_squares;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            sums[t] += sums[t + half];
            squares[t] += squares[t + half];
        }
    }
    if (t != 0) return;
    const double mean = sums[0] / n_pixels, spread = squares[0] - mean * sums[0];
    const double deviation = n_pixels > 1 && !(spread < 0.0) ? sqrt(spread / (n_pixels - 1)) : 0.0;
    const double below = means[2 * z] - extremes[2 * z], above = extremes[2 * z + 1] - means[2 * z];
    const bool is_flat = deviation <= FLAT * weights[blockIdx.x] * (below > above ? below : above);
    statistics[2 * response] = (float)mean;
    statistics[2 * response + 1] = is_flat ? 0.0f : (float)(1.0 / deviation);
}
