// Mean or variance over ImageJ's disks, rounded as ImageJ rounds.   Python: gpu_tomoclass/features/accelerated/ranks.py
//
//   mean = S1 / n     variance = max(0, (S2 - S1^2 / n) / n)     S1, S2: sums of v and v^2 over the disk, in double
//
// The sums of column 0 are formed row by row of the disk; from there on, a running sum along x adds for each row of the
// disk, from the top, what enters at the right and subtracts what leaves at the left. With FRESH (3 x 3) every column is
// summed like column 0.
//
// A block has ROWS rows of the plane and goes through them in chunks of columns: the changes from column to column, lanes
// along x; then one thread per row for the running sums; then the results, lanes along x. Per pixel and row of the disk:
// 2 loads from L1, 2 additions in double for the mean; 4 and 2 products for the variance. 4 bytes are written.
// On a CPU (ONE_THREAD) the only thread does CHUNK columns at a time in vectors, which stay in registers along the rows of
// the disk, and the running sums of ROWS rows side by side.
//
// Compile-time: VARIANCE (0, 1), FRESH (0, 1), LANES, GROUPS (block), ROWS, CHUNK (= LANES on a GPU).
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif
#define THREADS (LANES * GROUPS)
#define SCANS (ROWS > THREADS ? ROWS / THREADS : 1)  // rows per thread in the running sums
#define PER_LANE (CHUNK / LANES)
#ifdef ONE_THREAD
#define EACH_PIXEL for (int i = 0; i < n_here; ++i)
#else
#define EACH_PIXEL for (int i = 0; i < 1; ++i)
#endif

// Sum over the whole disk; from: the padded plane's pixel in the middle of the disk's first row.
__device__ __forceinline__ void disk_sum(const float* from, const int* __restrict__ widths, int n_rows, int pitch,
                                         double& sum, double& squares) {
    sum = squares = 0.0;
    for (int j = 0; j < n_rows; ++j, from += pitch) {
        const int width = widths[j];
        for (int x = -width; x <= width; ++x) {
            const double value = from[x];
            sum += value;
            if (VARIANCE) squares += value * value;
        }
    }
}

#if defined(ONE_THREAD) && !FRESH
// Of a loop over columns in one over rows, GCC makes vectors over rows, by gathering; hence vectors by name.
typedef cuda_doubles Wide;
#define LANES_WIDE ((int)(sizeof(Wide) / sizeof(double)))
#define VECTORS 4  // with AVX2, registers hold their two sums
#define STEP (VECTORS * LANES_WIDE)

// How the sums change from one column to the next, for STEP columns; from: as for disk_sum, at the first of them.
__device__ __forceinline__ void changes(const float* from, const int* __restrict__ widths, int n_rows, int pitch,
                                        double* __restrict__ sums, double* __restrict__ squares) {
    Wide change[VECTORS] = {}, of_squares[VECTORS] = {};
    for (int j = 0; j < n_rows; ++j, from += pitch) {
        const float *leaves = from - widths[j] - 1, *enters = from + widths[j];
        UNROLL for (int v = 0; v < VECTORS; ++v) {
            const Wide leaving = cuda_widened(leaves + v * LANES_WIDE);
            const Wide entering = cuda_widened(enters + v * LANES_WIDE);
            change[v] = change[v] - leaving + entering;
            if (VARIANCE) of_squares[v] = of_squares[v] - leaving * leaving + entering * entering;
        }
    }
    memcpy(sums, change, sizeof change);
    if (VARIANCE) memcpy(squares, of_squares, sizeof of_squares);
}
#endif

// padded has a margin of at least half the disk and one pixel.
extern "C" __global__ void __launch_bounds__(THREADS)
disk_sums(const float* __restrict__ padded, const int* __restrict__ widths, float* __restrict__ result, int n_rows,
          int n_in_disk, int margin, int ny, int nx) {
    __shared__ double sums[ROWS][CHUNK + 1];
    __shared__ double squares[VARIANCE ? ROWS : 1][CHUNK + 1];
    const int lane = threadIdx.x, group = threadIdx.y, thread = group * LANES + lane;
    const int pitch = nx + 2 * margin, y0 = blockIdx.x * ROWS;
    const float* disks = padded + (size_t)blockIdx.y * (ny + 2 * margin) * pitch  // of row 0, in the disk's first row
        + (size_t)(margin - n_rows / 2) * pitch + margin;
    float* to = result + (size_t)blockIdx.y * ny * nx;
    const double n = n_in_disk;
    double sum[SCANS], sum_of_squares[SCANS];
    if (!FRESH && thread < ROWS)
        for (int k = 0; k < SCANS; ++k)
            disk_sum(disks + (size_t)min(y0 + thread + k * THREADS, ny - 1) * pitch, widths, n_rows, pitch, sum[k],
                     sum_of_squares[k]);
    for (int x0 = 0; x0 < nx; x0 += CHUNK) {
        const int n_here = min(CHUNK, nx - x0);
        for (int row = group; row < ROWS; row += GROUPS) {
            const float* from = disks + (size_t)min(y0 + row, ny - 1) * pitch + min(x0 + lane, nx - 1);
#if defined(ONE_THREAD) && !FRESH
            for (int x = 0; n_here >= STEP && x < n_here; x += STEP) {
                x = min(x, n_here - STEP);  // the last ones may be computed twice
                changes(from + x, widths, n_rows, pitch, sums[row] + x, squares[VARIANCE ? row : 0] + x);
            }
            if (n_here >= STEP) continue;
#endif
            double change[PER_LANE], of_squares[PER_LANE];
            EACH_PIXEL change[i] = of_squares[i] = 0.0;
            for (int j = 0; j < n_rows; ++j, from += pitch) {
                const int width = widths[j];
#if FRESH
                for (int x = -width; x <= width; ++x)
                    EACH_PIXEL {
                        const double value = from[x + i];
                        change[i] += value;
                        if (VARIANCE) of_squares[i] += value * value;
                    }
#else
                const float* leaves = from - width - 1;
                const float* enters = from + width;
                EACH_PIXEL {
                    const double leaving = leaves[i], entering = enters[i];
                    change[i] = change[i] - leaving + entering;
                    if (VARIANCE) of_squares[i] = of_squares[i] - leaving * leaving + entering * entering;
                }
#endif
            }
            EACH_PIXEL {
                sums[row][lane + i] = change[i];
                if (VARIANCE) squares[row][lane + i] = of_squares[i];
            }
        }
        __syncthreads();
        if (!FRESH && thread < ROWS) {
            int i = 0;
            if (x0 == 0) {
                UNROLL for (int k = 0; k < SCANS; ++k) {
                    sums[thread + k * THREADS][0] = sum[k];
                    if (VARIANCE) squares[thread + k * THREADS][0] = sum_of_squares[k];
                }
                i = 1;
            }
            for (; i < n_here; ++i)
                UNROLL for (int k = 0; k < SCANS; ++k) {
                    double* at = &sums[thread + k * THREADS][i];
                    *at = sum[k] += *at;
                    if (VARIANCE) {
                        double* of = &squares[thread + k * THREADS][i];
                        *of = sum_of_squares[k] += *of;
                    }
                }
        }
        __syncthreads();
        for (int row = group; row < ROWS && y0 + row < ny; row += GROUPS) {
            float* line = to + (size_t)(y0 + row) * nx + x0;
            if (lane < n_here)
                EACH_PIXEL {
                    const double total = sums[row][lane + i];
#if VARIANCE
                    const float value = (float)((squares[row][lane + i] - total * total / n) / n);
                    line[lane + i] = value < 0.0f ? 0.0f : value;
#else
                    line[lane + i] = (float)(total / n);
#endif
                }
        }
        __syncthreads();
    }
}
