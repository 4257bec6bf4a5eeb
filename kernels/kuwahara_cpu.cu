// Mean of the calmest of all lines through each pixel, for a CPU.   Python: gpu_tomoclass/features/accelerated/kuwahara.py
//
// As kernels/kuwahara.cu. A block has BAND rows of a plane: angle after angle it computes means and figures of these
// rows and those within `half` of them into a scratch that stays in the second-level cache, then looks for the calmest.
// TILE pixels at a time, side by side in registers.
//
// Compile-time: ONE_THREAD, BAND, HALF (at least `half`, the patch over 2).
#define N_ANGLES 10
#define N_CRITERIA 3
#define N_FIGURES (1 + N_CRITERIA)  // the mean comes first
// Vectors of the width that this CPU has, in the notation of GCC and Clang: of loops over arrays GCC 12 made branches
// and gathers, nearly three times as slow.
#define LANES ((int)(__BIGGEST_ALIGNMENT__ / sizeof(float)))
#define GROUPS (LANES >= 16 ? 2 : 1)  // there are twice as many registers of 64 bytes
#define TILE (GROUPS * LANES)
typedef float Wide __attribute__((vector_size(LANES * sizeof(float))));

__device__ __forceinline__ Wide load(const float* from) {
    Wide values;
    memcpy(&values, from, sizeof values);
    return values;
}

__device__ __forceinline__ void store(float* to, Wide values) { memcpy(to, &values, sizeof values); }

// Figures of TILE pixels; figure f goes to figures + f * stride.
__device__ __forceinline__ void figures_of_tile(const float* centre, const int2* line, int n_line, int pitch,
                                                float* figures, size_t stride) {
    Wide sum[GROUPS], sum_of_squares[GROUPS];
    UNROLL for (int g = 0; g < GROUPS; ++g) sum[g] = sum_of_squares[g] = Wide{};
    for (int k = 0; k < n_line; ++k) {
        const float* from = centre + (long long)line[k].x * pitch + line[k].y;
        UNROLL for (int g = 0; g < GROUPS; ++g) {
            const Wide value = load(from + g * LANES);
            sum[g] += value;
            sum_of_squares[g] += value * value;
        }
    }
    const float n = n_line;
    const Wide zero{}, one = zero + 1.0f;
    UNROLL for (int g = 0; g < GROUPS; ++g) {
        const Wide mean = sum[g] / n, square = mean * mean, variance = sum_of_squares[g] / n - square;
        float* to = figures + g * LANES;
        store(to, mean);
        store(to + stride, variance);
        store(to + 2 * stride, variance / (mean > zero ? mean : one));
        store(to + 3 * stride, variance / (square > zero ? square : one));
    }
}

// Updates the smallest figure and the mean there of TILE pixels, from x on. rows[dy] is where the figures of row y + dy
// begin.
__device__ __forceinline__ void calmest_of_tile(const float* const* rows, const int2* line, int n_line, int x,
                                                size_t stride, float* smallest, float* means, size_t state_stride) {
    Wide figure[N_CRITERIA][GROUPS], mean[N_CRITERIA][GROUPS];
    UNROLL for (int c = 0; c < N_CRITERIA; ++c) UNROLL for (int g = 0; g < GROUPS; ++g) {
        figure[c][g] = load(smallest + c * state_stride + x + g * LANES);
        mean[c][g] = load(means + c * state_stride + x + g * LANES);
    }
    for (int k = 0; k < n_line; ++k) {
        const float* from = rows[line[k].x] + x + line[k].y;
        UNROLL for (int g = 0; g < GROUPS; ++g) {
            const Wide there = load(from + g * LANES);
            UNROLL for (int c = 0; c < N_CRITERIA; ++c) {
                const Wide candidate = load(from + (c + 1) * stride + g * LANES);
                mean[c][g] = candidate < figure[c][g] ? there : mean[c][g];
                figure[c][g] = candidate < figure[c][g] ? candidate : figure[c][g];
            }
        }
    }
    UNROLL for (int c = 0; c < N_CRITERIA; ++c) UNROLL for (int g = 0; g < GROUPS; ++g) {
        store(smallest + c * state_stride + x + g * LANES, figure[c][g]);
        store(means + c * state_stride + x + g * LANES, mean[c][g]);
    }
}

// `raised` is (nz, ny + 2 half, pitch), pitch = width + 2 half, width a multiple of TILE, at least nx; block 0
// has rows from first_band * BAND on. A block's part of `scratch`: figures [figure][row][pitch] of BAND + 2 half rows, then [smallest, mean][criterion][row][width].
extern "C" __global__ void kuwahara_cpu(const float* __restrict__ raised, const int2* __restrict__ line,
                                        const int* __restrict__ starts, const float* __restrict__ extremes,
                                        float* __restrict__ scratch, float* __restrict__ result, int half, int pitch,
                                        int first_band, int ny, int nx) {
    const int z = blockIdx.y, width = pitch - 2 * half;
    const int first = (first_band + blockIdx.x) * BAND, last = min(first + BAND, ny);
    const int first_row = max(first - half, 0), last_row = min(last + half, ny);
    const size_t stride = (size_t)(BAND + 2 * half) * pitch, state_stride = (size_t)BAND * width;
    const size_t per_block = N_FIGURES * stride + 2 * N_CRITERIA * state_stride;
    float* figures = scratch + ((size_t)z * gridDim.x + blockIdx.x) * per_block;
    float *smallest = figures + N_FIGURES * stride, *means = smallest + N_CRITERIA * state_stride;
    for (size_t i = 0; i < N_CRITERIA * state_stride; ++i) {
        smallest[i] = 3.402823466e+38f;
        means[i] = 0.0f;
    }
    const float* plane = raised + ((size_t)z * (ny + 2 * half) + half) * pitch + half;
    const float* rows[2 * HALF + 1];
    for (int a = 0; a < N_ANGLES; ++a) {
        const int2* pixels = line + starts[a];
        const int n_line = starts[a + 1] - starts[a];
        for (int y = first_row; y < last_row; ++y) {
            float* row = figures + (size_t)(y - first_row) * pitch + half;
            for (int x = 0; x < width; x += TILE)
                figures_of_tile(plane + (size_t)y * pitch + x, pixels, n_line, pitch, row + x, stride);
            for (int f = 0; f < N_FIGURES; ++f) {
                const float left = row[f * stride], right = row[f * stride + nx - 1];
                for (int x = -half; x < 0; ++x) row[(long long)(f * stride) + x] = left;
                for (int x = nx; x < width + half; ++x) row[f * stride + x] = right;
            }
        }
        for (int y = first; y < last; ++y) {
            for (int dy = -half; dy <= half; ++dy)
                rows[half + dy] = figures + (size_t)(min(max(y + dy, 0), ny - 1) - first_row) * pitch + half;
            const size_t state = (size_t)(y - first) * width;
            for (int x = 0; x < width; x += TILE)
                calmest_of_tile(rows + half, pixels, n_line, x, stride, smallest + state, means + state, state_stride);
        }
    }
    const float low = extremes[2 * z];
    const size_t n_pixels = (size_t)ny * nx, channel = n_pixels * gridDim.y;
    for (int c = 0; c < N_CRITERIA; ++c)
        for (int y = first; y < last; ++y) {
            const float* from = means + c * state_stride + (size_t)(y - first) * width;
            float* to = result + c * channel + z * n_pixels + (size_t)y * nx;
            for (int x = 0; x < nx; ++x) to[x] = from[x] + 0.5f + low;
        }
}
