// Median over ImageJ's disks by a window that slides over ranks.   Python: gpu_tomoclass/features/accelerated/ranks.py
//
// Within a tile every pixel has its own rank (median_ranks.cu), so the pixels in a window are a set of ranks: one bit each.
// A thread has such a set and slides its window along a line of the tile. A step clears the bits that leave and sets those
// that enter, 2 rows of the disk long each, and counts how many of them lie below the word in which the last median was.
// From that word it goes up or down, by counting bits, to the word that has the median; that bit's rank gives the value.
//
// On a GPU lanes are neighbouring columns and windows slide down: loads of ranks are whole lines, and shared memory is
// [word][lane], free of bank conflicts. On a CPU (ONE_THREAD) a block is one row of a tile.
// Per pixel: 2 (2 h + 1) ranks from L1 and as many updates of a word, h half the disk's height, and 4 bytes written; per line
// once all pixels of the disk.
//
// Compile-time: LANES (block), WORDS (of the set), RANK (type), ONE_THREAD on a CPU.
#ifdef ONE_THREAD
#define WORD unsigned long long
#define SHIFT 6
#define COUNT_BITS(word) __popcll(word)
#define LOWEST_BIT(word) (__ffsll((long long)(word)) - 1)
#else
#define WORD unsigned
#define SHIFT 5
#define COUNT_BITS(word) __popc(word)
#define LOWEST_BIT(word) (__ffs((int)(word)) - 1)
#endif

__device__ __forceinline__ void flip(WORD set[WORDS][LANES], int lane, int rank) {
    set[rank >> SHIFT][lane] ^= (WORD)1 << (rank & ((1 << SHIFT) - 1));
}

// half: margin of the tiles; widths: of the disk's n_rows rows, which are at most 2 half + 1; edges: per row where the
// pixel that leaves lies and the one that enters, from the centre. LANES divides tile_x; on a
// CPU blockIdx.y counts the rows of all tiles.
extern "C" __global__ void __launch_bounds__(LANES)
median(const RANK* __restrict__ ranks, const float* __restrict__ sorted, const int* __restrict__ widths,
       const int2* __restrict__ edges, float* __restrict__ result, int n_rows, int n_in_disk, int tile_y, int tile_x, int half, int ny, int nx) {
    __shared__ WORD set[WORDS][LANES];
    const int lane = threadIdx.x, pitch = tile_x + 2 * half, n_tile = pitch * (tile_y + 2 * half);
#ifdef ONE_THREAD
    const int in_y = blockIdx.y % tile_y, tile_of_y = blockIdx.y / tile_y, in_x = 0, tile_of_x = blockIdx.x;
    const int along = 1, across = pitch, n_steps = min(tile_x, nx - tile_of_x * tile_x), to_next = 1;
#else
    const int groups = tile_x / LANES, in_x = blockIdx.x % groups * LANES + lane, tile_of_x = blockIdx.x / groups;
    const int in_y = 0, tile_of_y = blockIdx.y;
    const int along = pitch, across = 1, n_steps = min(tile_y, ny - tile_of_y * tile_y), to_next = nx;
#endif
    const int y = tile_of_y * tile_y + in_y, x = tile_of_x * tile_x + in_x;
    if (y >= ny || x >= nx) return;
    const int tiles_y = (ny + tile_y - 1) / tile_y, tiles_x = (nx + tile_x - 1) / tile_x;
    const size_t tile = ((size_t)(blockIdx.z * tiles_y + tile_of_y) * tiles_x + tile_of_x) * n_tile;
    const RANK* centre = ranks + tile + (half + in_y) * pitch + half + in_x;
    const float* values = sorted + tile;
    float* to = result + ((size_t)blockIdx.z * ny + y) * nx + x;

    for (int i = 0; i < WORDS; ++i) set[i][lane] = 0;
    int at = centre[0] >> SHIFT, below = 0;  // below: how many of the window lie below word `at`
    for (int j = 0; j < n_rows; ++j) {
        const RANK* row = centre + (j - n_rows / 2) * across;
        for (int i = -widths[j]; i <= widths[j]; ++i) {
            const int rank = row[i * along];
            flip(set, lane, rank);
            below += rank >> SHIFT < at;
        }
    }
    for (int step = 0;; ++step) {
        while (below > n_in_disk / 2) below -= COUNT_BITS(set[--at][lane]);
        WORD word = set[at][lane];
        for (int n = COUNT_BITS(word); below + n <= n_in_disk / 2; n = COUNT_BITS(word)) {
            below += n;
            word = set[++at][lane];
        }
        for (int i = n_in_disk / 2 - below; i > 0; --i) word &= word - 1;
        *to = values[(at << SHIFT) + LOWEST_BIT(word)];
        to += to_next;
        if (step == n_steps - 1) return;
        for (int j = 0; j < n_rows; ++j) {
            const int2 edge = edges[j];
            const int leaving = centre[edge.x], entering = centre[edge.y];
            flip(set, lane, leaving);
            flip(set, lane, entering);
            below += (entering >> SHIFT < at) - (leaving >> SHIFT < at);
        }
        centre += along;
    }
}
