// What a forest sees of its pixels, on a CPU: for each value its rank among the thresholds, as forest_ranks.cu says.
//
// Python: gpu_tomoclass/forest/walks.py
//
//   rank[column, p] = number of the column's thresholds <= values[feature of column, p];   MISSING for NaN
//
// Values and thresholds are compared as whole numbers of the same order: the bits of a float, those of the magnitude
// turned over where it is negative. `keys` holds such numbers of the thresholds, 1 << (COARSE + n_fine) per column,
// ascending, filled up with the largest int. The first COARSE halvings are comparisons with all thresholds between their parts, as
// vectors; the others are done value by value without a jump, since gathers are slow on many processors.
//
// A block has PIXELS * PASSES pixels of four columns. Per column and pixel: 4 bytes read, 1 written.
//
// A tile has n_words_of_tile words of four columns; n_words of them are filled.
//
// Forests differ in all that is told at run time, so that a new one needs no compiler.
//
// Compile-time: ONE_THREAD, COARSE, TILE, PIXELS (at a time), PASSES.
#define MISSING 255

extern "C" __global__ void forest_ranks_cpu(
    const float* __restrict__ features, const int* __restrict__ feature_of_column, const int* __restrict__ keys,
    unsigned char* __restrict__ ranks, int n_words, int n_words_of_tile, int n_fine,
    long long n_pixels) {
    const int word = (int)blockIdx.x % n_words;
    const long long first = (long long)((int)blockIdx.x / n_words) * (PIXELS * PASSES);
    const long long n_written = (n_pixels + TILE - 1) / TILE * TILE;  // the last tile is filled up with the ranks of 0
    for (long long start = first; start < min(first + PIXELS * PASSES, n_written); start += PIXELS)
        for (int column = 4 * word; column < 4 * word + 4; ++column) {
            const float* from = features + feature_of_column[column] * n_pixels + start;
            const int* of_column = keys + ((size_t)column << (COARSE + n_fine));
            const int n_here = (int)min((long long)PIXELS, n_pixels - start);
            float value[PIXELS];
            int key[PIXELS], rank[PIXELS];
            if (n_here == PIXELS)
                for (int i = 0; i < PIXELS; ++i) value[i] = from[i];
            else
                for (int i = 0; i < PIXELS; ++i) value[i] = i < n_here ? from[i] : 0.0f;
            for (int i = 0; i < PIXELS; ++i) {
                const int bits = __float_as_int(value[i] + 0.0f);  // -0 becomes 0
                key[i] = bits ^ (bits >> 31 & 0x7fffffff);
            }
            for (int i = 0; i < PIXELS; ++i) {
                int n = 0;
                UNROLL for (int part = 1; part < 1 << COARSE; ++part)
                    n += of_column[(part << n_fine) - 1] <= key[i] ? 1 << n_fine : 0;
                rank[i] = n;
            }
            unsigned char* to = ranks + (start / TILE * (4ll * n_words_of_tile) + column) * TILE + start % TILE;
            for (int half = (1 << n_fine) / 2; half; half >>= 1)
                for (int i = 0; i < PIXELS; ++i) rank[i] += of_column[rank[i] + half - 1] <= key[i] ? half : 0;
            for (int i = 0; i < PIXELS; ++i) to[i] = (unsigned char)(value[i] != value[i] ? MISSING : rank[i]);
        }
}
