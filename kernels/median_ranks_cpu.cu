// Sorts the pixels of each tile of a plane, for median.cu, on a CPU.   Python: gpu_tomoclass/features/accelerated/ranks.py
//
// The same result as median_ranks.cu, for tiles of any size, by a radix sort of (key, pixel's number) with digits of 11, 11
// and 10 bits; a digit that all keys share (the lowest one, for 16-bit values) costs nothing. A block is a worker that
// takes every gridDim.x-th tile and has scratch memory of its own.
//
// Compile-time: ONE_THREAD, RANK (unsigned short, or unsigned for tiles of more than 65536 pixels).
#define DIGIT(item, pass) ((unsigned)((item) >> (32 + 11 * (pass))) & 2047u)

// scratch: gridDim.x times two numbers for each pixel of a tile.
extern "C" __global__ void
median_ranks_cpu(const float* __restrict__ image, unsigned long long* __restrict__ scratch, RANK* __restrict__ ranks,
                 float* __restrict__ sorted, int n_tiles, int tiles_y, int tiles_x, int tile_y, int tile_x, int half,
                 int ny, int nx) {
    const int pitch = tile_x + 2 * half, height = tile_y + 2 * half;
    const size_t n = (size_t)pitch * height;
    for (int tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
        const int z = tile / (tiles_y * tiles_x), in_plane = tile % (tiles_y * tiles_x);
        const int y0 = in_plane / tiles_x * tile_y - half, x0 = in_plane % tiles_x * tile_x - half;
        const float* plane = image + z * (size_t)ny * nx;
        unsigned long long* items = scratch + 2 * n * blockIdx.x;
        unsigned long long* other = items + n;
        unsigned counts[3][2048];
        for (int pass = 0; pass < 3; ++pass)
            for (int i = 0; i < 2048; ++i) counts[pass][i] = 0;
        size_t i = 0;
        for (int row = 0; row < height; ++row) {
            const float* line = plane + (size_t)min(max(y0 + row, 0), ny - 1) * nx;
            for (int column = 0; column < pitch; ++column, ++i) {
                const unsigned bits = __float_as_uint(line[min(max(x0 + column, 0), nx - 1)]);
                const unsigned key = bits >> 31 ? ~bits : bits | 0x80000000u;
                items[i] = (unsigned long long)key << 32 | i;
                for (int pass = 0; pass < 3; ++pass) ++counts[pass][DIGIT(items[i], pass)];
            }
        }
        for (int pass = 0; pass < 3; ++pass) {
            if (counts[pass][DIGIT(items[0], pass)] == n) continue;
            unsigned sum = 0;
            for (int digit = 0; digit < 2048; ++digit) {
                const unsigned count = counts[pass][digit];
                counts[pass][digit] = sum;
                sum += count;
            }
            for (size_t k = 0; k < n; ++k) other[counts[pass][DIGIT(items[k], pass)]++] = items[k];
            unsigned long long* swapped = items;
            items = other;
            other = swapped;
        }
        for (size_t k = 0; k < n; ++k) {
            const unsigned key = (unsigned)(items[k] >> 32);
            sorted[tile * n + k] = __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
            ranks[tile * n + (unsigned)items[k]] = (RANK)k;
        }
    }
}
