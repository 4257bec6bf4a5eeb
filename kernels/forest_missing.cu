// Pixels with missing values, which forest.cu and forest_values.cu leave as NaN.
//
// Python: gpu_tomoclass/accelerated/forest.py
//
// Where a value is missing the walk goes left with weight left_fraction and right with the rest: it takes the left
// child and notes the right one with its weight on a stack, one per thread. Few threads share the pixels, so that the
// stacks stay small for any depth. Per pixel: its probability is read; per leaf reached: a path of nodes.
//
// Compile-time: CLASSES, OFFSET_BITS, VALUE and NODE (unsigned and unsigned: ranks and nodes of forest.cu, with WORDS
// and TILE; float and uint2: values and nodes of forest_values.cu), BY_RANK.
#define OFFSET_MASK ((1u << OFFSET_BITS) - 1u)
#ifdef ONE_THREAD
#define WORD_OF(column, p) ((column) * (TILE / 4) + ((p) % TILE >> 2))  // as in forest.cu
#define SHIFT_OF(column, p) (8 * ((p) & 3))
#else
#define WORD_OF(column, p) (((column) >> 2) * TILE + (p) % TILE)
#define SHIFT_OF(column, p) (8 * ((column) & 3))
#endif

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
                const int offset = node >> 8 & OFFSET_MASK;
                const int column = node >> (OFFSET_BITS + 8);
                const unsigned word = values[p / TILE * (WORDS * TILE) + WORD_OF(column, p)];
                const unsigned rank = word >> SHIFT_OF(column, p) & 255u;
                const bool is_missing = rank == 255, is_right = rank > (node & 255u);
#else
                const int offset = node.y & OFFSET_MASK;
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
