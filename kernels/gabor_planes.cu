// Before and after the Gabor filters: a plane with its margin; the extremes over angles.   Python: features/accelerated/gabor.py
//
//   padded = plane - a mean, mirrored;    result = max, min over angles of (response - its mean) / its deviation
//
// Lanes along x. 8 bytes and a few operations per pixel for the one; 40 bytes read, 8 written and 40 operations per
// bank for the other.
//
// Compile-time: THREADS, MARGIN.
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#define FOR_EACH_THREAD_ALONG(X, x0, nx) \
    const int X = (x0) + threadIdx.x;    \
    if (X < (nx))
#define UNROLL _Pragma("unroll")
#endif
#define N_ANGLES 10

// Which pixel of 0..n-1 is pixel i of a line that is mirrored again and again, without repeating its ends.
__device__ __forceinline__ int mirrored(int i, int n) {
    if (i >= 0 && i < n) return i;
    if (n == 1) return 0;
    const int period = 2 * (n - 1);
    i %= period;
    i = i < 0 ? i + period : i;
    return i < n ? i : period - i;
}

// Row blockIdx.y of a plane with a margin of MARGIN; it is `pitch` wide, so that tiles may reach beyond the margin.
extern "C" __global__ void __launch_bounds__(THREADS)
gabor_pad(const float* __restrict__ image, const double* __restrict__ means, float* __restrict__ padded, int ny, int nx,
          int pitch) {
    const int y = blockIdx.y, z = blockIdx.z;
    const float* row = image + ((size_t)z * ny + mirrored(y - MARGIN, ny)) * nx;
    float* to = padded + ((size_t)z * gridDim.y + y) * pitch;
    FOR_EACH_THREAD {
        const int x = blockIdx.x * THREADS + threadIdx.x;
        if (x < pitch) to[x] = (float)(row[mirrored(x - MARGIN, nx)] - means[2 * z + 1]);
    }
}

// Responses are [bank][angle][z of nz][y][x of pitch], statistics [bank][angle][z][2]; blockIdx.z = bank * nz + z. The
// result has n_planes, of which this is number first_plane + z; channels[bank] and the next one are written.
extern "C" __global__ void __launch_bounds__(THREADS)
gabor_extremes(const float* __restrict__ responses, const float* __restrict__ statistics,
               const int* __restrict__ channels, float* __restrict__ result, int nz, int first_plane, int n_planes,
               int nx, int pitch) {
    const int bank = blockIdx.z / nz, z = blockIdx.z % nz, ny = gridDim.y, y = blockIdx.y;
    const size_t response = (size_t)nz * ny * pitch, channel = (size_t)n_planes * ny * nx;
    const float* from = responses + bank * (N_ANGLES * response) + ((size_t)z * ny + y) * pitch;
    float* highest = result + channels[bank] * channel + ((size_t)(first_plane + z) * ny + y) * nx;
    float* lowest = highest + channel;
    float mean[N_ANGLES], inverse[N_ANGLES];
    UNROLL for (int angle = 0; angle < N_ANGLES; ++angle) {
        mean[angle] = statistics[2 * ((size_t)(bank * N_ANGLES + angle) * nz + z)];
        inverse[angle] = statistics[2 * ((size_t)(bank * N_ANGLES + angle) * nz + z) + 1];
    }
    FOR_EACH_THREAD_ALONG(x, blockIdx.x * THREADS, nx) {
        float high = (from[x] - mean[0]) * inverse[0], low = high;
        UNROLL for (int angle = 1; angle < N_ANGLES; ++angle) {
            const float value = (from[angle * response + x] - mean[angle]) * inverse[angle];
            high = value > high ? value : high;
            low = value < low ? value : low;
        }
        highest[x] = high;
        lowest[x] = low;
    }
}
