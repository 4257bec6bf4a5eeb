// Gaussian kernels along y, and what is made of the derivatives.   Python: gpu_tomoclass/features/accelerated/derivatives.py
//
//   even order:  s[y] = w_0 v[y] + sum over k = 1..half of w_k (v[y - k] + v[y + k]);  odd order: v[y - k] - v[y + k]
//
// Rows mirror at the edges without repeating the edge row; sums are double, in the order of k, a product and a sum
// round separately, and s is rounded to float. `derivatives_y` writes s of each image, `laplacian_y` the sum of two,
// `gradient_y` the products xx, xy, yy of two, `structure_y` both eigenvalues of the tensor of three.
//
// ROWS pixels above each other are computed together: from k to k + 1 their upper neighbours move up by one, the lower
// ones down by one, so that two loads serve 3 ROWS operations in double. On a GPU these are all that a thread has; it
// loads whole lines, 4 bytes per lane, all but the first time from caches. On a CPU (ONE_THREAD) a block is a strip of
// TX columns and BAND rows, done in vectors of LANES columns: one of them with the rows around it fits the first cache
// as doubles.
//
// Compile-time: TX, TY (block); on a CPU also REACH (at least the longest half).
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif

// Rows farther away than the plane is high are needed by no result that is kept.
__device__ __forceinline__ int mirrored(int i, int n) {
    i = i < 0 ? -i : i;
    i = i >= n ? 2 * (n - 1) - i : i;
    return i < 0 ? 0 : i;
}

#if defined(ONE_THREAD)
#define LANES (__BIGGEST_ALIGNMENT__ / 8)
#define ROWS (LANES == 8 ? 8 : 4)  // with AVX-512 there are 32 registers, else 16
#define BAND 128
#define THREADS_X 1
#define EACH_PIXEL  // a loop that is left alone becomes vectors
typedef float Pixels[ROWS * LANES];  // what is computed together, row by row
// Vectors of the width that this CPU has, in the notation of GCC and Clang: sums stay in registers along the taps.
typedef double Wide __attribute__((vector_size(LANES * sizeof(double))));
typedef float Narrow __attribute__((vector_size(LANES * sizeof(float))));

struct Column {
    const double* rows;  // of LANES pixels; row 0 has `half` others before it
};
typedef double Tile[BAND + 2 * REACH + ROWS][LANES];
#define TILES(n) __shared__ Tile tiles[n]
#define COLUMN(i, plane, half) filled(tiles[i], plane, half, x, y0, ny, nx)

__device__ __forceinline__ Wide value(const Column& column, int row) {
    Wide values;
    memcpy(&values, column.rows + row * LANES, sizeof values);
    return values;
}

// The band at (x, y0) of a plane and `half` rows around it; columns beyond the plane repeat its last one.
__device__ __forceinline__ Column filled(Tile tile, const float* plane, int half, int x, int y0, int ny, int nx) {
    const int n_rows = (min(BAND, ny - y0) + ROWS - 1) / ROWS * ROWS + 2 * half;
    for (int i = 0; i < n_rows; ++i) {
        const float* line = plane + (size_t)mirrored(y0 - half + i, ny) * nx;
        Narrow values;
        if (x + LANES <= nx) memcpy(&values, line + x, sizeof values);
        else
            for (int l = 0; l < LANES; ++l) values[l] = line[min(x + l, nx - 1)];
        const Wide wide = __builtin_convertvector(values, Wide);
        memcpy(tile[i], &wide, sizeof wide);
    }
    return {tile[half]};
}

__device__ __forceinline__ void round_to_float(Wide values, float* result) {
    const Narrow rounded = __builtin_convertvector(values, Narrow);
    memcpy(result, &rounded, sizeof rounded);
}
#else
#define LANES 1
#define ROWS 4
#define BAND ROWS
#define THREADS_X TX
#define EACH_PIXEL UNROLL
typedef float Pixels[ROWS];
typedef double Wide;

struct Column {
    const float* pixels;
    int y0, ny, nx;
};
#define TILES(n)
#define COLUMN(i, plane, half) Column{(plane) + x, y0, ny, nx}

__device__ __forceinline__ Wide value(const Column& column, int row) {
    return column.pixels[(size_t)mirrored(column.y0 + row, column.ny) * column.nx];
}

__device__ __forceinline__ void round_to_float(Wide value, float* result) { *result = (float)value; }
#endif
#define THREADS (THREADS_X * TY)

// Columns and bands of a thread, and the groups of ROWS in a band.
#define FOR_EACH_PLACE(x, y0)                                                                           \
    const int y0 = (blockIdx.y * TY + threadIdx.y) * BAND, stop_ = min(nx, (int)(blockIdx.x + 1) * TX); \
    for (int x = blockIdx.x * TX + threadIdx.x * LANES; x < stop_ && y0 < ny; x += THREADS_X * LANES)
#define FOR_EACH_GROUP(row) for (int row = 0; row < BAND && y0 + row < ny; row += ROWS)

template <bool IS_ODD>
__device__ __forceinline__ void along_y(const Column& column, int row, const double* weights, int half,
                                        Pixels result) {
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
    UNROLL for (int r = 0; r < ROWS; ++r) round_to_float(sum[r], result + r * LANES);
}

__device__ __forceinline__ void write(float* plane, const Pixels values, int x, int y, int ny, int nx) {
    UNROLL for (int r = 0; r < ROWS; ++r)
        if (y + r < ny) {
            float* to = plane + (size_t)(y + r) * nx + x;
            if (x + LANES <= nx) memcpy(to, values + r * LANES, LANES * sizeof(float));
            else
                for (int l = 0; l < nx - x; ++l) to[l] = values[r * LANES + l];
        }
}

// images, result: (n_orders, nz, ny, nx); weights: (n_orders, stride); halves: (n_orders). Bit i of `odd`: order i is
// odd.
extern "C" __global__ void __launch_bounds__(THREADS, 6)
derivatives_y(const float* __restrict__ images, const double* __restrict__ weights, const int* __restrict__ halves,
              float* __restrict__ result, int stride, int odd, int nz, int ny, int nx) {
    const size_t plane = blockIdx.z * ((size_t)ny * nx);
    const int order = blockIdx.z / nz, half = halves[order];
    TILES(1);
    FOR_EACH_PLACE(x, y0) {
        const Column column = COLUMN(0, images + plane, half);
        FOR_EACH_GROUP(row) {
            Pixels values;
            if (odd >> order & 1) along_y<true>(column, row, weights + order * stride, half, values);
            else along_y<false>(column, row, weights + order * stride, half, values);
            write(result + plane, values, x, y0 + row, ny, nx);
        }
    }
}

// images: (2, nz, ny, nx), to be convolved with weights[0] and weights[1], both of even order; result: (nz, ny, nx).
extern "C" __global__ void __launch_bounds__(THREADS, 6)
laplacian_y(const float* __restrict__ images, const double* __restrict__ weights, const int* __restrict__ halves,
            float* __restrict__ result, int stride, int nz, int ny, int nx) {
    const size_t n_pixels = (size_t)ny * nx, plane = blockIdx.z * n_pixels, step = nz * n_pixels;
    TILES(2);
    FOR_EACH_PLACE(x, y0) {
        const Column first = COLUMN(0, images + plane, halves[0]);
        const Column second = COLUMN(1, images + step + plane, halves[1]);
        FOR_EACH_GROUP(row) {
            Pixels xx, yy;
            along_y<false>(first, row, weights, halves[0], xx);
            along_y<false>(second, row, weights + stride, halves[1], yy);
            EACH_PIXEL for (int i = 0; i < ROWS * LANES; ++i) xx[i] += yy[i];
            write(result + plane, xx, x, y0 + row, ny, nx);
        }
    }
}

// images: (2, nz, ny, nx), smoothed along x and derived along x, to be convolved with weights[0], of order 1, and
// weights[1], of order 0; products: (3, nz, ny, nx).
extern "C" __global__ void __launch_bounds__(THREADS, 6)
gradient_y(const float* __restrict__ images, const double* __restrict__ weights, const int* __restrict__ halves,
           float* __restrict__ products, int stride, int nz, int ny, int nx) {
    const size_t n_pixels = (size_t)ny * nx, plane = blockIdx.z * n_pixels, step = nz * n_pixels;
    TILES(2);
    FOR_EACH_PLACE(x, y0) {
        const Column smoothed = COLUMN(0, images + plane, halves[0]);
        const Column derived = COLUMN(1, images + step + plane, halves[1]);
        FOR_EACH_GROUP(row) {
            Pixels dx, dy, xy;
            along_y<true>(smoothed, row, weights, halves[0], dy);
            along_y<false>(derived, row, weights + stride, halves[1], dx);
            EACH_PIXEL for (int i = 0; i < ROWS * LANES; ++i) {
                xy[i] = dx[i] * dy[i];
                dx[i] *= dx[i];
                dy[i] *= dy[i];
            }
            write(products + plane, dx, x, y0 + row, ny, nx);
            write(products + step + plane, xy, x, y0 + row, ny, nx);
            write(products + 2 * step + plane, dy, x, y0 + row, ny, nx);
        }
    }
}

// images: (2 scales, 3 products, nz, ny, nx), smoothed along x; weights: (2, stride), of order 0; result: (4, nz, ny,
// nx), the larger and the smaller eigenvalue at the first scale, then at the second.
extern "C" __global__ void __launch_bounds__(THREADS, 6)
structure_y(const float* __restrict__ images, const double* __restrict__ weights, const int* __restrict__ halves,
            float* __restrict__ result, int stride, int nz, int ny, int nx) {
    const size_t n_pixels = (size_t)ny * nx, step = nz * n_pixels;
    const int scale = blockIdx.z / nz, z = blockIdx.z % nz, half = halves[scale];
    const float* from = images + 3 * scale * step + z * n_pixels;
    float* to = result + 2 * scale * step + z * n_pixels;
    const double* own_weights = weights + scale * stride;
    TILES(3);
    FOR_EACH_PLACE(x, y0) {
        const Column column_xx = COLUMN(0, from, half);
        const Column column_xy = COLUMN(1, from + step, half);
        const Column column_yy = COLUMN(2, from + 2 * step, half);
        FOR_EACH_GROUP(row) {
            Pixels smooth_xx, smooth_xy, smooth_yy, larger, smaller;
            along_y<false>(column_xx, row, own_weights, half, smooth_xx);
            along_y<false>(column_xy, row, own_weights, half, smooth_xy);
            along_y<false>(column_yy, row, own_weights, half, smooth_yy);
            EACH_PIXEL for (int i = 0; i < ROWS * LANES; ++i) {
                const double xx = smooth_xx[i], xy = smooth_xy[i], yy = smooth_yy[i];
                const double b = -(xx + yy), c = xx * yy - xy * xy;
                const double root = sqrt(b * b - 4.0 * c);
                const double q = -0.5 * (b + (b < 0.0 ? -root : root));
                const double first = fabs(q), second = q != 0.0 ? fabs(c / q) : 0.0;
                // Where one is NaN, both results are.
                larger[i] = (float)(first > second || first != first ? first : second);
                smaller[i] = (float)(first < second || first != first ? first : second);
            }
            write(to, larger, x, y0 + row, ny, nx);
            write(to + step, smaller, x, y0 + row, ny, nx);
        }
    }
}
