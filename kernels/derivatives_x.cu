// Gaussian kernels of several orders along x, from one reading.   Python: gpu_tomoclass/features/accelerated/derivatives.py
//
//   even order:  result[i, z, y, x] = w_i0 v[x] + sum over k = 1..half_i of w_ik (v[x - k] + v[x + k])
//   odd order:   the same with v[x - k] - v[x + k]
//
// Pixels mirror at the edges without repeating the edge pixel. Sums are double, in the order of k; a product and a sum
// round separately, as in the reference; the result is rounded to float. Per pixel: 4 bytes read, 4 KERNELS bytes
// written, and per tap one addition for each parity and two operations for each kernel.
//
// A block has its pixels and what lies up to REACH to either side in shared memory, as doubles: conversions cost as
// much as four additions. On a GPU a thread has ROWS pixels above each other, which share the reading of the weights.
// On a CPU (ONE_THREAD) a block is a piece of one line, done in GROUPS vectors of LANES pixels at a time.
//
// Compile-time: KERNELS, ODD (bit i: kernel i is of odd order), REACH (at least the longest half), TX (pixels of a
// block along x); on a GPU also ROWS.
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif

#if defined(ONE_THREAD)
// Vectors of the width that this CPU has, in the notation of GCC and Clang: they stay in registers along the taps.
#define LANES (__BIGGEST_ALIGNMENT__ / 8)
#define GROUPS (LANES == 8 ? 4 : 2)  // with AVX-512 there are 32 registers, else 16
#define ROWS 1
#define THREADS 1
#define GROUP_ROW(g) 0
#define GROUP_COLUMN(g) ((g) * LANES)
typedef double Wide __attribute__((vector_size(LANES * sizeof(double))));
typedef float Narrow __attribute__((vector_size(LANES * sizeof(float))));
__device__ __forceinline__ Wide load(const double* from) {
    Wide values;
    memcpy(&values, from, sizeof values);
    return values;
}
__device__ __forceinline__ void store(float* to, Wide values, int n) {
    const Narrow rounded = __builtin_convertvector(values, Narrow);
    if (n >= LANES) memcpy(to, &rounded, sizeof rounded);
    else if (n > 0) memcpy(to, &rounded, n * sizeof(float));
}
#else
#define LANES 1
#define GROUPS ROWS
#define THREADS TX
#define GROUP_ROW(g) (g)
#define GROUP_COLUMN(g) 0
typedef double Wide;
__device__ __forceinline__ Wide load(const double* from) { return *from; }
__device__ __forceinline__ void store(float* to, Wide value, int n) {
    if (n > 0) *to = (float)value;
}
#endif
#define STEP (GROUPS / ROWS * LANES)               // pixels of a thread along x
#define SPAN ((TX + STEP - 1) / STEP * STEP + 2 * REACH)

// Pixels farther away than the plane is long are needed by no result that is kept.
__device__ __forceinline__ int mirrored(int i, int n) {
    i = i < 0 ? -i : i;
    i = i >= n ? 2 * (n - 1) - i : i;
    return i < 0 ? 0 : i;
}

// Adds the pixels at a distance of k to the sums of kernels that reach so far; IN_ALL says that all do.
template <bool IN_ALL>
__device__ __forceinline__ void add_taps(const double* centre, int k, const int* half,
                                         const double* __restrict__ weights, int stride, Wide (*sum)[GROUPS]) {
    Wide even[GROUPS], odd[GROUPS];
    UNROLL for (int g = 0; g < GROUPS; ++g) {
        const double* at = centre + GROUP_ROW(g) * SPAN + GROUP_COLUMN(g);
        const Wide before = load(at - k), behind = load(at + k);
        even[g] = before + behind;
        odd[g] = before - behind;
    }
    UNROLL for (int i = 0; i < KERNELS; ++i)
        if (IN_ALL || k <= half[i]) {
            const double weight = weights[i * stride + k];
            UNROLL for (int g = 0; g < GROUPS; ++g)
                sum[i][g] = sum[i][g] + (ODD >> i & 1 ? odd[g] : even[g]) * weight;
        }
}

extern "C" __global__ void __launch_bounds__(THREADS)
derivatives_x(const float* __restrict__ images, const double* __restrict__ weights, const int* __restrict__ halves,
              float* __restrict__ result, int stride, int ny, int nx) {
    __shared__ double tile[ROWS][SPAN];
    const size_t n_pixels = (size_t)ny * nx, kernel_step = n_pixels * gridDim.z;
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * ROWS;
    const int n_here = min(TX, nx - x0);
    int half[KERNELS], longest = 0;
    UNROLL for (int i = 0; i < KERNELS; ++i) {
        half[i] = halves[i];
        longest = max(longest, half[i]);
    }

    const int n_tile = (n_here + STEP - 1) / STEP * STEP + 2 * longest;
    for (int row = 0; row < ROWS; ++row) {
        const float* line = images + blockIdx.z * n_pixels + (size_t)min(y0 + row, ny - 1) * nx;
#if defined(ONE_THREAD)  // what lies inside of the plane goes without mirroring, in vectors
        const int before = x0 - longest, inside = max(0, -before), beyond = min(n_tile, nx - before);
        for (int i = 0; i < inside; ++i) tile[row][i] = line[mirrored(before + i, nx)];
        for (int i = inside; i < beyond; ++i) tile[row][i] = line[before + i];
        for (int i = beyond; i < n_tile; ++i) tile[row][i] = line[mirrored(before + i, nx)];
#else
        for (int i = threadIdx.x; i < n_tile; i += THREADS) tile[row][i] = line[mirrored(x0 - longest + i, nx)];
#endif
    }
    __syncthreads();

#if defined(ONE_THREAD)
    int shortest = longest;
    UNROLL for (int i = 0; i < KERNELS; ++i) shortest = min(shortest, half[i]);
#endif
    for (int x = threadIdx.x * STEP; x < n_here; x += THREADS * STEP) {
        const double* centre = &tile[0][longest + x];
        Wide sum[KERNELS][GROUPS];
        UNROLL for (int i = 0; i < KERNELS; ++i)
            UNROLL for (int g = 0; g < GROUPS; ++g)
                sum[i][g] = load(centre + GROUP_ROW(g) * SPAN + GROUP_COLUMN(g)) * weights[i * stride];
        int k = 1;
#if defined(ONE_THREAD)
        for (; k <= shortest; ++k) add_taps<true>(centre, k, half, weights, stride, sum);
#endif
        for (; k <= longest; ++k) add_taps<false>(centre, k, half, weights, stride, sum);
        UNROLL for (int i = 0; i < KERNELS; ++i)
            UNROLL for (int g = 0; g < GROUPS; ++g) {
                const int y = y0 + GROUP_ROW(g), column = x + GROUP_COLUMN(g);
                float* to = result + i * kernel_step + blockIdx.z * n_pixels + (size_t)y * nx + x0 + column;
                store(to, sum[i][g], y < ny ? n_here - column : 0);
            }
    }
}
