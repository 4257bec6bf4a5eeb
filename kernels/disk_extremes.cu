// Minimum or maximum over ImageJ's disks.   Python: gpu_tomoclass/features/accelerated/ranks.py
//
// `runs` makes, for each row of the padded plane of keys, tables of the extreme of 2^k pixels from each pixel on:
//
//   table[0] = keys     table[k][x] = extreme(table[k - 1][x], table[k - 1][x + 2^(k-1)])
//
// A row of a disk, 2 w + 1 pixels, is then the extreme of two overlapping runs of 2^k pixels, the largest k that fits:
// `disk_extremes` reads two values per row of the disk and compares them. All radii use the same tables. Keys are the
// bits of the float32 values as integers in the same order.
// Per pixel: 12 bytes moved for each table, 2 reads from L1 per row of the disk, 4 bytes written.
//
// Compile-time: MAXIMUM (0, 1), LANES, GROUPS (block), PIXELS per thread along x (1 on a GPU).
#if MAXIMUM
#define EXTREME(a, b) ((a) > (b) ? (a) : (b))
#else
#define EXTREME(a, b) ((a) < (b) ? (a) : (b))
#endif
#define THREADS (LANES * GROUPS)
#ifdef ONE_THREAD
#define EACH_PIXEL for (int i = 0; i < n_here; ++i)
#else
#define EACH_PIXEL for (int i = 0; i < 1; ++i)
#endif

// A block makes a row of all tables. level_size: pixels from a table to the next.
extern "C" __global__ void __launch_bounds__(THREADS)
runs(const int* __restrict__ keys, int* __restrict__ tables, int n_tables, int pitch, long long level_size) {
    const size_t row = ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * pitch;
    const int thread = threadIdx.y * LANES + threadIdx.x;
    for (int x = thread; x < pitch; x += THREADS) tables[row + x] = keys[row + x];
    for (int k = 1; k < n_tables; ++k) {
        __syncthreads();
        const int half = 1 << (k - 1), n = pitch - 2 * half + 1;
        int* to = tables + k * level_size + row;
        const int* from = to - level_size;
        for (int x = thread; x < n; x += THREADS) to[x] = EXTREME(from[x], from[x + half]);
    }
}

// offsets: for each row of the disk, two places in the tables relative to a pixel of the first table.
extern "C" __global__ void __launch_bounds__(THREADS)
disk_extremes(const int* __restrict__ tables, const long long* __restrict__ offsets, float* __restrict__ result,
              int n_rows, int margin, int ny, int nx) {
    const int x = (blockIdx.x * LANES + threadIdx.x) * PIXELS, y = blockIdx.y * GROUPS + threadIdx.y;
    if (x >= nx || y >= ny) return;
    const int pitch = nx + 2 * margin, n_here = min(PIXELS, nx - x);
    const int* pixel = tables + ((size_t)blockIdx.z * (ny + 2 * margin) + y + margin) * pitch + margin + x;
    int best[PIXELS];
    EACH_PIXEL best[i] = pixel[i];  // in every disk
    for (int j = 0; j < n_rows; ++j) {
        const int* left = pixel + offsets[2 * j];
        const int* right = pixel + offsets[2 * j + 1];
        EACH_PIXEL {
            const int both = EXTREME(left[i], right[i]);
            best[i] = EXTREME(best[i], both);
        }
    }
    float* to = result + ((size_t)blockIdx.z * ny + y) * nx + x;
    EACH_PIXEL to[i] = __int_as_float(best[i] ^ (best[i] >> 31 & 0x7fffffff));
}
