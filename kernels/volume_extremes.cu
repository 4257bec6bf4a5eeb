// Minimum or maximum over balls.   Python: gpu_tomoclass/features/accelerated/volume_ranks.py
//
// `volume_runs` makes tables of the extreme of 2^k voxels of a row from each voxel on, for rows that have `margin` voxels
// outside of the volume at both ends, which never are an extreme:
//
//   table[0] = row     table[k][x] = extreme(table[k - 1][x], table[k - 1][x + 2^(k-1)])
//
// A row of a ball, 2 w + 1 voxels, is then the extreme of two overlapping runs of 2^k voxels, the largest k that fits.
// `volume_extremes` reads two values per row of the ball that lies in the volume. All radii use the same tables.
// Per voxel: 8 bytes moved for each table, 2 reads from caches per row of the ball, 4 bytes written.
//
// Compile-time: MAXIMUM (0, 1), TX, TY (block), PIXELS per thread along x (1 on a GPU).
#if MAXIMUM
#define EXTREME(a, b) ((a) > (b) ? (a) : (b))
#define OUTSIDE (-__int_as_float(0x7f800000))
#else
#define EXTREME(a, b) ((a) < (b) ? (a) : (b))
#define OUTSIDE __int_as_float(0x7f800000)
#endif
#define THREADS (TX * TY)
#ifdef ONE_THREAD
#define EACH_PIXEL for (int i = 0; i < n_here; ++i)
#else
#define EACH_PIXEL for (int i = 0; i < 1; ++i)
#endif

// A block makes a row of all tables; tables: (n_tables, n_rows, nx + 2 margin). Grid: ny, planes.
extern "C" __global__ void __launch_bounds__(THREADS)
volume_runs(const float* __restrict__ image, float* tables, int n_tables, int margin, long long level_size, int nx) {
    const int pitch = nx + 2 * margin, thread = threadIdx.y * TX + threadIdx.x;
    const size_t row = (size_t)blockIdx.y * gridDim.x + blockIdx.x;
    float* table = tables + row * pitch;
    const float* line = image + row * nx;
    for (int x = thread; x < pitch; x += THREADS) {
        const bool is_inside = x >= margin && x < margin + nx;
        table[x] = is_inside ? line[x - margin] : OUTSIDE;
    }
    for (int k = 1; k < n_tables; ++k) {
        __syncthreads();
        const int half = 1 << (k - 1), n = pitch - 2 * half + 1;
        const float* from = table;
        table += level_size;
        for (int x = thread; x < n; x += THREADS) table[x] = EXTREME(from[x], from[x + half]);
    }
}

// ball: for each of its n_rows rows the distance along z and y, the half-width w and the table k. Planes: `first` is the
// position of the slab in a volume of `depth`, `start` that of the first result. Grid: parts of rows, rows, planes.
extern "C" __global__ void __launch_bounds__(THREADS)
volume_extremes(const float* __restrict__ tables, const int4* __restrict__ ball, float* __restrict__ result, int n_rows,
                int margin, long long level_size, int first, int depth, int start, int ny, int nx) {
    const int x = (blockIdx.x * TX + threadIdx.x) * PIXELS, y = blockIdx.y * TY + threadIdx.y;
    if (x >= nx || y >= ny) return;
    const int pitch = nx + 2 * margin, n_here = min(PIXELS, nx - x), z = start + blockIdx.z;
    float best[PIXELS];
    EACH_PIXEL best[i] = OUTSIDE;
    for (int j = 0; j < n_rows; ++j) {
        const int4 row = ball[j];
        const int from_z = z + row.x, from_y = y + row.y;
        if (from_z < 0 || from_z >= depth || from_y < 0 || from_y >= ny) continue;
        const size_t line = ((size_t)(from_z - first) * ny + from_y) * pitch + margin + x;
        const float* left = tables + row.w * level_size + line - row.z;
        const float* right = left + 2 * row.z + 1 - (1 << row.w);
        EACH_PIXEL {
            const float both = EXTREME(left[i], right[i]);
            best[i] = EXTREME(best[i], both);
        }
    }
    float* to = result + ((size_t)blockIdx.z * ny + y) * nx + x;
    EACH_PIXEL to[i] = best[i];
}
