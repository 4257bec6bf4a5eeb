// Mean of the calmest of all lines through each pixel.   Python: gpu_tomoclass/accelerated/kuwahara.py
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
// per pixel and angle; both are read at distances that are the same for all pixels but those near the edges. Lanes
// along x; per pixel and angle (patch 19, 20 pixels on a line) 40 additions, 20 products and 20 x 4 bytes from caches,
// then 20 x 16 bytes and 60 comparisons.
//
// Compile-time: TX, TY (block).
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

// Figures of the angles from first_angle on, [angle][z][y][x]; blockIdx.z = angle * nz + z. Line a has the pixels
// starts[a] .. starts[a + 1] - 1 of `line`.
extern "C" __global__ void __launch_bounds__(THREADS)
kuwahara_figures(const float* __restrict__ raised, const int2* __restrict__ line, const int* __restrict__ starts,
                 float4* __restrict__ figures, int first_angle, int nz, int half, int pitch, int ny, int nx) {
    const int x = blockIdx.x * TX + threadIdx.x, y = blockIdx.y * TY + threadIdx.y, z = blockIdx.z % nz;
    if (x >= nx || y >= ny) return;
    const int angle = first_angle + blockIdx.z / nz, first = starts[angle], last = starts[angle + 1];
    const float* centre = raised + ((size_t)z * (ny + 2 * half) + y + half) * pitch + x + half;
    float sum = 0.0f, sum_of_squares = 0.0f;
    for (int i = first; i < last; ++i) {
        const int2 offset = line[i];
        const float value = centre[(long long)offset.x * pitch + offset.y];
        sum += value;
        sum_of_squares += value * value;
    }
    const float n = last - first, mean = sum / n, square = mean * mean, variance = sum_of_squares / n - square;
    const float by_mean = variance / (mean > 0.0f ? mean : 1.0f);
    const float by_square = variance / (square > 0.0f ? square : 1.0f);
    figures[((size_t)blockIdx.z * ny + y) * nx + x] = make_float4(mean, variance, by_mean, by_square);
}

// Goes on with angles first_angle .. first_angle + n_angles - 1: `smallest` and `result` are [criterion][z][y][x]. Four
// blocks per multiprocessor suffice; asked for more, compilers spill.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
kuwahara_calmest(const float4* __restrict__ figures, const int2* __restrict__ line, const int* __restrict__ starts,
                 const float* __restrict__ extremes, float* __restrict__ smallest, float* __restrict__ result,
                 int first_angle, int n_angles, int is_last, int half, int ny, int nx) {
    const int x = blockIdx.x * TX + threadIdx.x, y = blockIdx.y * TY + threadIdx.y, z = blockIdx.z;
    if (x >= nx || y >= ny) return;
    const size_t n_pixels = (size_t)ny * nx, channel = n_pixels * gridDim.z, here = z * n_pixels + (size_t)y * nx + x;
    float figure[N_CRITERIA], value[N_CRITERIA];
    UNROLL for (int c = 0; c < N_CRITERIA; ++c) {
        figure[c] = first_angle == 0 ? 3.402823466e+38f : smallest[c * channel + here];
        value[c] = first_angle == 0 ? 0.0f : result[c * channel + here];
    }
    const bool is_inside = x >= half && y >= half && x < nx - half && y < ny - half;
    for (int a = 0; a < n_angles; ++a) {
        const float4* plane = figures + (a * (size_t)gridDim.z + z) * n_pixels;
        const float4* centre = plane + (size_t)y * nx + x;
        for (int i = starts[first_angle + a]; i < starts[first_angle + a + 1]; ++i) {
            const int2 offset = line[i];
            float4 there;
            if (is_inside) {
                there = centre[(long long)offset.x * nx + offset.y];
            } else {
                const int from_y = min(max(y + offset.x, 0), ny - 1), from_x = min(max(x + offset.y, 0), nx - 1);
                there = plane[(size_t)from_y * nx + from_x];
            }
            const float candidates[N_CRITERIA] = {there.y, there.z, there.w};
            UNROLL for (int c = 0; c < N_CRITERIA; ++c) {
                const bool is_calmer = candidates[c] < figure[c];
                figure[c] = is_calmer ? candidates[c] : figure[c];
                value[c] = is_calmer ? there.x : value[c];
            }
        }
    }
    const float low = extremes[2 * z];
    UNROLL for (int c = 0; c < N_CRITERIA; ++c) {
        result[c * channel + here] = is_last ? value[c] + 0.5f + low : value[c];
        if (!is_last) smallest[c * channel + here] = figure[c];
    }
}
