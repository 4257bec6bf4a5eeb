// One step of nonlinear anisotropic diffusion (NAD) of planes; formulas in gpu_tomoclass/baseline/nad_reference.py.
// Python: gpu_tomoclass/baseline/nad_kernels.py
//
//   s = G_sigma * u                           nad_smooth_x, nad_smooth_y                   2 x 8 bytes per pixel
//   fields: s_x^2, s_x s_y, s_y^2, s          nad_products                                 16
//   rows = G_rho * fields along x             nad_smooth_x                                 32
//   contrast, switch, C, grey of the noise    nad_statistics: a block per plane            8
//   D from G_rho * rows along y               nad_tensor, over the first three fields      36
//   u + time_step div(D grad u)               nad_move                                     20
//
// All in float32 but for the sums of nad_statistics. Lanes along x; a row with its surroundings is in shared memory for
// the sums along x, those along y read whole lines, which caches serve 2 RADIUS times of 2 RADIUS + 1.
//
// On a CPU TY is 1: then a row is the block's, and what depends on it is worked out once for its threads.
//
// Compile-time: TX, TY (block), RADIUS (of the Gaussian), THREADS (of nad_statistics).
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#define UNROLL _Pragma("unroll")
#endif
#define TAPS (2 * RADIUS + 1)
#define LANE_Y (TY == 1 ? 0 : (int)threadIdx.y)
#define LEAST 0.001f
#define TINY 1e-30f  // keeps divisors above 0

// exp(x) for x <= 0 within 1e-7 of 1; 1e-38 below -87.
__device__ __forceinline__ float exp_negative(float x) {
    x = x > -87.0f ? x : -87.0f;
    const float shifted = fmaf(x, 1.44269504f, 12582912.0f), n = shifted - 12582912.0f;  // 1.5 * 2^23
    const float f = fmaf(-n, -2.12194440e-4f, fmaf(-n, 0.693359375f, x));
    float y = fmaf(f, 1.98412698e-4f, 1.38888889e-3f);
    y = fmaf(y, f, 8.33333333e-3f);
    y = fmaf(y, f, 4.16666667e-2f);
    y = fmaf(y, f, 1.66666667e-1f);
    y = fmaf(y, f, 0.5f);
    y = fmaf(y, f, 1.0f);
    y = fmaf(y, f, 1.0f);
    return __uint_as_float(__float_as_uint(y) + (__float_as_uint(shifted) << 23));
}

__device__ __forceinline__ float within_0_1(float x) {
    x = x > 0.0f ? x : 0.0f;
    return x < 1.0f ? x : 1.0f;
}

// The weights, read before a loop over threads: a load under a condition in it would keep it from being vectorised.
struct Weights {
    float at[TAPS];
};
__device__ __forceinline__ Weights read_weights(const float* weights) {
    Weights result;
    UNROLL for (int k = 0; k < TAPS; ++k) result.at[k] = weights[k];
    return result;
}

// Planes along x; edge pixels are repeated.
extern "C" __global__ void __launch_bounds__(TX * TY)
nad_smooth_x(const float* __restrict__ image, const float* __restrict__ weights, float* __restrict__ result, int ny,
             int nx) {
    __shared__ float row[TY][TX + 2 * RADIUS];
    const size_t plane = (size_t)blockIdx.z * ny * nx;
    const Weights w = read_weights(weights);
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * TY;
    if (x0 >= RADIUS && x0 + TX + RADIUS <= nx) {  // no need to clamp, so a CPU reads vectors
        FOR_EACH_THREAD {
            const float* from = image + plane + (size_t)min(y0 + LANE_Y, ny - 1) * nx + x0 - RADIUS;
            for (int i = threadIdx.x; i < TX + 2 * RADIUS; i += TX) row[LANE_Y][i] = from[i];
        }
    } else {
        FOR_EACH_THREAD {
            const float* from = image + plane + (size_t)min(y0 + LANE_Y, ny - 1) * nx;
            for (int i = threadIdx.x; i < TX + 2 * RADIUS; i += TX)
                row[LANE_Y][i] = from[min(max(x0 + i - RADIUS, 0), nx - 1)];
        }
    }
    __syncthreads();
    FOR_EACH_THREAD {
        const int x = x0 + (int)threadIdx.x, y = y0 + LANE_Y;
        float sum = 0.0f;
        UNROLL for (int k = 0; k < TAPS; ++k) sum = fmaf(w.at[k], row[LANE_Y][threadIdx.x + k], sum);
        if (x < nx && y < ny) result[plane + (size_t)y * nx + x] = sum;
    }
}

// Sum along y at a pixel; edge pixels are repeated.
__device__ __forceinline__ float smooth_y(const float* plane, const Weights& weights, int x, int y, int ny, int nx) {
    float sum = 0.0f;
    UNROLL for (int k = 0; k < TAPS; ++k)
        sum = fmaf(weights.at[k], plane[(size_t)min(max(y + k - RADIUS, 0), ny - 1) * nx + x], sum);
    return sum;
}

extern "C" __global__ void __launch_bounds__(TX * TY)
nad_smooth_y(const float* __restrict__ image, const float* __restrict__ weights, float* __restrict__ result, int ny,
             int nx) {
    const size_t plane = (size_t)blockIdx.z * ny * nx;
    const Weights w = read_weights(weights);
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * TY;
    FOR_EACH_THREAD {
        const int x = x0 + (int)threadIdx.x, y = y0 + LANE_Y;
        if (x < nx && y < ny) result[plane + (size_t)y * nx + x] = smooth_y(image + plane, w, x, y, ny, nx);
    }
}

// Whether no pixel of the block has a neighbour beyond the left or right edge: then a CPU reads neighbours as vectors.
#define IS_INSIDE (x0 > 0 && x0 + TX < nx)

template <bool INSIDE>
__device__ __forceinline__ void products(const float* s, float* fields, size_t all, int x, int y, int ny, int nx) {
    if (x >= nx || y >= ny) return;
    const int left = INSIDE ? x - 1 : max(x - 1, 0), right = INSIDE ? x + 1 : min(x + 1, nx - 1);
    const size_t at = (size_t)y * nx;
    const float gx = 0.5f * (s[at + right] - s[at + left]);
    const float gy = 0.5f * (s[(size_t)min(y + 1, ny - 1) * nx + x] - s[(size_t)max(y - 1, 0) * nx + x]);
    fields[at + x] = gx * gx;
    fields[at + x + all] = gx * gy;
    fields[at + x + 2 * all] = gy * gy;
}

// Fields 0 to 2, products of the gradient of field 3.
extern "C" __global__ void __launch_bounds__(TX * TY) nad_products(float* fields, int ny, int nx) {
    const size_t all = (size_t)gridDim.z * ny * nx, plane = (size_t)blockIdx.z * ny * nx;
    const float* s = fields + 3 * all + plane;
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * TY;
    if (IS_INSIDE) {
        FOR_EACH_THREAD {
            products<true>(s, fields + plane, all, x0 + (int)threadIdx.x, y0 + LANE_Y, ny, nx);
        }
    } else {
        FOR_EACH_THREAD {
            products<false>(s, fields + plane, all, x0 + (int)threadIdx.x, y0 + LANE_Y, ny, nx);
        }
    }
}

// statistics[plane]: 1 / contrast^2, 1 / switch, root of C, mean grey of the noise area and 1 / its standard deviation
// (box: first and last + 1 row, then column). Negative contrast or root of C: automatic.
extern "C" __global__ void __launch_bounds__(THREADS)
nad_statistics(const float* __restrict__ fields, const float* __restrict__ rows, const float* __restrict__ weights,
               const int* __restrict__ box, float* __restrict__ statistics, float contrast, float root_c,
               float balance, int ny, int nx) {
    __shared__ double steepness[THREADS], m1[THREADS], grey[THREADS], square[THREADS];
    const size_t n_pixels = (size_t)ny * nx, all = n_pixels * gridDim.x;
    const float *xx = fields + blockIdx.x * n_pixels, *yy = xx + 2 * all, *row = rows + blockIdx.x * n_pixels;
    const Weights w = read_weights(weights);
    const int wide = box[3] - box[2], n_box = (box[1] - box[0]) * wide;
    FOR_EACH_THREAD { steepness[threadIdx.x] = m1[threadIdx.x] = grey[threadIdx.x] = square[threadIdx.x] = 0.0; }
    if (contrast < 0.0f)
        for (size_t first = 0; first < n_pixels; first += THREADS)
            FOR_EACH_THREAD {
                const size_t i = first + threadIdx.x;
                if (i < n_pixels) steepness[threadIdx.x] += (double)sqrtf(xx[i] + yy[i]);
            }
    for (int first = 0; first < n_box; first += THREADS)
        FOR_EACH_THREAD {
            const int i = first + threadIdx.x, x = box[2] + i % wide, y = box[0] + i / wide;
            if (i < n_box) {
                const float jxx = smooth_y(row, w, x, y, ny, nx), jxy = smooth_y(row + all, w, x, y, ny, nx);
                const float jyy = smooth_y(row + 2 * all, w, x, y, ny, nx);
                const float difference = jxx - jyy;
                const double here = (double)smooth_y(row + 3 * all, w, x, y, ny, nx);
                m1[threadIdx.x] +=
                    (double)(0.5f * (jxx + jyy + sqrtf(difference * difference + 4.0f * jxy * jxy)));
                grey[threadIdx.x] += here;
                square[threadIdx.x] += here * here;
            }
        }
    __syncthreads();
    FOR_EACH_THREAD {
        if (threadIdx.x == 0) {
            for (int i = 1; i < THREADS; ++i) {
                steepness[0] += steepness[i];
                m1[0] += m1[i];
                grey[0] += grey[i];
                square[0] += square[i];
            }
            float* result = statistics + blockIdx.x * 5;
            const float used = contrast < 0.0f ? (float)(steepness[0] / (double)n_pixels) : contrast;
            const float limit = balance > 0.0f ? max((float)(m1[0] / (double)n_box / (double)balance), TINY) : 0.0f;
            const double mean = grey[0] / (double)n_box;
            const float width = (float)sqrt(max(0.0, square[0] / (double)n_box - mean * mean));
            result[0] = used > 0.0f ? 1.0f / (used * used) : 0.0f;
            result[1] = limit > 0.0f ? 1.0f / limit : 0.0f;
            result[2] = root_c < 0.0f ? limit : root_c;
            result[3] = (float)mean;
            result[4] = 1.0f / max(width, TINY);
        }
    }
}

// Diffusion tensor xx, xy, yy over fields 0 to 2.
extern "C" __global__ void __launch_bounds__(TX * TY)
nad_tensor(float* fields, const float* __restrict__ rows, const float* __restrict__ weights,
           const float* __restrict__ statistics, float second_eigenvector, float grey_level, int ny, int nx) {
    const size_t n_pixels = (size_t)ny * nx, all = n_pixels * gridDim.z;
    const float* row = rows + blockIdx.z * n_pixels;
    const float* of_plane = statistics + blockIdx.z * 5;
    const float contrast = of_plane[0], limit = of_plane[1], root_c = of_plane[2], mean = of_plane[3];
    const float width = of_plane[4];
    const Weights w = read_weights(weights);
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * TY;
    FOR_EACH_THREAD {
        const int x = x0 + (int)threadIdx.x, y = y0 + LANE_Y;
        if (x < nx && y < ny) {
            float* d = fields + blockIdx.z * n_pixels + (size_t)y * nx + x;
            const float steepness = d[0] + d[2 * all];
            const float jxx = smooth_y(row, w, x, y, ny, nx), jxy = smooth_y(row + all, w, x, y, ny, nx);
            const float jyy = smooth_y(row + 2 * all, w, x, y, ny, nx);
            const float grey = smooth_y(row + 3 * all, w, x, y, ny, nx);
            const float difference = jxx - jyy, spread = sqrtf(difference * difference + 4.0f * jxy * jxy);
            const float m1 = 0.5f * (jxx + jyy + spread);

            const float eed = 1.0f / sqrtf(1.0f + steepness * contrast);
            const float coherence = root_c / (spread + TINY);
            const float ced = LEAST + second_eigenvector * (1.0f - LEAST) * exp_negative(-coherence * coherence);
            const float share = within_0_1(10.0f * m1 * limit - 9.5f);
            const float dark = grey_level * within_0_1(0.5f + (mean - grey) * width);
            float l1 = eed + share * (LEAST - eed), l2 = eed + share * (ced - eed);
            l1 += dark * (1.0f - l1);
            l2 += dark * (1.0f - l2);

            const float half_difference = 0.5f * (l1 - l2) / (spread + TINY);
            const float half_sum = 0.5f * (l1 + l2), turned = half_difference * difference;
            d[0] = half_sum + turned;
            d[all] = half_difference * 2.0f * jxy;
            d[2 * all] = half_sum - turned;
        }
    }
}

template <bool INSIDE>
__device__ __forceinline__ void move(const float* u, const float* xx, const float* xy, const float* yy, float* moved,
                                     float time_step, int x, int y, int ny, int nx) {
    if (x >= nx || y >= ny) return;
    const int left = INSIDE ? x - 1 : max(x - 1, 0), right = INSIDE ? x + 1 : min(x + 1, nx - 1);
    const size_t at = (size_t)y * nx, up = (size_t)max(y - 1, 0) * nx, down = (size_t)min(y + 1, ny - 1) * nx;
    // Beyond an edge, the mixed flux is that of the edge with the other sign.
    const float left_sign = !INSIDE && x == 0 ? -1.0f : 1.0f, right_sign = !INSIDE && x == nx - 1 ? -1.0f : 1.0f;
    const float up_sign = y == 0 ? -1.0f : 1.0f, down_sign = y == ny - 1 ? -1.0f : 1.0f;
    const float here = u[at + x];
    const float along_x = (xx[at + x] + xx[at + right]) * (u[at + right] - here) -
                          (xx[at + left] + xx[at + x]) * (here - u[at + left]);
    const float along_y = (yy[at + x] + yy[down + x]) * (u[down + x] - here) -
                          (yy[up + x] + yy[at + x]) * (here - u[up + x]);
    const float mixed_x = right_sign * (xy[at + right] * (u[down + right] - u[up + right])) -
                          left_sign * (xy[at + left] * (u[down + left] - u[up + left]));
    const float mixed_y = down_sign * (xy[down + x] * (u[down + right] - u[down + left])) -
                          up_sign * (xy[up + x] * (u[up + right] - u[up + left]));
    moved[at + x] = here + time_step * (0.5f * (along_x + along_y) + 0.25f * (mixed_x + mixed_y));
}

// u + time_step div(D grad u), D in fields 0 to 2.
extern "C" __global__ void __launch_bounds__(TX * TY)
nad_move(const float* __restrict__ u, const float* __restrict__ fields, float* __restrict__ moved, float time_step,
         int ny, int nx) {
    const size_t all = (size_t)gridDim.z * ny * nx, plane = (size_t)blockIdx.z * ny * nx;
    const float* d = fields + plane;
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * TY;
    if (IS_INSIDE) {
        FOR_EACH_THREAD {
            move<true>(u + plane, d, d + all, d + 2 * all, moved + plane, time_step, x0 + (int)threadIdx.x,
                       y0 + LANE_Y, ny, nx);
        }
    } else {
        FOR_EACH_THREAD {
            move<false>(u + plane, d, d + all, d + 2 * all, moved + plane, time_step, x0 + (int)threadIdx.x,
                        y0 + LANE_Y, ny, nx);
        }
    }
}
