// Median over ImageJ's disks that are too large for median.cu on a GPU.   Python: gpu_tomoclass/features/accelerated/ranks.py
//
// Keys are the bits of the float32 values as integers in the same order. The median's key is found bit by bit, from the
// highest on: a bit is set if at most n / 2 keys of the disk are below the number found so far with that bit set. Bits that all
// keys of the disk share are known after one pass over it.
// Per pixel: n keys from L1 or L2 for each bit that differs (about 17 for 16-bit images), 4 bytes written.
//
// Compile-time: LANES, GROUPS (block).

// padded: keys with a margin of at least half the disk.
extern "C" __global__ void __launch_bounds__(LANES * GROUPS)
median_large(const int* __restrict__ padded, const int* __restrict__ widths, float* __restrict__ result, int n_rows,
             int n_in_disk, int margin, int ny, int nx) {
    const int x = blockIdx.x * LANES + threadIdx.x, y = blockIdx.y * GROUPS + threadIdx.y;
    if (x >= nx || y >= ny) return;
    const int pitch = nx + 2 * margin;
    const int* centre = padded + ((size_t)blockIdx.z * (ny + 2 * margin) + y + margin) * pitch + margin + x;
    const int* first_row = centre - (size_t)(n_rows / 2) * pitch;
    const int any = *centre;
    unsigned differing = 0;
    const int* row = first_row;
    for (int j = 0; j < n_rows; ++j, row += pitch)
        for (int i = -widths[j]; i <= widths[j]; ++i) differing |= row[i] ^ any;
    // As unsigned numbers in the order of the keys, with the differing bits 0.
    unsigned found = ((unsigned)any ^ 0x80000000u) & ~differing;
    while (differing) {
        const unsigned bit = 0x80000000u >> __clz((int)differing);
        differing ^= bit;
        const int limit = (int)((found | bit) ^ 0x80000000u);
        int below = 0;
        row = first_row;
        for (int j = 0; j < n_rows; ++j, row += pitch)
            for (int i = -widths[j]; i <= widths[j]; ++i) below += row[i] < limit;
        if (below <= n_in_disk / 2) found |= bit;
    }
    const int key = (int)(found ^ 0x80000000u);
    result[((size_t)blockIdx.z * ny + y) * nx + x] = __int_as_float(key ^ (key >> 31 & 0x7fffffff));
}
