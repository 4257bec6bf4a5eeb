// Class probabilities of pixels by a large random forest, on a CPU.
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
// A block has PIXELS pixels, laid out in `tiles` as LANES pixels of each feature, and takes them down one tree after
// the other: a tree comes from main memory once per block. TOGETHER pixels walk side by side, one by one, so that
// the latency of one node hides behind the others; gathers are slower on many processors. Per pixel and tree: one node
// (8 bytes) and one value per step, steps = depth.
//
// A pixel with a missing value (NaN) gets NaN here; forest_missing.cu then sends it both ways, weighted by
// left_fraction.
//
// Compile-time: ONE_THREAD, CLASSES, OFFSET_BITS, LANES, PIXELS.
#define QUIET_NAN __int_as_float(0x7fc00000)
#define TOGETHER 8
#define OFFSET_MASK ((1u << OFFSET_BITS) - 1u)

__device__ __forceinline__ unsigned votes_row(unsigned threshold_bits) {
    return (threshold_bits & 0x3fffffu) | (threshold_bits >> 31) << 22;
}

extern "C" __global__ void forest_values_cpu(
    const float* __restrict__ features, const unsigned* __restrict__ nodes, const int* __restrict__ roots,
    const double* __restrict__ votes, float* __restrict__ probabilities, float* __restrict__ tiles, int n_features,
    int n_trees, long long first_pixel, long long n_pixels) {
    const long long first = first_pixel + (long long)blockIdx.x * PIXELS;
    const int n_here = (int)min((long long)PIXELS, n_pixels - first);
    float* of_block = tiles + (size_t)blockIdx.x * n_features * PIXELS;
    __shared__ float check[PIXELS];  // becomes NaN with the first NaN; infinite values take the slow way too, to the same result
    __shared__ double sum[CLASSES * PIXELS];
    for (int p = 0; p < PIXELS; ++p) check[p] = 0.0f;
    for (int i = 0; i < CLASSES * PIXELS; ++i) sum[i] = 0.0;
    for (int f = 0; f < n_features; ++f)
        for (int p0 = 0; p0 < n_here; p0 += LANES) {
            const float* from = features + f * n_pixels + first + p0;
            float* to = of_block + (p0 / LANES * n_features + f) * LANES;
            const int n = min(LANES, n_here - p0);
            for (int k = 0; k < n; ++k) {
                to[k] = from[k];
                check[p0 + k] += from[k] * 0.0f;
            }
            for (int k = n; k < LANES; ++k) to[k] = 0.0f;
        }
    for (int tree = 0; tree < n_trees; ++tree)
        for (int p0 = 0; p0 < n_here; p0 += LANES) {
            const float* tile = of_block + (size_t)p0 * n_features;
            unsigned at[LANES];
            for (int k = 0; k < LANES; k += TOGETHER) {
                unsigned to[TOGETHER], moving;
                UNROLL for (int j = 0; j < TOGETHER; ++j) to[j] = (unsigned)roots[tree];
                do {
                    moving = 0;
                    UNROLL for (int j = 0; j < TOGETHER; ++j) {
                        const unsigned link = nodes[2 * (size_t)to[j] + 1], offset = link & OFFSET_MASK;
                        const float threshold = __uint_as_float(nodes[2 * (size_t)to[j]]);
                        unsigned is_right = tile[(link >> OFFSET_BITS) * LANES + k + j] >= threshold ? 1 : 0;
                        KEEP_SCALAR(is_right);
                        to[j] += offset + is_right;
                        moving |= offset;
                    }
                } while (moving);
                UNROLL for (int j = 0; j < TOGETHER; ++j) at[k + j] = to[j];
            }
            int row[LANES];
            for (int k = 0; k < LANES; ++k) row[k] = (int)votes_row(nodes[2 * (size_t)at[k]]) * CLASSES;
            for (int c = 0; c < CLASSES; ++c)
                for (int k = 0; k < LANES; ++k) sum[c * PIXELS + p0 + k] += votes[row[k] + c];
        }
    for (int p = 0; p < n_here; ++p) {
        double total = 0.0;
        for (int c = 0; c < CLASSES; ++c) total += sum[c * PIXELS + p];
        for (int c = 0; c < CLASSES; ++c)
            probabilities[c * n_pixels + first + p] =
                check[p] != check[p] ? QUIET_NAN : (float)(sum[c * PIXELS + p] / total);
    }
}
