// Class probabilities of pixels by a large random forest.
//
// Python: gpu_tomoclass/forest/predict_on_device.py
//
//   probability[c, p] = sum over trees of votes[leaf(tree, p), c] / the same summed over c
//
// For forests that do not fit the bytes of forest.cu. A node is 8 bytes: the threshold, and feature << OFFSET_BITS |
// offset, where the left child is `offset` nodes further on and the right child behind it. A pixel goes left where
// value < threshold, else right. A leaf has offset 0, feature 0 and a NaN for a threshold whose sign and lower 22 bits
// are its row of votes; as nothing is >= NaN, a walk that has reached a leaf stays there.
//
// Per pixel and tree: one node (8 bytes, from L2 or device memory) and one value per step, steps = depth. A block holds
// the features of LANES pixels in shared memory, read once (4 n_features bytes per pixel), where neighbouring lanes
// never share a bank; each of its ROWS of threads walks a run of trees, the sums of the rows are added in the end.
//
// A pixel with a missing value (NaN) gets NaN here; forest_missing.cu then sends it both ways, weighted by
// left_fraction.
//
// Compile-time: CLASSES, FEATURES (most that fit the tile; 0: no tile), OFFSET_BITS, LANES, ROWS.
#define QUIET_NAN __int_as_float(0x7fc00000)
#define OFFSET_MASK ((1u << OFFSET_BITS) - 1u)
#define SUMS (ROWS > 1 ? ROWS * CLASSES * LANES : 2)
#define MEMORY (SUMS > FEATURES * LANES / 2 ? SUMS : FEATURES * LANES / 2)

__device__ __forceinline__ unsigned votes_row(unsigned threshold_bits) {
    return (threshold_bits & 0x3fffffu) | (threshold_bits >> 31) << 22;
}

extern "C" __global__ void __launch_bounds__(LANES * ROWS)
forest_values(const float* __restrict__ features, const uint2* __restrict__ nodes, const int* __restrict__ roots,
              const double* __restrict__ votes, float* __restrict__ probabilities, int n_features, int n_trees,
              long long n_pixels) {
    __shared__ double memory[MEMORY];  // first the tile of features, then the sums of the rows
    __shared__ int is_missing[LANES];
    const int lane = threadIdx.x, row = threadIdx.y;
    const long long p = (long long)blockIdx.x * LANES + lane;
    const float* of_pixel = features + min(p, n_pixels - 1);
    if (row == 0) is_missing[lane] = 0;
    __syncthreads();
#if FEATURES
    float* tile = (float*)memory;
#endif
    float check = 0.0f;  // becomes NaN with the first NaN; infinite values take the slow way too, to the same result
    for (int f = row; f < n_features; f += ROWS) {
        const float value = of_pixel[f * n_pixels];
#if FEATURES
        tile[f * LANES + lane] = value;
#endif
        check += value * 0.0f;
    }
    if (check != check) atomicOr(&is_missing[lane], 1);
    __syncthreads();

    double sum[CLASSES];
    for (int c = 0; c < CLASSES; ++c) sum[c] = 0.0;
    const int per_row = (n_trees + ROWS - 1) / ROWS;
    const int last_tree = min(n_trees, (row + 1) * per_row);
    for (int tree = row * per_row; tree < last_tree; ++tree) {
        unsigned at = roots[tree], offset;
        do {
            const uint2 node = nodes[at];
            const unsigned f = node.y >> OFFSET_BITS;
            offset = node.y & OFFSET_MASK;
#if FEATURES
            const float value = tile[f * LANES + lane];
#else
            const float value = of_pixel[f * n_pixels];
#endif
            at += offset + (value >= __uint_as_float(node.x) ? 1u : 0u);
        } while (offset);
        const double* of_leaf = votes + (size_t)votes_row(nodes[at].x) * CLASSES;
        for (int c = 0; c < CLASSES; ++c) sum[c] += of_leaf[c];
    }
    __syncthreads();  // everybody has done with the tile
    if (row > 0)
        for (int c = 0; c < CLASSES; ++c) memory[(row * CLASSES + c) * LANES + lane] = sum[c];
    __syncthreads();
    if (row > 0 || p >= n_pixels) return;
    double total = 0.0;
    for (int c = 0; c < CLASSES; ++c) {
        for (int r = 1; r < ROWS; ++r) sum[c] += memory[(r * CLASSES + c) * LANES + lane];
        total += sum[c];
    }
    for (int c = 0; c < CLASSES; ++c)
        probabilities[c * n_pixels + p] = is_missing[lane] ? QUIET_NAN : (float)(sum[c] / total);
}
