// Median over balls, on a CPU, by a window that slides over ranks.   Python: gpu_tomoclass/features/accelerated/volume_ranks.py
//
// A block is a worker that takes every gridDim.x-th tile of the volume. It sorts the voxels of the tile and of the margin
// around it, so that each has its own rank and the voxels in a window are a set of ranks: one bit each. The window slides
// along x. A step flips the bits that leave and those that enter, 2 per row of the ball, and counts how many of them lie
// below the word in which the last median was; from that word it goes up or down, by counting bits, to the word that has the
// median. Voxels outside of the volume have the last rank of all, whose bit means nothing. Where the window has an even
// number of voxels, the result is half the sum of the two in the middle, in float.
// Per voxel: 2 ranks per row of the ball and as many updates of a word, in the first-level cache.
//
// Compile-time: ONE_THREAD, RANK (unsigned short, or unsigned for tiles of 65536 voxels or more), WORDS (of the set).
#define DIGIT(item, pass) ((unsigned)((item) >> (32 + 11 * (pass))) & 2047u)
typedef unsigned long long Item;  // key, voxel's number
typedef unsigned long long Word;

// A tile in the slab; margins included.
struct Tile {
    int z, y, x, nz, ny, nx;
};

// Sorts the voxels of a tile that lie in the volume by a radix sort with digits of 11, 11 and 10 bits. A digit that all keys
// share costs nothing. Returns their number.
__device__ __forceinline__ int sort_tile(const float* image, const Tile& tile, Item* items, Item* other, RANK* ranks,
                                         float* sorted, int first, int depth, int ny, int nx) {
    unsigned counts[3][2048];
    memset(counts, 0, sizeof counts);
    const int size = tile.nz * tile.ny * tile.nx;
    const int low = max(tile.x, 0), high = min(tile.x + tile.nx, nx);
    for (int i = 0; i < size; ++i) ranks[i] = (RANK)size;
    int n = 0;
    for (int z = max(tile.z, 0); z < min(tile.z + tile.nz, depth); ++z)
        for (int y = max(tile.y, 0); y < min(tile.y + tile.ny, ny); ++y) {
            const float* line = image + ((size_t)(z - first) * ny + y) * nx;
            const int place = ((z - tile.z) * tile.ny + y - tile.y) * tile.nx - tile.x;
            for (int x = low; x < high; ++x) {
                const unsigned bits = __float_as_uint(line[x]);
                const unsigned key = bits >> 31 ? ~bits : bits | 0x80000000u;
                items[n] = (Item)key << 32 | (unsigned)(place + x);
                for (int pass = 0; pass < 3; ++pass) ++counts[pass][DIGIT(items[n], pass)];
                ++n;
            }
        }
    for (int pass = 0; pass < 3; ++pass) {
        if (counts[pass][DIGIT(items[0], pass)] == (unsigned)n) continue;
        unsigned sum = 0;
        for (int digit = 0; digit < 2048; ++digit) {
            const unsigned count = counts[pass][digit];
            counts[pass][digit] = sum;
            sum += count;
        }
        for (int k = 0; k < n; ++k) other[counts[pass][DIGIT(items[k], pass)]++] = items[k];
        Item* swapped = items;
        items = other;
        other = swapped;
    }
    for (int k = 0; k < n; ++k) {
        const unsigned key = (unsigned)(items[k] >> 32);
        sorted[k] = __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
        ranks[(unsigned)items[k]] = (RANK)k;
    }
    return n;
}

__device__ __forceinline__ void flip(Word* set, unsigned rank) { set[rank >> 6] ^= (Word)1 << (rank & 63); }

// Medians along a line of n_steps voxels from `centre` on; `outside` is the rank of voxels outside the volume.
template <bool IS_INSIDE>
__device__ __forceinline__ void slide(Word* set, const RANK* centre, const float* sorted, const int4* ball,
                                      const int2* edges, const int* offsets, float* to, int n_rows, int n_in_ball,
                                      unsigned outside, int n_steps) {
    memset(set, 0, WORDS * sizeof(Word));
    int at = centre[0] >> 6, below = 0, n = IS_INSIDE ? n_in_ball : 0;
    for (int j = 0; j < n_rows; ++j)
        for (int i = -ball[j].z; i <= ball[j].z; ++i) {
            const unsigned rank = centre[offsets[j] + i];
            flip(set, rank);
            below += (int)(rank >> 6) < at;
            if (!IS_INSIDE) n += rank != outside;
        }
    for (int step = 0;; ++step) {
        const int middle = n / 2;
        while (below > middle) below -= __popcll(set[--at]);
        Word word = set[at];
        for (int count = __popcll(word); below + count <= middle; count = __popcll(word)) {
            below += count;
            word = set[++at];
        }
        for (int i = middle - below; i > 0; --i) word &= word - 1;
        const int upper = (at << 6) + __ffsll((long long)word) - 1;
        float median = sorted[upper];
        if (!IS_INSIDE && n % 2 == 0) {  // the one before is the highest bit below
            int lower_at = at;
            Word lower = set[at] & (((Word)1 << (upper & 63)) - 1);
            while (lower == 0) lower = set[--lower_at];
            median = 0.5f * (sorted[(lower_at << 6) + 63 - __clzll((long long)lower)] + median);
        }
        to[step] = median;
        if (step == n_steps - 1) return;
        for (int j = 0; j < n_rows; ++j) {
            const unsigned leaving = centre[edges[j].x], entering = centre[edges[j].y];
            flip(set, leaving);
            flip(set, entering);
            below += ((int)(entering >> 6) < at) - ((int)(leaving >> 6) < at);
            if (!IS_INSIDE) n += (entering != outside) - (leaving != outside);
        }
        ++centre;
    }
}

// ball: for each of its n_rows rows the distance along z and y and the half-width; edges: where the voxel that leaves a row
// lies in a tile and the one that enters, from the centre; offsets: where the row's middle lies. halves: of the ball along
// z, y, x. scratch: per worker two items per voxel of a tile, ranks and sorted: one. Planes: `first` is the position of the
// slab in a volume of `depth`, `start` that of the first result.
extern "C" __global__ void
volume_median_cpu(const float* __restrict__ image, const int4* __restrict__ ball, const int2* __restrict__ edges,
                  const int* __restrict__ offsets, unsigned long long* __restrict__ scratch, RANK* __restrict__ ranks,
                  float* __restrict__ sorted, float* __restrict__ result, int n_rows, int n_in_ball, int n_tiles,
                  int tiles_y, int tiles_x, int tile_z, int tile_y, int tile_x, int half_z, int half_y, int half_x,
                  int first, int depth, int start, int nz, int ny, int nx) {
    const int dz = tile_z + 2 * half_z, dy = tile_y + 2 * half_y, dx = tile_x + 2 * half_x;
    const size_t size = (size_t)dz * dy * dx;
    Item* items = scratch + 2 * size * blockIdx.x;
    RANK* own_ranks = ranks + size * blockIdx.x;
    float* own_sorted = sorted + size * blockIdx.x;
    Word set[WORDS];
    for (int i = blockIdx.x; i < n_tiles; i += gridDim.x) {
        const int z0 = i / (tiles_y * tiles_x) * tile_z, y0 = i / tiles_x % tiles_y * tile_y, x0 = i % tiles_x * tile_x;
        const int stop_z = min(tile_z, nz - z0), stop_y = min(tile_y, ny - y0), n_steps = min(tile_x, nx - x0);
        // Margins only as far as this tile has voxels: a tile cut by the end of the volume needs no more.
        const Tile tile = {start + z0 - half_z, y0 - half_y, x0 - half_x, stop_z + 2 * half_z, dy, dx};
        sort_tile(image, tile, items, items + size, own_ranks, own_sorted, first, depth, ny, nx);
        const unsigned outside = (unsigned)(tile.nz * dy * dx);
        for (int z = 0; z < stop_z; ++z)
            for (int y = 0; y < stop_y; ++y) {
                const RANK* centre = own_ranks + ((size_t)(half_z + z) * dy + half_y + y) * dx + half_x;
                float* to = result + ((size_t)(z0 + z) * ny + y0 + y) * nx + x0;
                const int at_z = start + z0 + z, at_y = y0 + y;
                const bool is_inside = at_z >= half_z && at_z + half_z < depth && at_y >= half_y && at_y + half_y < ny &&
                                       x0 >= half_x && x0 + n_steps + half_x <= nx;
                if (is_inside)
                    slide<true>(set, centre, own_sorted, ball, edges, offsets, to, n_rows, n_in_ball, outside, n_steps);
                else
                    slide<false>(set, centre, own_sorted, ball, edges, offsets, to, n_rows, n_in_ball, outside, n_steps);
            }
    }
}
