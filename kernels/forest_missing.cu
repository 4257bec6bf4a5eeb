// Pixels with missing values, which forest.cu and forest_values.cu leave as NaN.
//
// Python: gpu_tomoclass/forest/predict_on_device.py
//
// Where a value is missing the walk goes left with weight left_fraction and right with the rest: it takes the left
// child and notes the right one with its weight on a stack, one per thread. Few threads share the pixels, so that the
// stacks stay small for any depth. Per pixel: its probability is read; per leaf reached: a path of nodes.
//
// Compile-time: CLASSES, BY_RANK, VALUE and NODE (1, unsigned char and unsigned: ranks and nodes of forest.cu, with
// COLUMN_BITS, WORDS and TILE; 0, float and uint2: values and nodes of forest_values.cu, with OFFSET_BITS).

extern "C" __global__ void forest_missing(
    const VALUE* __restrict__ values, const NODE* __restrict__ nodes, const float* __restrict__ left_fraction,
    const int* __restrict__ roots, const int* __restrict__ rows, const double* __restrict__ votes,
    float* __restrict__ probabilities, int* __restrict__ stack_nodes, double* __restrict__ stack_weights, int n_trees,
    long long n_pixels) {
    const long long n_threads = (long long)gridDim.x * blockDim.x;
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (long long p = me; p < n_pixels; p += n_threads) {
        if (probabilities[p] == probabilities[p]) continue;
        double sum[CLASSES], total = 0.0;
        for (int c = 0; c < CLASSES; ++c) sum[c] = 0.0;
        for (int tree = 0; tree < n_trees; ++tree) {
            int at = roots[tree];
            double weight = 1.0;
            int waiting = 0;
            for (;;) {
                const NODE node = nodes[at];
#if BY_RANK
                const int offset = node >> (COLUMN_BITS + 8);
                const int column = node & ((1u << COLUMN_BITS) - 1u);
                const unsigned rank = values[(p / TILE * (4 * WORDS) + column) * TILE + p % TILE];
                const bool is_missing = rank == 255, is_right = rank + (node >> COLUMN_BITS & 255u) > 255u;
#else
                const int offset = node.y & ((1u << OFFSET_BITS) - 1u);
                const float value = values[(long long)(node.y >> OFFSET_BITS) * n_pixels + p];
                const bool is_missing = value != value, is_right = value >= __uint_as_float(node.x);
#endif
                if (offset) {
                    const double left = left_fraction[at];
                    at += offset + (!is_missing && is_right ? 1 : 0);
                    if (is_missing && left <= 0.0) ++at;
                    if (is_missing && left > 0.0 && left < 1.0) {
                        stack_nodes[waiting * n_threads + me] = at + 1;
                        stack_weights[waiting * n_threads + me] = weight * (1.0 - left);
                        ++waiting;
                        weight *= left;
                    }
                    continue;
                }
#if BY_RANK
                const double* of_leaf = votes + (size_t)rows[at] * CLASSES;
#else
                const double* of_leaf = votes + (size_t)((node.x & 0x3fffffu) | node.x >> 31 << 22) * CLASSES;
#endif
                for (int c = 0; c < CLASSES; ++c) sum[c] += weight * of_leaf[c];
                if (waiting == 0) break;
                --waiting;
                at = stack_nodes[waiting * n_threads + me];
                weight = stack_weights[waiting * n_threads + me];
            }
        }
        for (int c = 0; c < CLASSES; ++c) total += sum[c];
        for (int c = 0; c < CLASSES; ++c) probabilities[c * n_pixels + p] = (float)(sum[c] / total);
    }
}
