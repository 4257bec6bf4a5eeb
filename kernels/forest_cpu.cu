// Class probabilities of pixels by a random forest, on a CPU: every question of a tree is asked of every pixel.
//
// Python: gpu_tomoclass/forest/walks.py
//
//   probability[c, p] = sum over trees of votes[leaf(tree, p), c] / the same summed over c
//
// Pixels come as ranks, see forest_ranks_cpu.cu. A tree is a list of questions, those below before those above. Its
// answer is a row of votes for each pixel: where rank > k what was answered to the right of it, else to the left. So no
// pixel goes its own way: TILE pixels are a few vectors of bytes, without gathers, jumps and waiting for the deepest.
// It costs questions where a walk costs depth, which is less up to a thousand questions or so per tree.
//
// A question is 8 bytes: column << 8 | k; then from the lowest byte the slots of the left answer, the right answer and
// its own. Slots 0..ROWS-1 hold the rows of votes, which are the leaves' answers; the others are used again and again.
// The first CLASSES rows are for one class alone; where there are no others votes are counted.
//
// `want_labels`: after five eighths of the trees the pixels are left alone whose first largest class no tree still to
// come can change, since it leads by more votes than there are trees. The others move together into tiles of their own.
// Only where votes are counted, so nothing depends on rounding.
//
// A pixel with a missing value gets NaN here; forest_missing.cu then sends it both ways, weighted by left_fraction.
//
// Per question and pixel: one byte of ranks and two of answers read, one written, all in the first-level cache.
//
// Compile-time: ONE_THREAD, CLASSES, WORDS (a quarter of the columns), TILE, TILES (of a block), ROWS (of votes),
// SLOTS.
#define MISSING 255
#define FEW 16  // classes: their counts are made as vectors
#if ROWS == CLASSES
#define SUM unsigned short
#else
#define SUM double
#endif

// Adds the answers of some trees to the sums [class][pixel] of a tile.
__device__ void ask(const unsigned char* __restrict__ of_tile, const uint2* __restrict__ questions,
                    const int* __restrict__ first_question, const double* __restrict__ votes, int first_tree,
                    int last_tree, unsigned char* slots, SUM* __restrict__ sum) {
    for (int tree = first_tree; tree < last_tree; ++tree) {
        const int last = first_question[tree + 1] - 1;
        for (int q = first_question[tree]; q <= last; ++q) {
            const uint2 question = questions[q];
            const unsigned char k = (unsigned char)(question.x & 255u);
            const unsigned char* rank = of_tile + (size_t)(question.x >> 8) * TILE;
            const unsigned char* left = slots + (question.y & 255u) * TILE;
            const unsigned char* right = slots + (question.y >> 8 & 255u) * TILE;
            unsigned char* answer = slots + (question.y >> 16) * TILE;
            INDEPENDENT for (int i = 0; i < TILE; ++i) {  // the answer may take the place of one of the two
                const unsigned char is_right = rank[i] > k ? 255 : 0;
                answer[i] = (unsigned char)((right[i] & is_right) | (left[i] & ~is_right));
            }
        }
        const unsigned char* row = slots + (questions[last].y >> 16) * TILE;
#if ROWS == CLASSES && CLASSES <= FEW
        for (int c = 0; c < CLASSES; ++c)
            for (int i = 0; i < TILE; ++i) sum[c * TILE + i] += row[i] == c ? 1 : 0;
#elif ROWS == CLASSES
        for (int i = 0; i < TILE; ++i) ++sum[row[i] * TILE + i];
#else
        for (int i = 0; i < TILE; ++i)
            for (int c = 0; c < CLASSES; ++c) sum[c * TILE + i] += votes[row[i] * CLASSES + c];
#endif
    }
}

// By how many votes the largest class of each pixel of a tile leads.
__device__ void leads(const SUM* __restrict__ sum, SUM* __restrict__ lead) {
    SUM second[TILE];
    for (int i = 0; i < TILE; ++i) lead[i] = second[i] = 0;
    for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < TILE; ++i) {
            const SUM n = sum[c * TILE + i], lower = n < lead[i] ? n : lead[i];
            second[i] = lower > second[i] ? lower : second[i];
            lead[i] = n > lead[i] ? n : lead[i];
        }
    for (int i = 0; i < TILE; ++i) lead[i] = (SUM)(lead[i] - second[i]);
}

extern "C" __global__ void forest_cpu(
    const unsigned char* __restrict__ ranks, const uint2* __restrict__ questions,
    const int* __restrict__ first_question, const double* __restrict__ votes, float* __restrict__ probabilities,
    int n_trees, int want_labels, long long n_pixels) {
    const int tile_bytes = 4 * WORDS * TILE;
    const long long first = (long long)blockIdx.x * (TILES * TILE);
    const int n_here = (int)min((long long)TILES * TILE, n_pixels - first);
    const int n_tiles = (n_here + TILE - 1) / TILE;
    const unsigned char* of_block = ranks + (size_t)blockIdx.x * TILES * tile_bytes;
    __shared__ unsigned char slots[SLOTS * TILE];
    __shared__ unsigned char is_missing[TILES * TILE];
    __shared__ SUM sums[TILES * CLASSES * TILE];
    for (int row = 0; row < ROWS; ++row)
        for (int i = 0; i < TILE; ++i) slots[row * TILE + i] = (unsigned char)row;
    const int n_of_all = ROWS == CLASSES && want_labels ? n_trees - n_trees * 3ll / 8 : n_trees;
    for (int tile = 0; tile < n_tiles; ++tile) {
        const unsigned char* of_tile = of_block + (size_t)tile * tile_bytes;
        unsigned char* missing = is_missing + tile * TILE;
        for (int i = 0; i < TILE; ++i) missing[i] = 0;
        for (int column = 0; column < 4 * WORDS; ++column)
            for (int i = 0; i < TILE; ++i) missing[i] |= of_tile[column * TILE + i] == MISSING ? 1 : 0;
        SUM* sum = sums + tile * CLASSES * TILE;
        for (int i = 0; i < CLASSES * TILE; ++i) sum[i] = 0;
        ask(of_tile, questions, first_question, votes, 0, n_of_all, slots, sum);
    }
    if (n_of_all < n_trees) {
        int open[TILES * TILE], n_open = 0;  // pixels
        for (int tile = 0; tile < n_tiles; ++tile) {
            SUM lead[TILE];
            leads(sums + tile * CLASSES * TILE, lead);
            for (int i = 0; i < TILE; ++i) {
                open[n_open] = tile * TILE + i;
                n_open += lead[i] <= n_trees - n_of_all && !is_missing[tile * TILE + i] ? 1 : 0;
            }
        }
        __shared__ unsigned char together[4 * WORDS * TILE];
        __shared__ SUM sum[CLASSES * TILE];
        for (int start = 0; start < n_open; start += TILE) {
            int from[TILE];
            for (int i = 0; i < TILE; ++i) {  // the last tile is filled up with its last pixel
                const int p = open[min(start + i, n_open - 1)];
                from[i] = p / TILE * tile_bytes + p % TILE;
            }
            for (int column = 0; column < 4 * WORDS; ++column)
                for (int i = 0; i < TILE; ++i) together[column * TILE + i] = of_block[from[i] + column * TILE];
            for (int i = 0; i < CLASSES * TILE; ++i) sum[i] = 0;
            ask(together, questions, first_question, votes, n_of_all, n_trees, slots, sum);
            for (int i = 0; i < min(TILE, n_open - start); ++i) {
                const int p = open[start + i];
                for (int c = 0; c < CLASSES; ++c) sums[(p / TILE * CLASSES + c) * TILE + p % TILE] += sum[c * TILE + i];
            }
        }
    }
    for (int tile = 0; tile < n_tiles; ++tile) {
        const SUM* sum = sums + tile * CLASSES * TILE;
        double total[TILE];
        for (int i = 0; i < TILE; ++i) total[i] = 0.0;
        for (int c = 0; c < CLASSES; ++c)
            for (int i = 0; i < TILE; ++i) total[i] += sum[c * TILE + i];
        for (int c = 0; c < CLASSES; ++c)
            for (int i = 0; i < min(TILE, n_here - tile * TILE); ++i)
                probabilities[c * n_pixels + first + tile * TILE + i] =
                    is_missing[tile * TILE + i] ? __int_as_float(0x7fc00000) : (float)(sum[c * TILE + i] / total[i]);
    }
}
