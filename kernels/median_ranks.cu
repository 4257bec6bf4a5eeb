// Sorts the pixels of each tile of a plane, for median.cu.   Python: gpu_tomoclass/features/accelerated/ranks.py
//
//   sorted[tile] = the values of the tile and its margin, ascending     ranks[tile, i] = place of pixel i in sorted
//
// A tile is tile_y x tile_x pixels with `half` more on all sides, those outside of the plane equal to the nearest in it.
// Every pixel has a rank of its own: of equal values the earlier pixel has the lower rank.
// A block sorts a tile in shared memory by a bitonic network: log2(SORT) (log2(SORT) + 1) / 4 exchanges per pixel of
// 8 bytes, the key in the upper half (the value's bits as an integer of the same order), the pixel's number below. A
// thread takes PER items at a time, so far apart that it can do log2(PER) stages of the network in registers: for 4096
// items and 256 threads each of them passes through shared memory 21 times instead of 78. Item i lies at PLACE(i), which
// keeps lanes in different banks whatever their distance. Per pixel of the tile 4 bytes are read and 6 written.
//
// Compile-time: SORT (power of two, at least the pixels of a tile with its margin), THREADS (at most half of SORT).
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif
#define PER (SORT / THREADS)
#define PLACE(i) ((i) ^ ((i) >> 4 & 15))

// a before b, or behind it.
__device__ __forceinline__ void exchange(unsigned long long& a, unsigned long long& b, bool ascending) {
    const bool is_wrong = (a > b) == ascending;
    const unsigned long long first = is_wrong ? b : a;
    b = is_wrong ? a : b;
    a = first;
}

extern "C" __global__ void __launch_bounds__(THREADS, 3)
median_ranks(const float* __restrict__ image, unsigned short* __restrict__ ranks, float* __restrict__ sorted, int tile_y,
             int tile_x, int half, int ny, int nx) {
    __shared__ unsigned long long items[SORT];
    __shared__ unsigned short rank_of[SORT];
    const int pitch = tile_x + 2 * half, n = pitch * (tile_y + 2 * half);
    const int y0 = blockIdx.y * tile_y - half, x0 = blockIdx.x * tile_x - half;
    const float* plane = image + blockIdx.z * (size_t)ny * nx;
    const size_t tile = ((size_t)(blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * n;
    for (int i = threadIdx.x; i < SORT; i += THREADS) {
        unsigned long long unsorted = 0xffffffffffffffffull;
        if (i < n) {
            const int y = min(max(y0 + i / pitch, 0), ny - 1), x = min(max(x0 + i % pitch, 0), nx - 1);
            const unsigned bits = __float_as_uint(plane[(size_t)y * nx + x]);
            const unsigned key = bits >> 31 ? ~bits : bits | 0x80000000u;
            unsorted = (unsigned long long)key << 32 | (unsigned)i;
        }
        items[PLACE(i)] = unsorted;
    }
    __syncthreads();
    unsigned long long item[PER];
    const int own = threadIdx.x * PER;
    UNROLL for (int k = 0; k < PER; ++k) item[k] = items[PLACE(own + k)];
    UNROLL for (int run = 2; run <= PER; run *= 2)
        UNROLL for (int stride = run / 2; stride > 0; stride /= 2)
            UNROLL for (int k = 0; k < PER; ++k)
                if (!(k & stride)) exchange(item[k], item[k + stride], ((own + k) & run) == 0);
    UNROLL for (int k = 0; k < PER; ++k) items[PLACE(own + k)] = item[k];
    for (int run = 2 * PER; run <= SORT; run *= 2)
        for (int top = run / 2; top > 0; top /= PER) {  // strides top .. lowest
            __syncthreads();
            const int lowest = max(1, 2 * top / PER), low = threadIdx.x & (lowest - 1);
            const int first = (threadIdx.x - low) * PER + low;  // the thread's items: first + k lowest
            const bool ascending = (first & run) == 0;
            UNROLL for (int k = 0; k < PER; ++k) item[k] = items[PLACE(first + k * lowest)];
            UNROLL for (int stride = PER / 2; stride > 0; stride /= 2)
                if (stride * lowest <= top)
                    UNROLL for (int k = 0; k < PER; ++k)
                        if (!(k & stride)) exchange(item[k], item[k + stride], ascending);
            UNROLL for (int k = 0; k < PER; ++k) items[PLACE(first + k * lowest)] = item[k];
        }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += THREADS) {
        const unsigned long long of_rank = items[PLACE(i)];
        const unsigned key = (unsigned)(of_rank >> 32);
        sorted[tile + i] = __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
        rank_of[(unsigned)of_rank] = (unsigned short)i;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += THREADS) ranks[tile + i] = rank_of[i];
}
