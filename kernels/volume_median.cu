// Median over balls, on a GPU.   Python: gpu_tomoclass/features/accelerated/volume_ranks.py
//
// The voxels of the ball that lie in the volume, n of them, are counted again and again: each time two more bits of the
// value at place n / 2 of their order become known, from the highest on, until all 32 are. Bits are those of the float32
// values, as unsigned integers in the same order. Where n is even, one more round finds the value at place n / 2 - 1, and
// the result is half the sum of the two. 17 reads from caches and some 8 operations per voxel of the ball.
//
// Lanes are neighbouring voxels of a row, so that loads are whole lines. For small balls; large ones are volume_median_lines.cu's,
// and on a CPU volume_median_cpu.cu does the same.
//
// Compile-time: TX, TY (block).
#define THREADS (TX * TY)

__device__ __forceinline__ unsigned key_of(float value) {
    const unsigned bits = __float_as_uint(value);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(unsigned key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// ball: for each of its n_rows rows the distance along z and y and the half-width. Planes: `first` is the position of the
// slab in a volume of `depth`, `start` that of the first result. Grid: parts of rows, rows, planes.
extern "C" __global__ void __launch_bounds__(THREADS)
volume_median(const float* __restrict__ image, const int4* __restrict__ ball, float* __restrict__ result, int n_rows,
              int first, int depth, int start, int ny, int nx) {
    const int x = blockIdx.x * TX + threadIdx.x, y = blockIdx.y * TY + threadIdx.y, z = start + blockIdx.z;
    if (x >= nx || y >= ny) return;
    unsigned known = 0, lower = 0;
    int n = 0, n_below = 0;
    // Rounds 0..15 find the bits of the upper one of the middle; round 16 is for the lower one.
    for (int round = 0; round <= 16; ++round) {
        const bool is_last = round == 16;
        const unsigned quarter = is_last ? 0u : 1u << (30 - 2 * round);
        const unsigned a = known + quarter, b = a + quarter, c = b + quarter;
        int below_a = 0, below_b = 0, below_c = 0, all = 0;
        for (int j = 0; j < n_rows; ++j) {
            const int4 row = ball[j];
            const int from_z = z + row.x, from_y = y + row.y;
            if (from_z < 0 || from_z >= depth || from_y < 0 || from_y >= ny) continue;
            const float* line = image + ((size_t)(from_z - first) * ny + from_y) * nx;
            const int low = max(x - row.z, 0), high = min(x + row.z, nx - 1);
            all += high - low + 1;
            for (int i = low; i <= high; ++i) {
                const unsigned key = key_of(line[i]);
                below_a += key < a;
                below_b += key < b;
                below_c += key < c;
                if (is_last && key < known && key > lower) lower = key;
            }
        }
        n = all;
        const int middle = n / 2;
        if (is_last) n_below = below_a;
        else if (below_c <= middle) known = c;
        else if (below_b <= middle) known = b;
        else if (below_a <= middle) known = a;
        if (round == 15 && n % 2) break;
    }
    const float upper = value_of(known);
    float median = upper;
    if (n % 2 == 0) median = 0.5f * ((n_below == n / 2 ? value_of(lower) : upper) + upper);
    result[((size_t)blockIdx.z * ny + y) * nx + x] = median;
}
