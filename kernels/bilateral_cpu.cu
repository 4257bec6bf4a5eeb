// Bilateral filter of 8-bit planes on a CPU; see bilateral.cu.   Python: gpu_tomoclass/features/accelerated/bilateral.py
//
// A block is one task of a CPU thread: ROWS x COLUMNS pixels, from a tile of grey levels with its surroundings, 0
// outside of the plane. Sums are added in the reference's order, row by row.
//
// With AVX-512 the compiler gathers both range weights of a difference at once, as one number of 64 bits, for several
// neighbours along x, and keeps their sums in registers along a row of taps. Per pixel and tap of each window: a load,
// a gather and 8 operations. Elsewhere gathers are slow, and eight lanes have all that is made of one tap: weight and
// weight times value, in both ranges, in both windows; the smaller window's weights by place are 0 outside of it, which
// adds 0 to sums of numbers that are not negative. Per pixel and tap of the larger window: 3 loads, 3 operations.
//
// Compile-time: ONE_THREAD, ROWS, COLUMNS.
#ifndef UNROLL
#define UNROLL _Pragma("unroll")
#endif
#define REACH 10
#define SIDE (2 * REACH + 1)
#define WIDTH (COLUMNS + 2 * REACH)

#if defined(__AVX512F__)
typedef int Level;
#define LEVEL 1

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

// All pixels of a block: `tile` begins REACH rows and columns before them.
__device__ __forceinline__ void filter(const Level (*tile)[WIDTH], const unsigned long long* weight_pairs,
                                       const float* small_spatial, const float* spatial, float* to, size_t channel,
                                       int rows, int n, int nx) {
    for (int y = 0; y < rows; ++y, to += nx) {
        filter_row<5>(tile + y + REACH, weight_pairs, small_spatial, to, to + channel, n);
        filter_row<10>(tile + y + REACH, weight_pairs, spatial, to + 2 * channel, to + 3 * channel, n);
    }
}
#else
typedef unsigned short Level;
#define LEVEL 32  // levels are held as distances between entries of tables, in bytes
#define BESIDE 4  // pixels at a time
typedef float Eight __attribute__((vector_size(32)));

// All pixels of a block: `tile` begins REACH rows and columns before them.
__device__ __forceinline__ void filter(const Level (*tile)[WIDTH], const unsigned long long* weight_pairs,
                                       const float* small_spatial, const float* spatial, float* to, size_t channel,
                                       int rows, int n, int nx) {
    Eight by_difference[511], by_level[256];  // twice: narrow, wide, narrow, wide range;  1, 1, level, level
    float by_place[SIDE][SIDE][2];           // in the smaller window, in the larger one
    for (int i = 0; i < 511; ++i) {
        const float near = __uint_as_float((unsigned)weight_pairs[i]);
        const float wide = __uint_as_float((unsigned)(weight_pairs[i] >> 32));
        by_difference[i] = Eight{near, wide, near, wide, near, wide, near, wide};
    }
    for (int i = 0; i < 256; ++i) {
        const float level = (float)i;
        by_level[i] = Eight{1.0f, 1.0f, level, level, 1.0f, 1.0f, level, level};
    }
    for (int j = 0; j < SIDE; ++j)
        for (int i = 0; i < SIDE; ++i) {
            const bool is_near = j >= 5 && j <= 15 && i >= 5 && i <= 15;
            by_place[j][i][0] = is_near ? small_spatial[(j - 5) * 11 + i - 5] : 0.0f;
            by_place[j][i][1] = spatial[j * SIDE + i];
        }
    for (int y = 0; y < rows; ++y, to += nx)
        for (int x = 0; x < n; x += BESIDE) {
            Eight sum[BESIDE];
            const char* weights[BESIDE];  // by level, for each pixel
            UNROLL for (int p = 0; p < BESIDE; ++p) {
                sum[p] = Eight{};
                weights[p] = (const char*)(by_difference + 255) - tile[y + REACH][x + REACH + p];
            }
            for (int j = 0; j < SIDE; ++j) {
                const Level* levels = tile[y + j] + x;
                for (int i = 0; i < SIDE; ++i) {
                    const float a = by_place[j][i][0], b = by_place[j][i][1];
                    Eight place = {a, a, a, a, b, b, b, b}; KEEP_VECTOR(place);
                    UNROLL for (int p = 0; p < BESIDE; ++p) {
                        const int level = levels[i + p];
                        sum[p] += *(const Eight*)(weights[p] + level) * place * *(const Eight*)((const char*)by_level + level);
                    }
                }
            }
            for (int p = 0; p < min(BESIDE, n - x); ++p)
                for (int c = 0; c < 4; ++c)
                    to[c * channel + x + p] = floorf(sum[p][c / 2 * 4 + c % 2 + 2] / sum[p][c / 2 * 4 + c % 2]);
        }
}
#endif

extern "C" __global__ void
bilateral_cpu(const unsigned char* __restrict__ grey, const unsigned long long* __restrict__ weight_pairs,
              const float* __restrict__ small_spatial, const float* __restrict__ spatial, float* __restrict__ result,
              int ny, int nx) {
    Level tile[ROWS + 2 * REACH][WIDTH];
    const int x0 = blockIdx.x * COLUMNS, y0 = blockIdx.y * ROWS;
    const int n = min(COLUMNS, nx - x0), rows = min(ROWS, ny - y0);
    const size_t n_pixels = (size_t)ny * nx, channel = n_pixels * gridDim.z;
    const unsigned char* plane = grey + blockIdx.z * n_pixels;
    for (int j = 0; j < rows + 2 * REACH; ++j) {
        const int y = y0 + j - REACH;
        for (int i = 0; i < WIDTH; ++i) tile[j][i] = 0;
        if (y < 0 || y >= ny) continue;
        const int first = max(0, x0 - REACH), last = min(nx, x0 + n + REACH);
        for (int x = first; x < last; ++x) tile[j][x - x0 + REACH] = (Level)(LEVEL * plane[(size_t)y * nx + x]);
    }
    float* to = result + blockIdx.z * n_pixels + (size_t)y0 * nx + x0;
    filter(tile, weight_pairs, small_spatial, spatial, to, channel, rows, n, nx);
}
