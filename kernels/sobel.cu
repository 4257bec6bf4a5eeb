// Sobel filter and the Hessian made of Sobel filters applied twice.   Python: gpu_tomoclass/features/accelerated/edges.py
//
//   R(v) = differences of rows [1 2 1; 0 0 0; -1 -2 -1], C(v) = of columns [1 0 -1; 2 0 -2; 1 0 -1]
//   gradient: sqrt(R(v)^2 + C(v)^2)
//   hessian:  A = R(R(v)), B = C(R(v)), D = C(C(v)); the eight channels are in the code
//             eigenvalues (A + D +- sqrt(q)) / 2, q = (A - D)^2 + 4 B^2; LEGACY: sqrt(2 q), as in TWS before 3.2.25
//
// Each R and C is summed in double in the order of the kernel's entries and rounded to float32; outside of the plane
// the edge pixel counts, at each of the two steps, as ImageJ's Convolver has it. The precision of every later step is
// TWS's. The orientation needs an arc cosine: our own, by a polynomial for the arc sine on 0 .. 1/2 (minimax, relative
// error 2.4e-16).
//
// A block has TX x TY pixels with their surroundings in shared memory, read once: per pixel 4 bytes read and 4
// (gradient) or 32 (hessian) written, coalesced; 10 or 25 additions in double, and for the hessian 3 roots, a quotient
// and 13 fma in double. ONE_THREAD (a CPU): a block's only thread goes along the rows of the tile, in vectors.
//
// Compile-time: TX, TY (pixels, and threads, of a block), LEGACY (1: the older eigenvalues).
#ifndef LEGACY
#define LEGACY 0
#endif
#ifndef CUDA_INDEPENDENT  // on a CPU: says that the results of a loop do not overlap
#define CUDA_INDEPENDENT
#endif
#define PITCH (TX + 4)  // of all tiles

// each(j, i, y, x) for the pixels of the tile that begins at x0, y0 with MARGIN more on each side: j, i count from the
// tile's corner, y, x are the nearest pixel inside of the plane.
template <int MARGIN, class Each>
__device__ __forceinline__ void for_tile(int x0, int y0, int nx, int ny, Each each) {
#ifdef ONE_THREAD
    const int wide = min(TX, nx - x0) + 2 * MARGIN, high = min(TY, ny - y0) + 2 * MARGIN;
    const int first = max(0, MARGIN - x0), last = min(wide, nx - x0 + MARGIN);
    for (int j = 0; j < high; ++j) {
        const int y = min(max(y0 + j - MARGIN, 0), ny - 1);
        for (int i = 0; i < first; ++i) each(j, i, y, 0);
        CUDA_INDEPENDENT for (int i = first; i < last; ++i) each(j, i, y, x0 + i - MARGIN);
        for (int i = last; i < wide; ++i) each(j, i, y, nx - 1);
    }
#else
    // In the order of memory, for no bank conflicts.
    for (int p = threadIdx.y * TX + threadIdx.x; p < PITCH * (TY + 2 * MARGIN); p += TX * TY) {
        const int j = p / PITCH, i = p % PITCH;
        if (i < TX + 2 * MARGIN)
            each(j, i, min(max(y0 + j - MARGIN, 0), ny - 1), min(max(x0 + i - MARGIN, 0), nx - 1));
    }
#endif
}

// each(j, i) for the pixels of the tile.
template <class Each> __device__ __forceinline__ void for_pixels(int x0, int y0, int nx, int ny, Each each) {
#ifdef ONE_THREAD
    const int wide = min(TX, nx - x0), high = min(TY, ny - y0);
    for (int j = 0; j < high; ++j)
        CUDA_INDEPENDENT for (int i = 0; i < wide; ++i) each(j, i);
#else
    if (y0 + (int)threadIdx.y < ny && x0 + (int)threadIdx.x < nx) each((int)threadIdx.y, (int)threadIdx.x);
#endif
}

// R and C at a pixel of a tile.
__device__ __forceinline__ float row_difference(const float* at) {
    double sum = at[-PITCH - 1];
    sum += 2.0f * at[-PITCH];
    sum += at[-PITCH + 1];
    sum -= at[PITCH - 1];
    sum -= 2.0f * at[PITCH];
    sum -= at[PITCH + 1];
    return (float)sum;
}

__device__ __forceinline__ float column_difference(const float* at) {
    double sum = at[-PITCH - 1];
    sum -= at[-PITCH + 1];
    sum += 2.0f * at[-1];
    sum -= 2.0f * at[1];
    sum += at[PITCH - 1];
    sum -= at[PITCH + 1];
    return (float)sum;
}

// acos(x) / 2; NaN unless -1 <= x <= 1.
__device__ __forceinline__ double half_acos(double x) {
    const double quarter_pi = 0.78539816339744830962;
    const double size = fabs(x);
    const bool is_small = size <= 0.5;
    // acos(x) = pi / 2 - asin(x) for small x, else 2 asin(sqrt((1 - x) / 2)), whose argument has no rounding error.
    const double square = is_small ? size * size : 0.5 - 0.5 * size;
    const double s = is_small ? size : sqrt(square);
    double p = 0.03151925094139184;
    p = fma(p, square, -0.011700718914467988);
    p = fma(p, square, 0.018251533962719075);
    p = fma(p, square, 0.0093818295325775);
    p = fma(p, square, 0.014322143874071883);
    p = fma(p, square, 0.01731414956878622);
    p = fma(p, square, 0.022374870756299844);
    p = fma(p, square, 0.030381825348831604);
    p = fma(p, square, 0.04464286017087951);
    p = fma(p, square, 0.07499999996170012);
    p = fma(p, square, 0.1666666666668348);
    const double arc = fma(s * square, p, s);  // asin(s)
    const double of_positive = is_small ? fma(-0.5, arc, quarter_pi) : arc;
    return x < 0.0 ? 2.0 * quarter_pi - of_positive : of_positive;
}

extern "C" __global__ void __launch_bounds__(TX * TY)
gradient(const float* __restrict__ image, float* __restrict__ result, int ny, int nx) {
    __shared__ float tile[(TY + 2) * PITCH];
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * TY;
    const float* plane = image + (size_t)blockIdx.z * ny * nx;
    float* to = result + ((size_t)blockIdx.z * ny + y0) * nx + x0;
    for_tile<1>(x0, y0, nx, ny,
                [&](int j, int i, int y, int x) { tile[j * PITCH + i] = plane[(size_t)y * nx + x]; });
    __syncthreads();
    for_pixels(x0, y0, nx, ny, [&](int j, int i) {
        const float* at = tile + (j + 1) * PITCH + i + 1;
        const float a = row_difference(at), b = column_difference(at);
        to[(size_t)j * nx + i] = sqrtf(a * a + b * b);
    });
}

extern "C" __global__ void __launch_bounds__(TX * TY)
hessian(const float* __restrict__ image, float* __restrict__ result, int ny, int nx) {
    __shared__ float tile[(TY + 4) * PITCH], of_rows[(TY + 2) * PITCH], of_columns[(TY + 2) * PITCH];
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * TY;
    const size_t n_pixels = (size_t)ny * nx, channel = n_pixels * gridDim.z;
    const float* plane = image + blockIdx.z * n_pixels;
    float* to = result + blockIdx.z * n_pixels + (size_t)y0 * nx + x0;
    for_tile<2>(x0, y0, nx, ny,
                [&](int j, int i, int y, int x) { tile[j * PITCH + i] = plane[(size_t)y * nx + x]; });
    __syncthreads();
    for_tile<1>(x0, y0, nx, ny, [&](int j, int i, int y, int x) {
        const float* at = tile + (y - y0 + 2) * PITCH + x - x0 + 2;
        of_rows[j * PITCH + i] = row_difference(at);
        of_columns[j * PITCH + i] = column_difference(at);
    });
    __syncthreads();
    for_pixels(x0, y0, nx, ny, [&](int j, int i) {
        const int at = (j + 1) * PITCH + i + 1;
        const float rows = row_difference(of_rows + at), mixed = column_difference(of_rows + at);
        const float columns = column_difference(of_columns + at);
        const float trace = rows + columns, difference = rows - columns, square = difference * difference;
        const float q = square + 4.0f * mixed * mixed;
        const double root = sqrt(LEGACY ? 2.0 * q : (double)q);
        // Here TWS sums in double precision, but the square of A - D is a float32.
        const double angle = half_acos(difference / sqrt(4.0 * mixed * mixed + square));
        const float known = angle == angle ? (float)angle : 0.0f;  // 0/0 on flat ground, quotients of 1 + rounding
        float* values = to + (size_t)j * nx + i;
        values[0] = sqrtf(rows * rows + mixed * mixed + columns * columns);
        values[channel] = trace;
        values[2 * channel] = rows * columns - mixed * mixed;
        values[3 * channel] = (float)(trace + root) * 0.5f;
        values[4 * channel] = (float)(trace - root) * 0.5f;
        values[5 * channel] = mixed < 0.0f ? -known : known;
        values[6 * channel] = (float)((double)trace * trace * q);
        values[7 * channel] = q;
    });
}
