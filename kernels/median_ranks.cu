// Sorts the pixels of each tile of a plane, for median.cu.   Python: gpu_tomoclass/accelerated/ranks.py
//
//   sorted[tile] = the values of the tile and its margin, ascending     ranks[tile, i] = place of pixel i in sorted
//
// A tile is tile_y x tile_x pixels with `half` more on all sides, those outside of the plane equal to the nearest in it.
// Every pixel has a rank of its own: of equal values the earlier pixel has the lower rank.
// A block sorts a tile in shared memory by a bitonic network: log2(SORT) (log2(SORT) + 1) / 4 exchanges per pixel of
// 8 bytes, the key in the upper half (the value's bits as an integer of the same order), the pixel's number below.
// Per pixel of the tile 4 bytes are read and 6 written.
//
// Compile-time: SORT (power of two, at least the pixels of a tile with its margin), THREADS.

extern "C" __global__ void __launch_bounds__(THREADS)
median_ranks(const float* __restrict__ image, unsigned short* __restrict__ ranks, float* __restrict__ sorted, int tile_y,
             int tile_x, int half, int ny, int nx) {
    __shared__ unsigned long long items[SORT];
    __shared__ unsigned short rank_of[SORT];
    const int pitch = tile_x + 2 * half, n = pitch * (tile_y + 2 * half);
    const int y0 = blockIdx.y * tile_y - half, x0 = blockIdx.x * tile_x - half;
    const float* plane = image + blockIdx.z * (size_t)ny * nx;
    const size_t tile = ((size_t)(blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * n;
    for (int i = threadIdx.x; i < SORT; i += THREADS) {
        unsigned long long item = 0xffffffffffffffffull;
        if (i < n) {
            const int y = min(max(y0 + i / pitch, 0), ny - 1), x = min(max(x0 + i % pitch, 0), nx - 1);
            const unsigned bits = __float_as_uint(plane[(size_t)y * nx + x]);
            const unsigned key = bits >> 31 ? ~bits : bits | 0x80000000u;
            item = (unsigned long long)key << 32 | (unsigned)i;
        }
        items[i] = item;
    }
    for (int run = 2; run <= SORT; run *= 2)
        for (int stride = run / 2; stride > 0; stride /= 2) {
            __syncthreads();
            for (int t = threadIdx.x; t < SORT / 2; t += THREADS) {
                const int i = 2 * t - (t & (stride - 1)), j = i + stride;
                const unsigned long long a = items[i], b = items[j];
                if ((a > b) == ((i & run) == 0)) {
                    items[i] = b;
                    items[j] = a;
                }
            }
        }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += THREADS) {
        const unsigned long long item = items[i];
        const unsigned key = (unsigned)(item >> 32);
        sorted[tile + i] = __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
        rank_of[(unsigned)item] = (unsigned short)i;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += THREADS) ranks[tile + i] = rank_of[i];
}
