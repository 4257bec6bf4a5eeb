// One step of nonlinear anisotropic diffusion (NAD) of a volume; formulas in gpu_tomoclass/baseline/nad_volume_reference.py.
// Python: gpu_tomoclass/baseline/nad_volume_kernels.py, which also launches nad_smooth_x and nad_smooth_y of nad.cu.
//
//   s = G_sigma * u                                nad_smooth_x, _y, nad_volume_smooth_z         3 x 8 bytes per voxel
//   |grad s|^2 and products of grad s              nad_volume_steepness, nad_volume_products     8, 32
//   sums of |grad s| over rows                     nad_volume_sums                               4
//   rows = G_rho * (products, s) along x and y     nad_smooth_x, _y                              2 x 56
//   G_rho * rows along z, eigenvectors, D          nad_volume_tensor: some 700 operations        56
//   u + time_step div(D grad u)                    nad_volume_move: 19 points                    32
//
// All in float32 but for sums. Lanes along x. Planes are a run of the volume's: those at its ends are repeated beyond,
// and a caller that cut the run out of the volume leaves out the results for which that is wrong. Where neighbours along
// z are read, blockIdx.x counts planes, so that blocks that run together share what they read.
//
// The eigenvectors come from SWEEPS Jacobi sweeps over the tensor divided by its largest entry: vectors are orthogonal
// within 1e-6 and the matrix is met within 1e-6 of m1 whatever the eigenvalues, equal ones included.
//
// Compile-time: TX, TY (block), RADIUS (of the Gaussian), RUN (planes per thread of nad_volume_tensor), THREADS (of
// nad_volume_sums).
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#define UNROLL _Pragma("unroll")
#endif
#define TAPS (2 * RADIUS + 1)
#define LANE_Y (TY == 1 ? 0 : (int)threadIdx.y)
#define SWEEPS 4
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

__device__ __forceinline__ float larger(float a, float b) { return a > b ? a : b; }
__device__ __forceinline__ float smaller(float a, float b) { return a < b ? a : b; }

// Read before a loop over threads: a load under a condition in it would keep it from being vectorised.
struct Weights {
    float at[TAPS];
};
__device__ __forceinline__ Weights read_weights(const float* weights) {
    Weights result;
    UNROLL for (int k = 0; k < TAPS; ++k) result.at[k] = weights[k];
    return result;
}

// Runs of nz planes, one run per field, along z. Grid: fields * nz, tiles along y, tiles along x.
extern "C" __global__ void __launch_bounds__(TX * TY)
nad_volume_smooth_z(const float* __restrict__ image, const float* __restrict__ weights, float* __restrict__ result,
                    int nz, int ny, int nx) {
    const size_t n_pixels = (size_t)ny * nx;
    const int z = blockIdx.x % nz, x0 = blockIdx.z * TX, y0 = blockIdx.y * TY;
    const float* from = image + (blockIdx.x - z) * n_pixels;
    float* to = result + blockIdx.x * n_pixels;
    const Weights w = read_weights(weights);
    size_t plane[TAPS];
    UNROLL for (int k = 0; k < TAPS; ++k) plane[k] = (size_t)min(max(z + k - RADIUS, 0), nz - 1) * n_pixels;
    FOR_EACH_THREAD {
        const int x = x0 + (int)threadIdx.x, y = y0 + LANE_Y;
        if (x < nx && y < ny) {
            const size_t at = (size_t)y * nx + x;
            float sum = 0.0f;
            UNROLL for (int k = 0; k < TAPS; ++k) sum = fmaf(w.at[k], from[plane[k] + at], sum);
            to[at] = sum;
        }
    }
}

// Whether no voxel of the block has a neighbour beyond the left or right edge: then a CPU reads neighbours as vectors.
#define IS_INSIDE (x0 > 0 && x0 + TX < nx)

template <bool INSIDE, bool PRODUCTS>
__device__ __forceinline__ void slopes(const float* s, float* fields, float* steep, size_t all, int x, int y, int z,
                                       int nz, int ny, int nx) {
    if (x >= nx || y >= ny) return;
    const size_t n_pixels = (size_t)ny * nx, at = z * n_pixels + (size_t)y * nx;
    const int left = INSIDE ? x - 1 : max(x - 1, 0), right = INSIDE ? x + 1 : min(x + 1, nx - 1);
    const size_t behind = y > 0 ? at - nx : at, before = y < ny - 1 ? at + nx : at;
    const size_t below = z > 0 ? at - n_pixels : at, above = z < nz - 1 ? at + n_pixels : at;
    const float gx = 0.5f * (s[at + right] - s[at + left]), gy = 0.5f * (s[before + x] - s[behind + x]);
    const float gz = 0.5f * (s[above + x] - s[below + x]);
    steep[at + x] = gx * gx + gy * gy + gz * gz;
    if (PRODUCTS) {
        fields[at + x] = gx * gx;
        fields[at + x + all] = gx * gy;
        fields[at + x + 2 * all] = gx * gz;
        fields[at + x + 3 * all] = gy * gy;
        fields[at + x + 4 * all] = gy * gz;
        fields[at + x + 5 * all] = gz * gz;
    }
}

// steep = |grad s|^2 of field 6; grid: nz, tiles along y, tiles along x.
extern "C" __global__ void __launch_bounds__(TX * TY)
nad_volume_steepness(float* fields, float* steep, int ny, int nx) {
    const size_t all = (size_t)gridDim.x * ny * nx;
    const int z = blockIdx.x, x0 = blockIdx.z * TX, y0 = blockIdx.y * TY, nz = gridDim.x;
    const float* s = fields + 6 * all;
    if (IS_INSIDE) {
        FOR_EACH_THREAD {
            slopes<true, false>(s, fields, steep, all, x0 + (int)threadIdx.x, y0 + LANE_Y, z, nz, ny, nx);
        }
    } else {
        FOR_EACH_THREAD {
            slopes<false, false>(s, fields, steep, all, x0 + (int)threadIdx.x, y0 + LANE_Y, z, nz, ny, nx);
        }
    }
}

// And fields 0 to 5, the products xx, xy, xz, yy, yz, zz.
extern "C" __global__ void __launch_bounds__(TX * TY)
nad_volume_products(float* fields, float* steep, int ny, int nx) {
    const size_t all = (size_t)gridDim.x * ny * nx;
    const int z = blockIdx.x, x0 = blockIdx.z * TX, y0 = blockIdx.y * TY, nz = gridDim.x;
    const float* s = fields + 6 * all;
    if (IS_INSIDE) {
        FOR_EACH_THREAD {
            slopes<true, true>(s, fields, steep, all, x0 + (int)threadIdx.x, y0 + LANE_Y, z, nz, ny, nx);
        }
    } else {
        FOR_EACH_THREAD {
            slopes<false, true>(s, fields, steep, all, x0 + (int)threadIdx.x, y0 + LANE_Y, z, nz, ny, nx);
        }
    }
}

// sums[plane][portion] of |grad s| over portions of a plane; grid: portions, planes.
extern "C" __global__ void __launch_bounds__(THREADS)
nad_volume_sums(const float* __restrict__ steep, double* __restrict__ sums, int portion, int ny, int nx) {
    __shared__ double sum[THREADS];
    const int n_pixels = ny * nx, start = blockIdx.x * portion, stop = min(start + portion, n_pixels);
    const float* plane = steep + (size_t)blockIdx.y * n_pixels;
    FOR_EACH_THREAD { sum[threadIdx.x] = 0.0; }
    for (int first = start; first < stop; first += THREADS)
        FOR_EACH_THREAD {
            const int i = first + (int)threadIdx.x;
            if (i < stop) sum[threadIdx.x] += (double)sqrtf(plane[i]);
        }
    __syncthreads();
    FOR_EACH_THREAD {
        if (threadIdx.x == 0) {
            for (int i = 1; i < THREADS; ++i) sum[0] += sum[i];
            sums[(size_t)blockIdx.y * gridDim.x + blockIdx.x] = sum[0];
        }
    }
}

// One Jacobi rotation, which makes the entry pq of the matrix 0; r is the third axis, v are vectors in columns.
__device__ __forceinline__ void rotate(float& pp, float& qq, float& pq, float& rp, float& rq, float& vxp, float& vyp,
                                       float& vzp, float& vxq, float& vyq, float& vzq) {
    const float difference = qq - pp, twice = 2.0f * pq;
    const float length = sqrtf(difference * difference + twice * twice) + TINY;
    const float t = (difference < 0.0f ? -twice : twice) / (fabsf(difference) + length);
    const float c = 1.0f / sqrtf(1.0f + t * t), s = t * c;
    pp -= t * pq;
    qq += t * pq;
    pq = 0.0f;
    const float old_rp = rp, old_x = vxp, old_y = vyp, old_z = vzp;
    rp = c * old_rp - s * rq;
    rq = s * old_rp + c * rq;
    vxp = c * old_x - s * vxq;
    vxq = s * old_x + c * vxq;
    vyp = c * old_y - s * vyq;
    vyq = s * old_y + c * vyq;
    vzp = c * old_z - s * vzq;
    vzq = s * old_z + c * vzq;
}

// What the tensor needs to know of the whole volume.
struct Step {
    float contrast, limit, root_c, mean, width, second_eigenvector, grey_level;
};

// D of a voxel from xx, xy, xz, yy, yz, zz of J, the smoothed grey value and |grad s|^2.
__device__ __forceinline__ void tensor(const float* j, float grey, float steep, const Step& step, float* d,
                                       size_t all) {
    float largest = larger(fabsf(j[0]), larger(fabsf(j[3]), fabsf(j[5])));  // of a sum of squares: on the diagonal
    largest = larger(largest, TINY);
    const float scale = 1.0f / largest;
    float xx = scale * j[0], xy = scale * j[1], xz = scale * j[2], yy = scale * j[3], yz = scale * j[4];
    float zz = scale * j[5];
    float ax = 1.0f, ay = 0.0f, az = 0.0f, bx = 0.0f, by = 1.0f, bz = 0.0f, cx = 0.0f, cy = 0.0f, cz = 1.0f;
    UNROLL for (int sweep = 0; sweep < SWEEPS; ++sweep) {
        rotate(xx, yy, xy, xz, yz, ax, ay, az, bx, by, bz);
        rotate(xx, zz, xz, xy, yz, ax, ay, az, cx, cy, cz);
        rotate(yy, zz, yz, xy, xz, bx, by, bz, cx, cy, cz);
    }
    const float m1 = larger(xx, larger(yy, zz)), m3 = smaller(xx, smaller(yy, zz));
    const float m2 = larger(smaller(xx, yy), smaller(larger(xx, yy), zz));
    // 1 for the vector of m1, 1 for that of m3, never the same one; numbers, as branches would end the vectors of a CPU.
    const float a1 = (xx >= yy) & (xx >= zz) ? 1.0f : 0.0f, b1 = (1.0f - a1) * (yy >= zz ? 1.0f : 0.0f);
    const float c3 = (zz <= xx) & (zz <= yy) ? 1.0f : 0.0f, b3 = (1.0f - c3) * (yy <= xx ? 1.0f : 0.0f);

    const float spread2 = largest * (m1 - m2), spread3 = largest * (m1 - m3);
    const float eed = 1.0f / sqrtf(1.0f + steep * step.contrast);
    const float of_plane = step.root_c / (spread2 + TINY), of_line = step.root_c / (spread3 + TINY);
    const float ced2 = LEAST + step.second_eigenvector * (1.0f - LEAST) * exp_negative(-of_plane * of_plane);
    const float ced3 = LEAST + (1.0f - LEAST) * exp_negative(-of_line * of_line);
    const float share = within_0_1(10.0f * spread3 * step.limit - 9.5f);
    const float dark = step.grey_level * within_0_1(0.5f + (step.mean - grey) * step.width);
    float l1 = eed + share * (LEAST - eed), l2 = eed + share * (ced2 - eed), l3 = 1.0f + share * (ced3 - 1.0f);
    l1 += dark * (1.0f - l1);
    l2 += dark * (1.0f - l2);
    l3 += dark * (1.0f - l3);

    const float first = l1 - l2, third = l3 - l2;
    const float la = l2 + a1 * first + (1.0f - c3 - b3) * third, lb = l2 + b1 * first + b3 * third;
    const float lc = l2 + (1.0f - a1 - b1) * first + c3 * third;
    d[0] = la * ax * ax + lb * bx * bx + lc * cx * cx;
    d[all] = la * ax * ay + lb * bx * by + lc * cx * cy;
    d[2 * all] = la * ax * az + lb * bx * bz + lc * cx * cz;
    d[3 * all] = la * ay * ay + lb * by * by + lc * cy * cy;
    d[4 * all] = la * ay * az + lb * by * bz + lc * cy * cz;
    d[5 * all] = la * az * az + lb * bz * bz + lc * cz * cz;
}

// D = xx, xy, xz, yy, yz, zz of planes first to last - 1. Grid: runs of RUN planes, tiles along y, tiles along x.
extern "C" __global__ void __launch_bounds__(TX * TY)
nad_volume_tensor(const float* __restrict__ rows, const float* __restrict__ steep, const float* __restrict__ weights,
                  float* __restrict__ d, float contrast, float limit, float root_c, float mean, float width,
                  float second_eigenvector, float grey_level, int first, int last, int nz, int ny, int nx) {
    const size_t n_pixels = (size_t)ny * nx, all = n_pixels * nz;
    const int z0 = first + blockIdx.x * RUN, x0 = blockIdx.z * TX, y0 = blockIdx.y * TY;
    const Step step = {contrast, limit, root_c, mean, width, second_eigenvector, grey_level};
    const Weights w = read_weights(weights);
    size_t plane[TAPS + RUN - 1];
    UNROLL for (int k = 0; k < TAPS + RUN - 1; ++k)
        plane[k] = (size_t)min(max(z0 + k - RADIUS, 0), nz - 1) * n_pixels;
    FOR_EACH_THREAD {
        const int x = x0 + (int)threadIdx.x, y = y0 + LANE_Y;
        if (x < nx && y < ny) {
            const size_t at = (size_t)y * nx + x;
            float sum[RUN][7] = {};
            UNROLL for (int k = 0; k < TAPS + RUN - 1; ++k)
                UNROLL for (int field = 0; field < 7; ++field) {
                    const float value = rows[field * all + plane[k] + at];
                    UNROLL for (int r = 0; r < RUN; ++r)
                        if (k >= r && k - r < TAPS) sum[r][field] = fmaf(w.at[k - r], value, sum[r][field]);
                }
            UNROLL for (int r = 0; r < RUN; ++r)
                if (RUN == 1 || z0 + r < last) {
                    const size_t voxel = (z0 + r) * n_pixels + at;
                    tensor(sum[r], sum[r][6], steep[voxel], step, d + voxel, all);
                }
        }
    }
}

// A row of the volume where it meets the neighbours of a voxel.
#define ROW(y, z) ((size_t)(z) * n_pixels + (size_t)(y) * nx)

template <bool INSIDE>
__device__ __forceinline__ void move(const float* u, const float* d, float* moved, size_t skipped, float time_step,
                                     int x, int y, int z, int nz, int ny, int nx) {
    if (x >= nx || y >= ny) return;
    const size_t n_pixels = (size_t)ny * nx, all = n_pixels * nz;
    const int xa = INSIDE ? x - 1 : max(x - 1, 0), xb = INSIDE ? x + 1 : min(x + 1, nx - 1);
    const int ya = max(y - 1, 0), yb = min(y + 1, ny - 1), za = max(z - 1, 0), zb = min(z + 1, nz - 1);
    // Beyond an edge, the mixed flux is that of the edge with the other sign.
    const float sxa = !INSIDE && x == 0 ? -0.25f : 0.25f, sxb = !INSIDE && x == nx - 1 ? -0.25f : 0.25f;
    const float sya = y == 0 ? -0.25f : 0.25f, syb = y == ny - 1 ? -0.25f : 0.25f;
    const float sza = z == 0 ? -0.25f : 0.25f, szb = z == nz - 1 ? -0.25f : 0.25f;
    const float *xx = d, *xy = d + all, *xz = d + 2 * all, *yy = d + 3 * all, *yz = d + 4 * all, *zz = d + 5 * all;
    const size_t row = ROW(y, z), rya = ROW(ya, z), ryb = ROW(yb, z), rza = ROW(y, za), rzb = ROW(y, zb);
    const size_t raa = ROW(ya, za), rba = ROW(yb, za), rab = ROW(ya, zb), rbb = ROW(yb, zb);  // of y, of z
    const float here = u[row + x];
    float change = 0.5f * ((xx[row + x] + xx[row + xb]) * (u[row + xb] - here) -
                           (xx[row + xa] + xx[row + x]) * (here - u[row + xa]));
    change += 0.5f * ((yy[row + x] + yy[ryb + x]) * (u[ryb + x] - here) -
                      (yy[rya + x] + yy[row + x]) * (here - u[rya + x]));
    change += 0.5f * ((zz[row + x] + zz[rzb + x]) * (u[rzb + x] - here) -
                      (zz[rza + x] + zz[row + x]) * (here - u[rza + x]));
    change += sxb * (xy[row + xb] * (u[ryb + xb] - u[rya + xb]) + xz[row + xb] * (u[rzb + xb] - u[rza + xb]));
    change -= sxa * (xy[row + xa] * (u[ryb + xa] - u[rya + xa]) + xz[row + xa] * (u[rzb + xa] - u[rza + xa]));
    change += syb * (xy[ryb + x] * (u[ryb + xb] - u[ryb + xa]) + yz[ryb + x] * (u[rbb + x] - u[rba + x]));
    change -= sya * (xy[rya + x] * (u[rya + xb] - u[rya + xa]) + yz[rya + x] * (u[rab + x] - u[raa + x]));
    change += szb * (xz[rzb + x] * (u[rzb + xb] - u[rzb + xa]) + yz[rzb + x] * (u[rbb + x] - u[rab + x]));
    change -= sza * (xz[rza + x] * (u[rza + xb] - u[rza + xa]) + yz[rza + x] * (u[rba + x] - u[raa + x]));
    moved[row + x - skipped] = here + time_step * change;
}

// u + time_step div(D grad u) of planes first and following, which alone are in moved. Grid: planes, tiles along y, tiles along x.
extern "C" __global__ void __launch_bounds__(TX * TY)
nad_volume_move(const float* __restrict__ u, const float* __restrict__ d, float* __restrict__ moved, float time_step,
                int first, int nz, int ny, int nx) {
    const int z = first + blockIdx.x, x0 = blockIdx.z * TX, y0 = blockIdx.y * TY;
    const size_t skipped = (size_t)first * ny * nx;
    if (IS_INSIDE) {
        FOR_EACH_THREAD {
            move<true>(u, d, moved, skipped, time_step, x0 + (int)threadIdx.x, y0 + LANE_Y, z, nz, ny, nx);
        }
    } else {
        FOR_EACH_THREAD {
            move<false>(u, d, moved, skipped, time_step, x0 + (int)threadIdx.x, y0 + LANE_Y, z, nz, ny, nx);
        }
    }
}
