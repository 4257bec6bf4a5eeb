// What a forest sees of its pixels: for each value its rank among the thresholds.
//
// Python: gpu_tomoclass/forest/predict_on_device.py
//
//   rank[column, p] = number of the column's thresholds <= values[feature of column, p];   MISSING for NaN
//
// value >= threshold number k of the column exactly where rank > k, so that the walk down a tree compares bytes and
// never sees a value. A column is a feature with up to 254 of the forest's different thresholds, ascending; a feature
// with more has several columns. `thresholds` holds 1 << STEPS per column, filled up with NaN, which nothing is equal
// to or above.
//
// A launch takes some columns, `columns`, and the rows of `features` that they are of, `rows`: so ranks can be had family by
// family, and the features of one family make room for those of the next.
//
// Ranks are bytes [tile][column][pixel of the tile], as `forest.cu` reads them. Lanes have neighbouring pixels. A CPU
// does it with forest_ranks_cpu.cu.
//
// Per column and pixel: 4 bytes read, 1 written, STEPS halvings in a table of at most 1 KB in shared memory or L1.
//
// Compile-time: STEPS, WORDS (four columns each, of all ranks), TILE, THREADS, PASSES.
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif
#define MISSING 255

extern "C" __global__ void __launch_bounds__(THREADS)
forest_ranks(const float* __restrict__ features, const int* __restrict__ columns, const int* __restrict__ rows,
             const float* __restrict__ thresholds, unsigned char* __restrict__ ranks, int n_columns_in_all,
             long long n_pixels) {
    const int n_groups = (n_columns_in_all + 3) / 4, at = 4 * (int)(blockIdx.x % n_groups);
    const int n_columns = min(4, n_columns_in_all - at);
    const long long first = (long long)(blockIdx.x / n_groups) * (THREADS * PASSES);
    const long long n_written = (n_pixels + TILE - 1) / TILE * TILE;  // the last tile is filled up with the ranks of 0
    __shared__ float table[4 << STEPS];
    // Filled to its end: compilers read ahead of the loop over columns, also where there are fewer than four.
    for (int i = threadIdx.x; i < 4 << STEPS; i += THREADS) {
        const int j = i >> STEPS;
        table[i] = j < n_columns ? thresholds[((size_t)columns[at + j] << STEPS) + (i - (j << STEPS))] : 0.0f;
    }
    __syncthreads();
    for (int pass = 0; pass < PASSES; ++pass) {
        const long long p = first + (long long)pass * THREADS + threadIdx.x;
        if (p >= n_written) break;
        UNROLL for (int j = 0; j < 4; ++j) {
            if (j >= n_columns) break;
            const float* of_column = table + (j << STEPS);
            const float value = p < n_pixels ? features[rows[at + j] * n_pixels + p] : 0.0f;
            int rank = 0;
            for (int half = 1 << (STEPS - 1); half; half >>= 1)
                rank += of_column[rank + half - 1] <= value ? half : 0;
            rank = value != value ? MISSING : rank;
            ranks[(p / TILE * (4 * WORDS) + columns[at + j]) * TILE + p % TILE] = (unsigned char)rank;
        }
    }
}
