// Bilateral filter of 8-bit planes: a mean over the pixels that are near in place and in grey level.
// Python: gpu_tomoclass/features/accelerated/bilateral.py
//
//   result = floor(sum w(q) grey(q) / sum w(q)),   w(q) = near(|grey(q) - grey(p)|) spatial(q - p)
//
// for 11 x 11 and 21 x 21 taps q around p, each with two ranges of grey levels (50 and 100); outside of the plane the
// grey level is 0. Sums in float32, row by row, as in the reference.
//
// A thread has one pixel. A block keeps its grey levels and their surroundings in shared memory (3.7 bytes per pixel
// are read with blocks of 32 x 16, 16 are written), and a copy of the range weights for every lane: of one copy, lanes
// would want different words of the same bank. Both ranges, and both filters where they overlap, share a tap's look-up:
// 441 look-ups per pixel, 2248 multiplications and as many additions.
//
// Compile-time: TX (32: a lane is a column), TY (block), CUT (the widest range: weights beyond are 0).
#ifndef UNROLL
#define UNROLL _Pragma("unroll")
#endif
#define REACH 10
#define TAPS 21
#define SMALL_REACH 5
#define SMALL_TAPS 11
#define FIRST (REACH - SMALL_REACH)  // of the small filter's rows and columns among the large one's
#define HIGH (TY + 2 * REACH)
#define WIDE (TX + 2 * REACH)

// Sums of values and weights of a filter: within the narrow range, within the wide one.
struct Sums { float narrow, narrow_weight, wide, wide_weight; };

__device__ __forceinline__ void add(Sums& sums, float2 near, float spatial, float value) {
    const float a = near.x * spatial, b = near.y * spatial;
    sums.narrow_weight += a;
    sums.narrow += a * value;
    sums.wide_weight += b;
    sums.wide += b * value;
}

// One row of taps; IS_SHARED: its middle also belongs to the small filter.
template <bool IS_SHARED>
__device__ __forceinline__ void add_row(const unsigned char* grey, int centre, const float2 (*near)[TX],
                                        const float* small_spatial, const float* spatial, Sums& small, Sums& large) {
    UNROLL for (int i = 0; i < TAPS; ++i) {
        const int level = grey[i];
        const float2 weights = near[min(abs(level - centre), CUT + 1)][threadIdx.x];
        add(large, weights, spatial[i], (float)level);
        if (IS_SHARED && i >= FIRST && i < FIRST + SMALL_TAPS)
            add(small, weights, small_spatial[i - FIRST], (float)level);
    }
}

extern "C" __global__ void __launch_bounds__(TX * TY)
bilateral(const unsigned char* __restrict__ grey, const float2* __restrict__ by_difference,
          const float* __restrict__ small_spatial, const float* __restrict__ spatial, float* __restrict__ result,
          int ny, int nx) {
    __shared__ unsigned char tile[HIGH][WIDE];
    __shared__ float2 near[CUT + 2][TX];
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * TY, lane = threadIdx.x;
    const size_t n_pixels = (size_t)ny * nx, channel = n_pixels * gridDim.z;
    const unsigned char* plane = grey + blockIdx.z * n_pixels;
    for (int j = threadIdx.y; j < HIGH; j += TY)
        for (int i = lane; i < WIDE; i += TX) {
            const int y = y0 + j - REACH, x = x0 + i - REACH;
            const bool is_inside = y >= 0 && y < ny && x >= 0 && x < nx;
            tile[j][i] = is_inside ? plane[(size_t)y * nx + x] : (unsigned char)0;
        }
    for (int d = threadIdx.y; d < CUT + 2; d += TY) near[d][lane] = by_difference[d];
    __syncthreads();
    const int x = x0 + lane, y = y0 + (int)threadIdx.y;
    if (x >= nx || y >= ny) return;

    Sums small = {0.0f, 0.0f, 0.0f, 0.0f}, large = {0.0f, 0.0f, 0.0f, 0.0f};
    const int centre = tile[threadIdx.y + REACH][lane + REACH];
    for (int j = 0; j < TAPS; ++j) {
        const unsigned char* row = tile[threadIdx.y + j] + lane;
        if (j >= FIRST && j < FIRST + SMALL_TAPS)
            add_row<true>(row, centre, near, small_spatial + (j - FIRST) * SMALL_TAPS, spatial + j * TAPS, small,
                          large);
        else
            add_row<false>(row, centre, near, small_spatial, spatial + j * TAPS, small, large);
    }
    float* to = result + blockIdx.z * n_pixels + (size_t)y * nx + x;
    to[0] = floorf(small.narrow / small.narrow_weight);
    to[channel] = floorf(small.wide / small.wide_weight);
    to[2 * channel] = floorf(large.narrow / large.narrow_weight);
    to[3 * channel] = floorf(large.wide / large.wide_weight);
}
