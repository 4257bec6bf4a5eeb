// Mean of the calmest of all lines through each pixel.   Python: gpu_tomoclass/features/accelerated/kuwahara.py
//
//   raised = image - low                                      low: the plane's minimum
//   mean_a = sum over line a of raised / n_a,   variance_a = sum over line a of raised^2 / n_a - mean_a^2
//   figure = variance, variance / mean, variance / mean^2     criteria 0, 1, 2
//   result = the mean where a figure is smallest, among 10 angles a and all positions on line a, + 0.5 + low
//
// Edge pixels repeat, of the image and of the figures. All float32, lines from their first row on, the first of equal
// figures wins: as in the reference, so that results are equal in every bit. Where a mean or its square is 0, so are
// all pixels on the line and the variance; the divisor is then 1 instead of the smallest float of all, a denormal.
//
// `kuwahara_raised` writes the image with its edges repeated, `kuwahara_figures` the mean and the figures as a float4
// per pixel and angle, with their edges repeated too; so both are read at distances that are the same for all pixels.
// Lanes along x; a thread has PIXELS pixels, TX apart, for which it reads a distance once. Per pixel and angle (patch
// 19, 20 pixels on a line) 40 additions, 20 products and 20 x 4 bytes from caches, then 20 x 16 bytes and 60 comparisons.
//
// Compile-time: TX, TY (block), PIXELS.
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif
#define N_CRITERIA 3
#define THREADS (TX * TY)

// (nz, ny + 2 half, pitch).
extern "C" __global__ void __launch_bounds__(THREADS)
kuwahara_raised(const float* __restrict__ image, const float* __restrict__ extremes, float* __restrict__ raised,
                int half, int pitch, int ny, int nx) {
    const int x = blockIdx.x * TX + threadIdx.x, y = blockIdx.y * TY + threadIdx.y, z = blockIdx.z;
    const int height = ny + 2 * half;
    if (x >= pitch || y >= height) return;
    const int from_x = min(max(x - half, 0), nx - 1), from_y = min(max(y - half, 0), ny - 1);
    const float value = image[((size_t)z * ny + from_y) * nx + from_x];
    raised[((size_t)z * height + y) * pitch + x] = value - extremes[2 * z];
}

// Figures of angles first_angle .. first_angle + n_angles - 1, [angle][z][ny + 2 half][pitch], pitch = nx + 2 half. Line a
// has the pixels starts[a] .. starts[a + 1] - 1 of `distances`, which are dy pitch + dx.
extern "C" __global__ void __launch_bounds__(THREADS)
kuwahara_figures(const float* __restrict__ raised, const int* __restrict__ distances, const int* __restrict__ starts,
                 float4* __restrict__ figures, int first_angle, int n_angles, int half, int ny, int nx) {
    const int x = blockIdx.x * (TX * PIXELS) + threadIdx.x, y = blockIdx.y * TY + threadIdx.y, z = blockIdx.z;
    const int pitch = nx + 2 * half, height = ny + 2 * half;
    if (x >= pitch || y >= height) return;
    const size_t n_padded = (size_t)height * pitch;
    const float* plane = raised + z * n_padded;
    const int row = min(max(y, half), ny + half - 1) * pitch;
    int centre[PIXELS];
    UNROLL for (int k = 0; k < PIXELS; ++k) centre[k] = row + min(max(x + k * TX, half), nx + half - 1);
    float4* to = figures + z * n_padded + (size_t)y * pitch + x;
    for (int a = first_angle; a < first_angle + n_angles; ++a, to += n_padded * gridDim.z) {
        const int first = starts[a], last = starts[a + 1];
        float sum[PIXELS], sum_of_squares[PIXELS];
        UNROLL for (int k = 0; k < PIXELS; ++k) sum[k] = 0.0f, sum_of_squares[k] = 0.0f;
        for (int i = first; i < last; ++i) {
            const int distance = distances[i];
            UNROLL for (int k = 0; k < PIXELS; ++k) {
                const float value = plane[centre[k] + distance];
                sum[k] += value;
                sum_of_squares[k] += value * value;
            }
        }
        const float n = last - first;
        UNROLL for (int k = 0; k < PIXELS; ++k) {
            const float mean = sum[k] / n, square = mean * mean, variance = sum_of_squares[k] / n - square;
            const float by_mean = variance / (mean > 0.0f ? mean : 1.0f);
            const float by_square = variance / (square > 0.0f ? square : 1.0f);
            if (x + k * TX < pitch) to[k * TX] = make_float4(mean, variance, by_mean, by_square);
        }
    }
}

// Goes on with angles first_angle .. first_angle + n_angles - 1: `smallest` and `result` are [criterion][z][y][x].
extern "C" __global__ void __launch_bounds__(THREADS)
kuwahara_calmest(const float4* __restrict__ figures, const int* __restrict__ distances, const int* __restrict__ starts,
                 const float* __restrict__ extremes, float* __restrict__ smallest, float* __restrict__ result,
                 int first_angle, int n_angles, int is_last, int half, int ny, int nx) {
    const int x = blockIdx.x * (TX * PIXELS) + threadIdx.x, y = blockIdx.y * TY + threadIdx.y, z = blockIdx.z;
    if (x >= nx || y >= ny) return;
    const int pitch = nx + 2 * half;
    const size_t channel = (size_t)gridDim.z * ny * nx, here = ((size_t)z * ny + y) * nx + x;
    const size_t n_padded = (size_t)(ny + 2 * half) * pitch;
    float figure[PIXELS][N_CRITERIA], value[PIXELS][N_CRITERIA];
    UNROLL for (int k = 0; k < PIXELS; ++k)
        UNROLL for (int c = 0; c < N_CRITERIA; ++c) {
            const bool goes_on = first_angle > 0 && x + k * TX < nx;
            figure[k][c] = goes_on ? smallest[c * channel + here + k * TX] : 3.402823466e+38f;
            value[k][c] = goes_on ? result[c * channel + here + k * TX] : 0.0f;
        }
    int centre[PIXELS];
    UNROLL for (int k = 0; k < PIXELS; ++k) centre[k] = (y + half) * pitch + half + min(x + k * TX, nx - 1);
    for (int a = 0; a < n_angles; ++a) {
        const float4* plane = figures + (a * (size_t)gridDim.z + z) * n_padded;
        for (int i = starts[first_angle + a]; i < starts[first_angle + a + 1]; ++i) {
            const int distance = distances[i];
            UNROLL for (int k = 0; k < PIXELS; ++k) {
                const float4 there = plane[centre[k] + distance];
                const float candidates[N_CRITERIA] = {there.y, there.z, there.w};
                UNROLL for (int c = 0; c < N_CRITERIA; ++c) {
                    const bool is_calmer = candidates[c] < figure[k][c];
                    figure[k][c] = is_calmer ? candidates[c] : figure[k][c];
                    value[k][c] = is_calmer ? there.x : value[k][c];
                }
            }
        }
    }
    const float low = extremes[2 * z];
    UNROLL for (int k = 0; k < PIXELS; ++k) {
        if (x + k * TX >= nx) continue;
        UNROLL for (int c = 0; c < N_CRITERIA; ++c) {
            result[c * channel + here + k * TX] = is_last ? value[k][c] + 0.5f + low : value[k][c];
            if (!is_last) smallest[c * channel + here + k * TX] = figure[k][c];
        }
    }
}
