// Linear Kuwahara filter: the mean along the calmest line through each pixel.   Python: gpu_tomoclass/accelerated/kuwahara.py
//
//   r = image - minimum of the plane;  for each of ten lines L (pixels (dy, dx) around a centre):
//     m = sum r / n,  v = sum r^2 / n - m^2      along L centred on each pixel, in float32, row by row
//     figures: v, v / m, v / m^2;  for each of them the position along L, through each pixel, where it is smallest
//   result[criterion] = m at the smallest figure of all lines + 0.5 + minimum
//
// Edge pixels repeat, also those of means and figures. Comparisons are strict: the earlier position or line wins.
//
// `kuwahara_raised` writes r with its edges repeated around it. Then, line by line, `kuwahara_line` writes m and the three
// figures in the same layout (16 bytes per pixel, 2 n additions), and `kuwahara_search` looks along the line (16 n bytes
// per pixel from caches, 3 n comparisons) and keeps the best so far (24 bytes per pixel read and written). n is about 21
// for the usual patch of 19. On a GPU a thread has one pixel; on a CPU (ONE_THREAD) a block is a line of the plane, done
// in vectors of LANES pixels.
//
// Compile-time: TX, TY (block).
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif
#define CRITERIA 3
#define THREADS (TX * TY)
#define LARGEST 3.402823466e+38f

#if defined(ONE_THREAD)
// Vectors of the width that this CPU has, in the notation of GCC and Clang.
#define LANES (__BIGGEST_ALIGNMENT__ / 4)
typedef float Wide __attribute__((vector_size(LANES * sizeof(float))));
__device__ __forceinline__ Wide load(const float* from) {
    Wide values;
    memcpy(&values, from, sizeof values);
    return values;
}
__device__ __forceinline__ void store(Wide values, float* to) { memcpy(to, &values, sizeof values); }
__device__ __forceinline__ Wide all(float value) { return Wide{} + value; }
#define FIRST_COLUMN half  // a CPU fills the margins of a row afterwards
#define LAST_COLUMN (half + nx)
#else
#define LANES 1
typedef float Wide;
__device__ __forceinline__ Wide load(const float* from) { return *from; }
__device__ __forceinline__ void store(Wide value, float* to) { *to = value; }
__device__ __forceinline__ Wide all(float value) { return value; }
#define FIRST_COLUMN (blockIdx.x * TX + threadIdx.x)
#define LAST_COLUMN (nx + 2 * half)
#endif

// padded: (nz, n_rows, pitch); pixel (y, x) of a plane is at (y + half, x + half). limits: least and largest value.
extern "C" __global__ void __launch_bounds__(THREADS)
kuwahara_raised(const float* __restrict__ image, const float* __restrict__ limits, float* __restrict__ padded, int half,
                int n_rows, int pitch, int ny, int nx) {
    const int y = blockIdx.y * TY + threadIdx.y;
    if (y >= n_rows) return;
    const float low = limits[2 * blockIdx.z];
    const float* from = image + (blockIdx.z * (size_t)ny + min(max(y - half, 0), ny - 1)) * nx;
    float* to = padded + (blockIdx.z * (size_t)n_rows + y) * pitch;
    for (int x = blockIdx.x * TX + threadIdx.x; x < pitch; x += gridDim.x * TX)
        to[x] = from[min(max(x - half, 0), nx - 1)] - low;
}

// v / d where TWS adds its smallest float to d: that matters only where d is 0, and is written without it, since GPUs
// flush such numbers. There m is 0, so v is too, unless a square has underflowed.
__device__ __forceinline__ Wide quotient(Wide v, Wide d) {
    const Wide huge = v * LARGEST * LARGEST, plain = v / d;
    return d == 0.0f ? (v == 0.0f ? v : huge) : plain;
}

// distances: of the line's pixels from its centre, in pixels of `padded`. lines: (4, nz, n_rows, pitch), m and the figures.
extern "C" __global__ void __launch_bounds__(THREADS)
kuwahara_line(const float* __restrict__ padded, const int* __restrict__ distances, float* __restrict__ lines, int first,
              int n, int half, int n_rows, int pitch, int ny, int nx) {
    const int row = blockIdx.y * TY + threadIdx.y;
    if (row >= n_rows) return;
    const size_t step = (size_t)gridDim.z * n_rows * pitch, plane = blockIdx.z * (size_t)n_rows * pitch;
    const int y = min(max(row - half, 0), ny - 1);
    const float* centre = padded + plane + (size_t)(y + half) * pitch + half;
    float* to = lines + plane + (size_t)row * pitch;
    for (int column = FIRST_COLUMN; column < LAST_COLUMN; column += gridDim.x * TX * LANES) {
        const int x = min(max(column - half, 0), nx - 1);
        Wide total = all(0.0f), squares = all(0.0f);
        for (int k = first; k < first + n; ++k) {
            const Wide value = load(centre + x + distances[k]);
            total = total + value;
            squares = squares + value * value;
        }
        const float count = (float)n;
        const Wide mean = total / count, variance = squares / count - mean * mean;
        store(mean, to + column);
        store(variance, to + step + column);
        store(quotient(variance, mean), to + 2 * step + column);
        store(quotient(variance, mean * mean), to + 3 * step + column);
    }
#if defined(ONE_THREAD)
    for (int i = 0; i < 1 + CRITERIA; ++i, to += step) {
        for (int x = 0; x < half; ++x) to[x] = to[half];
        for (int x = 0; x < half; ++x) to[half + nx + x] = to[half + nx - 1];
    }
#endif
}

// smallest: (3, nz, ny, width), the best figure of the lines before. result: (3, nz, ny, width), the mean there.
extern "C" __global__ void __launch_bounds__(THREADS)
kuwahara_search(const float* __restrict__ lines, const int* __restrict__ distances, float* __restrict__ smallest,
                float* __restrict__ result, int first, int n, int half, int n_rows, int pitch, int ny, int width) {
    const int y = blockIdx.y * TY + threadIdx.y;
    if (y >= ny) return;
    const size_t step = (size_t)gridDim.z * n_rows * pitch, to_step = (size_t)gridDim.z * ny * width;
    const float* row = lines + blockIdx.z * (size_t)n_rows * pitch + (size_t)(y + half) * pitch + half;
    const size_t to_row = (blockIdx.z * (size_t)ny + y) * width;
    for (int x = (blockIdx.x * TX + threadIdx.x) * LANES; x < width; x += gridDim.x * TX * LANES) {
        Wide calmest[CRITERIA], value[CRITERIA];
        UNROLL for (int c = 0; c < CRITERIA; ++c) {
            calmest[c] = all(LARGEST);
            value[c] = load(row + x);
        }
        for (int k = first; k < first + n; ++k) {
            const float* at = row + x + distances[k];
            const Wide mean = load(at);
            UNROLL for (int c = 0; c < CRITERIA; ++c) {
                const Wide figure = load(at + (c + 1) * step);
                value[c] = figure < calmest[c] ? mean : value[c];
                calmest[c] = figure < calmest[c] ? figure : calmest[c];
            }
        }
        UNROLL for (int c = 0; c < CRITERIA; ++c) {
            const size_t to = c * to_step + to_row + x;
            const Wide before = first == 0 ? all(LARGEST) : load(smallest + to);
            const Wide of_before = first == 0 ? all(0.0f) : load(result + to);
            store(calmest[c] < before ? value[c] : of_before, result + to);
            store(calmest[c] < before ? calmest[c] : before, smallest + to);
        }
    }
}

// result = best + 0.5 + the plane's minimum, added in this order.
extern "C" __global__ void __launch_bounds__(THREADS)
kuwahara_lowered(const float* __restrict__ best, const float* __restrict__ limits, float* __restrict__ result, int width,
                 int ny, int nx) {
    const int y = blockIdx.y * TY + threadIdx.y;
    if (y >= ny) return;
    const float low = limits[2 * blockIdx.z];
    for (int c = 0; c < CRITERIA; ++c) {
        const size_t row = (c * (size_t)gridDim.z + blockIdx.z) * ny + y;
        for (int x = blockIdx.x * TX + threadIdx.x; x < nx; x += gridDim.x * TX)
            result[row * nx + x] = best[row * width + x] + 0.5f + low;
    }
}
