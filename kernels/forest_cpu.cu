// Class probabilities of pixels by a random forest, on a CPU: every question of a tree is asked of every pixel.
//
// Python: gpu_tomoclass/forest/questions.py
//
//   probability[c, p] = sum over trees of votes[leaf(tree, p), c] / the same summed over c
//
// Pixels come as ranks, see forest_ranks_cpu.cu. A tree is a list of questions, those below before those above. Its
// answer is the number of a leaf for each pixel: where rank > k what was answered to the right of it, else to the left.
// So no pixel goes its own way: TILE pixels are a few vectors of bytes, without gathers, jumps and waiting for the
// deepest. It costs questions where a walk costs depth, which is less up to some hundred questions per tree.
//
// A question is 8 bytes: column << 8 | k; then three places of answers, in vectors of VECTOR bytes: 9 bits and one that
// tells whether it is a slot of TILE answers, for the left and the right, and 9 bits for its own, a slot. What is not a
// slot is a vector of one leaf's number: places 0..LEAVES-1. Slots are used again and again.
//
// COUNTED: every leaf votes once, for the class of its number. Else its votes are row first_leaf[tree] + number of
// `votes`, of PADDED doubles.
//
// After the first `n_of_all` trees the pixels are left alone whose first largest class no tree still to come can
// change, since it leads by more than `most_to_come` votes. The others move together into tiles of their own.
//
// A pixel with a missing value gets NaN here; forest_missing.cu then sends it both ways, weighted by left_fraction.
//
// Per question and pixel: one byte of ranks and two of answers read, one written; without the ranks all in the
// first-level cache. Per tree and pixel, unless they are counted: the votes of a leaf added, as one vector per PADDED.
//
// Compile-time: ONE_THREAD, CLASSES, WORDS (at most so many quarters of columns), TILE, TILES (of a block), VECTOR, LEAVES, SLOTS,
// COUNTED.
#define MISSING 255
#define FEW 16  // classes: their counts are made as vectors
#define PADDED ((CLASSES + 3) / 4 * 4)
#if COUNTED
#define SUM unsigned short
#define SUMS (CLASSES * TILE)  // of a tile
#define AT(pixel, class) ((class) * TILE + (pixel))
#else
#define SUM double
#define SUMS (TILE * PADDED)
#define AT(pixel, class) ((pixel) * PADDED + (class))
#endif

// Adds the answers of some trees to the sums of a tile.
__device__ void ask(const unsigned char* __restrict__ of_tile, const uint2* __restrict__ questions,
                    const int* __restrict__ first_question, const int* __restrict__ first_leaf,
                    const double* __restrict__ votes, int first_tree, int last_tree, unsigned char* places,
                    SUM* __restrict__ sum) {
    for (int tree = first_tree; tree < last_tree; ++tree) {
        const int last = first_question[tree + 1] - 1;
        for (int q = first_question[tree]; q <= last; ++q) {
            const uint2 question = questions[q];
            const unsigned char k = (unsigned char)(question.x & 255u);
            const unsigned char* rank = of_tile + (size_t)(question.x >> 8) * TILE;
            const unsigned char* left = places + (question.y & 511u) * VECTOR;
            const unsigned char* right = places + (question.y >> 10 & 511u) * VECTOR;
            const int left_step = (int)(question.y >> 9 & 1u) * VECTOR, right_step = (int)(question.y >> 19 & 1u) * VECTOR;
            unsigned char* answer = places + (question.y >> 20) * VECTOR;
            for (int start = 0; start < TILE; start += VECTOR, left += left_step, right += right_step)
                INDEPENDENT for (int i = 0; i < VECTOR; ++i) {  // the answer may take the place of one of the two
                    const unsigned char is_right = rank[start + i] > k ? 255 : 0;
                    answer[start + i] = (unsigned char)((right[i] & is_right) | (left[i] & ~is_right));
                }
        }
        const unsigned char* leaf = places + (questions[last].y >> 20) * VECTOR;
#if COUNTED && CLASSES <= FEW
        for (int c = 0; c < CLASSES; ++c)
            for (int i = 0; i < TILE; ++i) sum[AT(i, c)] += leaf[i] == c ? 1 : 0;
#elif COUNTED
        for (int i = 0; i < TILE; ++i) ++sum[AT(i, leaf[i])];
#else
        const double* of_tree = votes + (size_t)first_leaf[tree] * PADDED;
        for (int i = 0; i < TILE; ++i) {
            unsigned at = leaf[i] * PADDED;
            KEEP_SCALAR(at);  // so that the votes of one pixel become a vector, rather than those of several
            UNROLL for (int c = 0; c < PADDED; ++c) sum[i * PADDED + c] += of_tree[at + c];
        }
#endif
    }
}

// By how many votes the largest class of each pixel of a tile leads.
__device__ void leads(const SUM* __restrict__ sum, SUM* __restrict__ lead) {
    SUM second[TILE];
    for (int i = 0; i < TILE; ++i) lead[i] = second[i] = 0;
    for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < TILE; ++i) {
            const SUM n = sum[AT(i, c)], lower = n < lead[i] ? n : lead[i];
            second[i] = lower > second[i] ? lower : second[i];
            lead[i] = n > lead[i] ? n : lead[i];
        }
    for (int i = 0; i < TILE; ++i) lead[i] = (SUM)(lead[i] - second[i]);
}

extern "C" __global__ void forest_cpu(
    const unsigned char* __restrict__ ranks, const uint2* __restrict__ questions,
    const int* __restrict__ first_question, const int* __restrict__ first_leaf, const double* __restrict__ votes,
    float* __restrict__ probabilities, int n_words, int n_trees, int n_of_all, double most_to_come, long long n_pixels) {
    const int tile_bytes = 4 * n_words * TILE;
    const long long first = (long long)blockIdx.x * (TILES * TILE);
    const int n_here = (int)min((long long)TILES * TILE, n_pixels - first);
    const int n_tiles = (n_here + TILE - 1) / TILE;
    const unsigned char* of_block = ranks + (size_t)blockIdx.x * TILES * tile_bytes;
    __shared__ unsigned char places[LEAVES * VECTOR + SLOTS * TILE];
    __shared__ unsigned char is_missing[TILES * TILE];
    __shared__ SUM sums[TILES * SUMS];
    for (int leaf = 0; leaf < LEAVES; ++leaf)
        for (int i = 0; i < VECTOR; ++i) places[leaf * VECTOR + i] = (unsigned char)leaf;
    for (int tile = 0; tile < n_tiles; ++tile) {
        const unsigned char* of_tile = of_block + (size_t)tile * tile_bytes;
        unsigned char* missing = is_missing + tile * TILE;
        for (int i = 0; i < TILE; ++i) missing[i] = 0;
        for (int column = 0; column < 4 * n_words; ++column)
            for (int i = 0; i < TILE; ++i) missing[i] |= of_tile[column * TILE + i] == MISSING ? 1 : 0;
        SUM* sum = sums + tile * SUMS;
        for (int i = 0; i < SUMS; ++i) sum[i] = 0;
        ask(of_tile, questions, first_question, first_leaf, votes, 0, n_of_all, places, sum);
    }
    if (n_of_all < n_trees) {
        int open[TILES * TILE], n_open = 0;  // pixels
        for (int tile = 0; tile < n_tiles; ++tile) {
            SUM lead[TILE];
            leads(sums + tile * SUMS, lead);
            for (int i = 0; i < TILE; ++i) {
                open[n_open] = tile * TILE + i;
                n_open += !((double)lead[i] > most_to_come) && !is_missing[tile * TILE + i] ? 1 : 0;
            }
        }
        __shared__ unsigned char together[4 * WORDS * TILE];
        __shared__ SUM sum[SUMS];
        for (int start = 0; start < n_open; start += TILE) {
            int from[TILE];
            for (int i = 0; i < TILE; ++i) {  // the last tile is filled up with its last pixel
                const int p = open[min(start + i, n_open - 1)];
                from[i] = p / TILE * tile_bytes + p % TILE;
            }
            for (int column = 0; column < 4 * n_words; ++column)
                for (int i = 0; i < TILE; ++i) together[column * TILE + i] = of_block[from[i] + column * TILE];
            for (int i = 0; i < min(TILE, n_open - start); ++i)
                for (int c = 0; c < CLASSES; ++c)
                    sum[AT(i, c)] = sums[open[start + i] / TILE * SUMS + AT(open[start + i] % TILE, c)];
            for (int i = min(TILE, n_open - start); i < TILE; ++i)
                for (int c = 0; c < CLASSES; ++c) sum[AT(i, c)] = 0;
            ask(together, questions, first_question, first_leaf, votes, n_of_all, n_trees, places, sum);
            for (int i = 0; i < min(TILE, n_open - start); ++i)
                for (int c = 0; c < CLASSES; ++c)
                    sums[open[start + i] / TILE * SUMS + AT(open[start + i] % TILE, c)] = sum[AT(i, c)];
        }
    }
    for (int tile = 0; tile < n_tiles; ++tile) {
        const SUM* sum = sums + tile * SUMS;
        double total[TILE];
        for (int i = 0; i < TILE; ++i) total[i] = 0.0;
        for (int c = 0; c < CLASSES; ++c)
            for (int i = 0; i < TILE; ++i) total[i] += sum[AT(i, c)];
        for (int c = 0; c < CLASSES; ++c)
            for (int i = 0; i < min(TILE, n_here - tile * TILE); ++i)
                probabilities[c * n_pixels + first + tile * TILE + i] =
                    is_missing[tile * TILE + i] ? __int_as_float(0x7fc00000) : (float)(sum[AT(i, c)] / total[i]);
    }
}
