// Bilateral filter of 8-bit planes on a CPU; see bilateral.cu.   Python: gpu_tomoclass/features/accelerated/bilateral.py
//
// A block is one task of a CPU thread: ROWS x COLUMNS pixels, from a tile of grey levels with its surroundings, 0
// outside of the plane. The compiler gathers both range weights of a difference at once, as one number of 64 bits, for
// several neighbours along x, and keeps their sums in registers along a row of taps. Per pixel and tap: a load, a
// gather and 8 operations; the sums are added in the reference's order, row by row.
//
// Compile-time: ONE_THREAD, ROWS, COLUMNS.
#ifndef UNROLL
#define UNROLL _Pragma("unroll")
#endif
#define REACH 10
#define WIDTH (COLUMNS + 2 * REACH)

// Adds one row of 2 R + 1 taps to the sums of n pixels: sums[0], sums[1] are values and weights within the narrow range
// of grey levels, [2], [3] within the wide one. `grey` points to the first pixel's leftmost tap.
template <int R>
__device__ __forceinline__ void add_row(const int* grey, const int* centre, const unsigned long long* weight_pairs,
                                        const float* spatial, float (*sums)[COLUMNS], int n) {
    for (int x = 0; x < n; ++x) {
        const int from_centre = 255 - centre[x];
        float near = sums[0][x], near_weight = sums[1][x], wide = sums[2][x], wide_weight = sums[3][x];
        UNROLL for (int i = 0; i <= 2 * R; ++i) {
            const int level = grey[x + i];
            const unsigned long long weights = weight_pairs[level + from_centre];
            const float value = (float)level;
            const float a = __uint_as_float((unsigned)weights) * spatial[i];
            const float b = __uint_as_float((unsigned)(weights >> 32)) * spatial[i];
            near_weight += a;
            near += a * value;
            wide_weight += b;
            wide += b * value;
        }
        sums[0][x] = near;
        sums[1][x] = near_weight;
        sums[2][x] = wide;
        sums[3][x] = wide_weight;
    }
}

template <int R>
__device__ __forceinline__ void filter_row(const int (*tile)[WIDTH], const unsigned long long* weight_pairs,
                                           const float* spatial, float* narrow, float* wide, int n) {
    float sums[4][COLUMNS];
    for (int k = 0; k < 4; ++k)
        for (int x = 0; x < n; ++x) sums[k][x] = 0.0f;
    for (int j = -R; j <= R; ++j)
        add_row<R>(tile[j] + REACH - R, tile[0] + REACH, weight_pairs, spatial + (j + R) * (2 * R + 1), sums, n);
    for (int x = 0; x < n; ++x) {
        narrow[x] = floorf(sums[0][x] / sums[1][x]);
        wide[x] = floorf(sums[2][x] / sums[3][x]);
    }
}

extern "C" __global__ void
bilateral_cpu(const unsigned char* __restrict__ grey, const unsigned long long* __restrict__ weight_pairs,
              const float* __restrict__ small_spatial, const float* __restrict__ spatial, float* __restrict__ result,
              int ny, int nx) {
    int tile[ROWS + 2 * REACH][WIDTH];
    const int x0 = blockIdx.x * COLUMNS, y0 = blockIdx.y * ROWS;
    const int n = min(COLUMNS, nx - x0), rows = min(ROWS, ny - y0);
    const size_t n_pixels = (size_t)ny * nx, channel = n_pixels * gridDim.z;
    const unsigned char* plane = grey + blockIdx.z * n_pixels;
    for (int j = 0; j < rows + 2 * REACH; ++j) {
        const int y = y0 + j - REACH;
        for (int i = 0; i < WIDTH; ++i) tile[j][i] = 0;
        if (y < 0 || y >= ny) continue;
        const int first = max(0, x0 - REACH), last = min(nx, x0 + n + REACH);
        for (int x = first; x < last; ++x) tile[j][x - x0 + REACH] = plane[(size_t)y * nx + x];
    }
    for (int y = 0; y < rows; ++y) {
        float* to = result + blockIdx.z * n_pixels + (size_t)(y0 + y) * nx + x0;
        filter_row<5>(tile + y + REACH, weight_pairs, small_spatial, to, to + channel, n);
        filter_row<10>(tile + y + REACH, weight_pairs, spatial, to + 2 * channel, to + 3 * channel, n);
    }
}
