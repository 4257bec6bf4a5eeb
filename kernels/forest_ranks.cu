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
// Ranks are bytes [tile][column][pixel of the tile], as `forest.cu` reads them. Lanes have neighbouring pixels; a CPU
// (ONE_THREAD) writes the bytes of PIXELS pixels as vectors.
//
// Per column and pixel: 4 bytes read, 1 written, STEPS halvings in a table of at most 1 KB in shared memory or L1.
//
// Compile-time: STEPS, WORDS (of four columns), TILE, THREADS, PIXELS (a thread's at a time), PASSES.
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif
#define MISSING 255

extern "C" __global__ void __launch_bounds__(THREADS)
forest_ranks(const float* __restrict__ features, const int* __restrict__ feature_of_column,
             const float* __restrict__ thresholds, unsigned char* __restrict__ ranks, long long n_pixels) {
    const int word = blockIdx.x % WORDS;
    const long long first = (long long)(blockIdx.x / WORDS) * (THREADS * PIXELS * PASSES);
    const long long n_written = (n_pixels + TILE - 1) / TILE * TILE;  // the last tile is filled up with zeros
#ifdef ONE_THREAD
    const float* table = thresholds + ((size_t)word * 4 << STEPS);
#else
    __shared__ float table[4 << STEPS];
    for (int i = threadIdx.x; i < 4 << STEPS; i += THREADS) table[i] = thresholds[((size_t)word * 4 << STEPS) + i];
    __syncthreads();
#endif
    for (int pass = 0; pass < PASSES; ++pass) {
        const long long start = first + (long long)pass * (THREADS * PIXELS) + threadIdx.x * PIXELS;
        if (start >= n_written) break;
        UNROLL for (int j = 0; j < 4; ++j) {
            const float* from = features + feature_of_column[4 * word + j] * n_pixels + start;
            const float* of_column = table + (j << STEPS);
            const int n_here = (int)min((long long)PIXELS, n_pixels - start);
            float value[PIXELS];
            int rank[PIXELS];
            if (n_here == PIXELS)
                for (int i = 0; i < PIXELS; ++i) value[i] = from[i];
            else
                for (int i = 0; i < PIXELS; ++i) value[i] = i < n_here ? from[i] : 0.0f;
            for (int i = 0; i < PIXELS; ++i) rank[i] = 0;
            for (int half = 1 << (STEPS - 1); half; half >>= 1)
                for (int i = 0; i < PIXELS; ++i) rank[i] += of_column[rank[i] + half - 1] <= value[i] ? half : 0;
            for (int i = 0; i < PIXELS; ++i) rank[i] = value[i] != value[i] ? MISSING : rank[i];
            unsigned char* to = ranks + (start / TILE * (4 * WORDS) + 4 * word + j) * TILE + start % TILE;
            for (int i = 0; i < PIXELS; ++i) to[i] = (unsigned char)rank[i];
        }
    }
}
