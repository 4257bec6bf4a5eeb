// Class probabilities of pixels by a random forest.
//
// Python: gpu_tomoclass/accelerated/forest.py
//
//   probability[c, p] = sum over trees of votes[leaf(tree, p), c] / the same summed over c
//
// Pixels come as ranks, see forest_ranks.cu. A node is 4 bytes, from the top: the column that it asks about, the
// distance to its left child (behind which the right one lies), and k: right where rank > k. A leaf has distance 0 and
// k = 255, so that a walk that has reached it stays there and pixels can walk side by side without asking who has
// arrived; its column is the class that all of its votes are for, or CLASSES, then `rows` has its row of `votes`.
//
// Per pixel and tree: one node (4 bytes; a tree of 500 nodes is 2 KB, which L1 keeps) and one rank per step, steps =
// depth. On a GPU a block has TILE pixels, their ranks in shared memory (4 WORDS bytes per pixel, read once), where a
// lane's bank is its own whatever it asks for; each of its ROWS of threads walks a run of trees, the sums of the rows
// are added in the end. On a CPU (ONE_THREAD) a thread walks the TILE pixels of a tile side by side, tree after tree,
// so that tile and tree stay in the first-level cache, gathers are vectors and the latency of one vector hides behind
// the others.
//
// A pixel with a missing value gets NaN here; forest_missing.cu then sends it both ways, weighted by left_fraction.
//
// Compile-time: CLASSES, OFFSET_BITS, WORDS, TILE, ROWS.
#ifdef ONE_THREAD
#define PIXELS TILE  // of a thread
#define WORD_OF(column, p) ((column) * (TILE / 4) + ((p) >> 2))
#define SHIFT_OF(column, p) (8 * ((p) & 3))
#else
#define PIXELS 1
#define SUMS (ROWS > 1 ? ROWS * CLASSES * TILE : 0)
#define WORD_OF(column, p) (((column) >> 2) * TILE + (p))
#define SHIFT_OF(column, p) (8 * ((column) & 3))
#endif
#define MISSING 255u
#define COLUMN_OF(node) ((int)((node) >> (OFFSET_BITS + 8)))
#define OFFSET_OF(node) (((node) >> 8) & ((1u << OFFSET_BITS) - 1u))

extern "C" __global__ void __launch_bounds__(TILE / PIXELS * ROWS)
forest(const unsigned* __restrict__ ranks, const unsigned* __restrict__ nodes, const int* __restrict__ roots,
       const int* __restrict__ rows, const double* __restrict__ votes, float* __restrict__ probabilities, int n_trees,
       long long n_pixels) {
    const int lane = threadIdx.x, row = threadIdx.y;
    const long long first = (long long)blockIdx.x * TILE;
    const unsigned* of_block = ranks + (size_t)blockIdx.x * (WORDS * TILE);
    unsigned is_missing[PIXELS];
    for (int i = 0; i < PIXELS; ++i) is_missing[i] = 0;
#ifdef ONE_THREAD
    const unsigned* tile = of_block;
    for (int column = 0; column < 4 * WORDS; ++column)
        for (int i = 0; i < PIXELS; ++i)
            is_missing[i] |= ((const unsigned char*)tile)[column * TILE + i] == MISSING;
#else
    __shared__ double memory[SUMS > WORDS * TILE / 2 ? SUMS : WORDS * TILE / 2];
    __shared__ unsigned is_missing_in_a_row[TILE];
    unsigned* tile = (unsigned*)memory;  // later the sums of the rows
    if (row == 0) is_missing_in_a_row[lane] = 0;
    for (int w = row; w < WORDS; w += ROWS) {
        const unsigned word = of_block[w * TILE + lane];
        tile[w * TILE + lane] = word;
        is_missing[0] |= (~word - 0x01010101u) & word & 0x80808080u;  // a byte of ~word is 0
    }
    __syncthreads();
    if (is_missing[0]) atomicOr(&is_missing_in_a_row[lane], 1u);
#endif

    int count[CLASSES][PIXELS];
    double sum[CLASSES][PIXELS];
    for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < PIXELS; ++i) count[c][i] = 0, sum[c][i] = 0.0;
    const int per_row = (n_trees + ROWS - 1) / ROWS;
    const int last_tree = min(n_trees, (row + 1) * per_row);
    for (int tree = row * per_row; tree < last_tree; ++tree) {
        const unsigned* of_tree = nodes + roots[tree];
        int at[PIXELS];
        for (int i = 0; i < PIXELS; ++i) at[i] = 0;
        unsigned moving;
        do {
            moving = 0;
            for (int i = 0; i < PIXELS; ++i) {
                const unsigned node = of_tree[at[i]], offset = OFFSET_OF(node);
                const int column = COLUMN_OF(node);
                const unsigned rank = tile[WORD_OF(column, lane + i)] >> SHIFT_OF(column, i) & 255u;
                at[i] += (int)offset + (rank > (node & 255u) ? 1 : 0);
                moving |= offset;
            }
        } while (moving);
        int leaf[PIXELS], is_mixed = 0;
        for (int i = 0; i < PIXELS; ++i) {
            leaf[i] = COLUMN_OF(of_tree[at[i]]);
            is_mixed |= leaf[i] == CLASSES ? 1 : 0;
        }
        if (is_mixed) {
            for (int i = 0; i < PIXELS; ++i) leaf[i] = rows[roots[tree] + at[i]] * CLASSES;
            for (int c = 0; c < CLASSES; ++c)
                for (int i = 0; i < PIXELS; ++i) sum[c][i] += votes[leaf[i] + c];
        } else {
            for (int c = 0; c < CLASSES; ++c)
                for (int i = 0; i < PIXELS; ++i) count[c][i] += leaf[i] == c ? 1 : 0;
        }
    }
    for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < PIXELS; ++i) sum[c][i] += count[c][i];

#ifndef ONE_THREAD
    __syncthreads();  // everybody has done with the tile
    if (row > 0)
        for (int c = 0; c < CLASSES; ++c) memory[(row * CLASSES + c) * TILE + lane] = sum[c][0];
    __syncthreads();
    if (row > 0) return;
    for (int r = 1; r < ROWS; ++r)
        for (int c = 0; c < CLASSES; ++c) sum[c][0] += memory[(r * CLASSES + c) * TILE + lane];
    is_missing[0] = is_missing_in_a_row[lane];
#endif
    double total[PIXELS];
    for (int i = 0; i < PIXELS; ++i) total[i] = 0.0;
    for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < PIXELS; ++i) total[i] += sum[c][i];
    const int n_here = (int)min((long long)TILE, n_pixels - first);
    for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < PIXELS; ++i)
            if (lane + i < n_here)
                probabilities[c * n_pixels + first + lane + i] =
                    is_missing[i] ? __int_as_float(0x7fc00000) : (float)(sum[c][i] / total[i]);
}
