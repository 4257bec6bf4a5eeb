// One pass of imglib2's Gaussian blur, along x, y or z.   Python: gpu_tomoclass/features/accelerated/volume_blur.py
//
//   s[i] = sum over k = 0..2 half of w_|k - half| v[i + k - half], added up in float from the lowest to the highest k
//
// v[i] lies at place `places[half + i]` of its line: the table holds the mirrors, those of the whole volume. A line of the
// pass along x is a row; along y or z the place counts rows or planes, and lanes are neighbouring columns. Products and sums
// round separately. Per voxel 4 bytes read and written and 2 (2 half + 1) operations.
//
// On a CPU (ONE_THREAD) a block is TX columns and TY outputs, GROUPS vectors of LANES columns at a time, whose values are
// brought into the cache first.
//
// Compile-time: TX, TY (block); on a CPU also REACH (at least half).
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif

#if defined(ONE_THREAD)
#define LANES (__BIGGEST_ALIGNMENT__ / 4)
#define GROUPS 4
#define COLUMNS (GROUPS * LANES)
#define THREADS 1
typedef float Wide __attribute__((vector_size(LANES * sizeof(float))));
__device__ __forceinline__ Wide load(const float* from) {
    Wide values;
    memcpy(&values, from, sizeof values);
    return values;
}
__device__ __forceinline__ void store(float* to, Wide values, int n) {
    if (n >= LANES) memcpy(to, &values, sizeof values);
    else if (n > 0) memcpy(to, &values, n * sizeof(float));
}

// Sums at COLUMNS columns from `lowest` on; tap k is `step` floats behind tap k - 1.
__device__ __forceinline__ void blur(const float* lowest, int step, const float* weights, int half, float* to, int n) {
    Wide sum[GROUPS];
    UNROLL for (int g = 0; g < GROUPS; ++g) sum[g] = load(lowest + g * LANES) * weights[half];
    for (int k = 1; k <= 2 * half; ++k) {
        const float weight = weights[k < half ? half - k : k - half];
        UNROLL for (int g = 0; g < GROUPS; ++g)
            sum[g] = load(lowest + (size_t)k * step + g * LANES) * weight + sum[g];
    }
    UNROLL for (int g = 0; g < GROUPS; ++g) store(to + g * LANES, sum[g], n - g * LANES);
}
#else
#define THREADS (TX * TY)
#endif

// image, result: (n_lines, nx); places: (nx + 2 half). Grid: parts of a line, lines.
extern "C" __global__ void __launch_bounds__(THREADS)
volume_blur_x(const float* __restrict__ image, const int* __restrict__ places, const float* __restrict__ weights,
              float* __restrict__ result, int half, long long n_lines, int nx) {
#if defined(ONE_THREAD)
    __shared__ float line[TX + COLUMNS + 2 * REACH];
    const int x0 = blockIdx.x * TX, n = min(TX, nx - x0), n_tile = (n + COLUMNS - 1) / COLUMNS * COLUMNS + 2 * half;
    for (long long y = (long long)blockIdx.y * TY; y < n_lines && y < (long long)(blockIdx.y + 1) * TY; ++y) {
        const float* from = image + (size_t)y * nx;
        for (int i = 0; i < n_tile; ++i) line[i] = from[places[min(x0 + i, nx + 2 * half - 1)]];
        for (int x = 0; x < n; x += COLUMNS) blur(line + x, 1, weights, half, result + (size_t)y * nx + x0 + x, n - x);
    }
#else
    const int x = blockIdx.x * TX + threadIdx.x;
    const long long y = (long long)blockIdx.y * TY + threadIdx.y;
    if (x >= nx || y >= n_lines) return;
    const float* from = image + (size_t)y * nx;
    float sum = from[places[x]] * weights[half];
    for (int k = 1; k <= 2 * half; ++k) sum = from[places[x + k]] * weights[k < half ? half - k : k - half] + sum;
    result[(size_t)y * nx + x] = sum;
#endif
}

// image: (n_sub, n_in, width); places: (n_out + 2 half), of rows; result: (n_sub, n_out, width). Grid: strips of columns,
// bands of rows, n_sub.
extern "C" __global__ void __launch_bounds__(THREADS)
volume_blur_rows(const float* __restrict__ image, const int* __restrict__ places, const float* __restrict__ weights,
                 float* __restrict__ result, int half, int n_in, int n_out, int width) {
    const float* from = image + (size_t)blockIdx.z * n_in * width;
    float* to = result + (size_t)blockIdx.z * n_out * width;
#if defined(ONE_THREAD)
    __shared__ float tile[TY + 2 * REACH][COLUMNS];
    const int y0 = blockIdx.y * TY, n = min(TY, n_out - y0), stop = min(width, (int)(blockIdx.x + 1) * TX);
    for (int x0 = blockIdx.x * TX; x0 < stop; x0 += COLUMNS) {
        for (int i = 0; i < n + 2 * half; ++i) {
            const float* row = from + (size_t)places[y0 + i] * width + x0;
            if (x0 + COLUMNS <= width) memcpy(tile[i], row, sizeof tile[i]);
            else
                for (int l = 0; l < COLUMNS; ++l) tile[i][l] = row[min(l, width - 1 - x0)];
        }
        for (int i = 0; i < n; ++i)
            blur(tile[i], COLUMNS, weights, half, to + (size_t)(y0 + i) * width + x0, width - x0);
    }
#else
    const int x = blockIdx.x * TX + threadIdx.x, y = blockIdx.y * TY + threadIdx.y;
    if (x >= width || y >= n_out) return;
    float sum = from[(size_t)places[y] * width + x] * weights[half];
    for (int k = 1; k <= 2 * half; ++k)
        sum = from[(size_t)places[y + k] * width + x] * weights[k < half ? half - k : k - half] + sum;
    to[(size_t)y * width + x] = sum;
#endif
}
