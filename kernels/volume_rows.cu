// A Gaussian kernel along y or z of a volume.   Python: gpu_tomoclass/features/accelerated/volume_derivatives.py
//
//   even order:  s[i] = w_0 v[i] + sum over k = 1..half of w_k (v[i - k] + v[i + k]);  odd order: v[i - k] - v[i + k]
//
// v[i] is row `rows[half + i]` of the image: the table holds mirrors and padding, those of the whole volume. For the pass
// along y a row is a row of a plane, and there are n_sub planes; along z it is a plane, so that positions are those of the
// volume while the image is a slab. Sums are double, in the order of k, a product and a sum round separately; s is rounded
// to float. Per voxel: 4 bytes read, 4 written, 3 operations in double per tap of one side.
//
// ROWS outputs above each other are computed together: from k to k + 1 their upper neighbours move up by one, the lower ones
// down by one, so that two loads serve 3 ROWS operations. On a GPU these are all that a thread has; it loads whole lines,
// all but the first time from caches. On a CPU (ONE_THREAD) a block is a strip of TX columns and BAND outputs, brought into
// the cache as doubles first: planes lie apart by powers of two too often.
//
// Compile-time: TX, TY (block); on a CPU also REACH (at least the longest half).
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif

#if defined(ONE_THREAD)
#define LANES (__BIGGEST_ALIGNMENT__ / 8)
#define ROWS (LANES == 8 ? 8 : 4)  // with AVX-512 there are 32 registers, else 16
#define BAND 128
#define GROUPS (TX / LANES)
#define THREADS_X 1
// Vectors of the width that this CPU has, in the notation of GCC and Clang: sums stay in registers along the taps.
typedef double Wide __attribute__((vector_size(LANES * sizeof(double))));
typedef float Narrow __attribute__((vector_size(LANES * sizeof(float))));
typedef double Tile[GROUPS][BAND + 2 * REACH + ROWS][LANES];

struct Column {
    const double* rows;  // of LANES columns; row 0 has `half` others before it
};

__device__ __forceinline__ Wide value(const Column& column, int row) {
    Wide values;
    memcpy(&values, column.rows + row * LANES, sizeof values);
    return values;
}

// The band from output y0 on, with `half` rows around it; columns beyond the image repeat its last one.
__device__ __forceinline__ void fill(Tile tile, const float* image, const int* rows, int half, int n, int x0, int width) {
    const int n_rows = (n + ROWS - 1) / ROWS * ROWS + 2 * half;
    for (int i = 0; i < n_rows; ++i) {
        const float* line = image + (size_t)rows[min(i, n + 2 * half - 1)] * width;
        UNROLL for (int g = 0; g < GROUPS; ++g) {
            const int x = x0 + g * LANES;
            Narrow values;
            if (x + LANES <= width) memcpy(&values, line + x, sizeof values);
            else
                for (int l = 0; l < LANES; ++l) values[l] = line[min(x + l, width - 1)];
            const Wide wide = __builtin_convertvector(values, Wide);
            memcpy(tile[g][i], &wide, sizeof wide);
        }
    }
}

__device__ __forceinline__ void store(float* to, Wide values, int n) {
    const Narrow rounded = __builtin_convertvector(values, Narrow);
    if (n >= LANES) memcpy(to, &rounded, sizeof rounded);
    else
        for (int l = 0; l < n; ++l) to[l] = rounded[l];
}
#else
#define LANES 1
#define ROWS 4
#define BAND ROWS
#define THREADS_X TX
typedef double Wide;

struct Column {
    const float* pixels;
    const int* rows;
    int last, width;
};

__device__ __forceinline__ Wide value(const Column& column, int row) {
    return column.pixels[(size_t)column.rows[min(row, column.last)] * column.width];
}
__device__ __forceinline__ void store(float* to, Wide value, int) { *to = (float)value; }
#endif
#define THREADS (THREADS_X * TY)

template <bool IS_ODD>
__device__ __forceinline__ void convolve(const Column& column, int row, const double* weights, int half, float* to,
                                         int n_rows, int n_columns, size_t width) {
    Wide sum[ROWS], above[ROWS], below[ROWS];
    UNROLL for (int r = 0; r < ROWS; ++r) {
        above[r] = below[r] = value(column, row + r);
        sum[r] = above[r] * weights[0];
    }
    for (int k0 = 1; k0 <= half; k0 += ROWS)
        UNROLL for (int j = 0; j < ROWS; ++j) {
            const int k = k0 + j;
            if (k > half) break;
            UNROLL for (int r = ROWS - 1; r > 0; --r) above[r] = above[r - 1];
            UNROLL for (int r = 0; r < ROWS - 1; ++r) below[r] = below[r + 1];
            above[0] = value(column, row - k);
            below[ROWS - 1] = value(column, row + ROWS - 1 + k);
            const double weight = weights[k];
            UNROLL for (int r = 0; r < ROWS; ++r)
                sum[r] = sum[r] + (IS_ODD ? above[r] - below[r] : above[r] + below[r]) * weight;
        }
    UNROLL for (int r = 0; r < ROWS; ++r)
        if (r < n_rows) store(to + r * width, sum[r], n_columns);
}

// image: (n_sub, n_in, width); rows: (n_out + 2 half); weights: (half + 1); result: (n_sub, n_out, width). Grid: strips,
// bands, n_sub.
extern "C" __global__ void __launch_bounds__(THREADS)
volume_rows(const float* __restrict__ image, const int* __restrict__ rows, const double* __restrict__ weights,
            float* __restrict__ result, int half, int is_odd, int n_in, int n_out, int width) {
    const float* from = image + (size_t)blockIdx.z * n_in * width;
    const int y0 = (blockIdx.y * TY + threadIdx.y) * BAND;
    if (y0 >= n_out) return;
    float* to = result + ((size_t)blockIdx.z * n_out + y0) * width;
#if defined(ONE_THREAD)
    __shared__ Tile tile;
    const int n = min(BAND, n_out - y0), x0 = blockIdx.x * TX;
    fill(tile, from, rows + y0, half, n, x0, width);
    for (int g = 0; g < GROUPS && x0 + g * LANES < width; ++g) {
        const int x = x0 + g * LANES;
        const Column column = {tile[g][half]};
        for (int row = 0; row < n; row += ROWS) {
            float* here = to + (size_t)row * width + x;
            if (is_odd) convolve<true>(column, row, weights, half, here, n - row, width - x, width);
            else convolve<false>(column, row, weights, half, here, n - row, width - x, width);
        }
    }
#else
    const int x = blockIdx.x * TX + threadIdx.x;
    if (x >= width) return;
    const Column column = {from + x, rows + half + y0, n_out + half - 1 - y0, width};
    if (is_odd) convolve<true>(column, 0, weights, half, to + x, n_out - y0, 1, width);
    else convolve<false>(column, 0, weights, half, to + x, n_out - y0, 1, width);
#endif
}
