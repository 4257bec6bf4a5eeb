// Class probabilities of pixels by a random forest.   Python: gpu_tomoclass/accelerated/forest.py
//
//   probability[c, p] = sum over trees of votes[leaf(tree, p), c] / the same summed over c
//
// At a node a pixel goes left where value < threshold, else right. A node is 8 bytes: the threshold, and
// feature << OFFSET_BITS | offset, where the left child is `offset` nodes further on and the right child behind it.
// A leaf has offset 0, feature 0 and a NaN for a threshold whose sign and lower 22 bits are its row of votes; as nothing
// is >= NaN, a walk that has reached a leaf stays there, so pixels can walk side by side without asking who has arrived.
//
// A block holds the features of TILE = LANES * PIXELS pixels in shared memory, read once: 4 n_features bytes per pixel.
// Each of its ROWS of threads walks a run of trees; the sums of the rows are added in the order of the trees. Per pixel
// and tree: one node (8 bytes, L1 or L2) and one shared value per step, steps = depth. On a GPU neighbouring lanes hold
// neighbouring pixels: loads of features are whole lines, shared reads have no bank conflicts whatever the features are.
// On a CPU (ONE_THREAD) a block's only thread has all its PIXELS and walks FLIGHT of them at a time, tree after tree, so
// that a tree stays in cache and the latency of one walk hides behind the others.
//
// A pixel with a missing value (NaN) gets NaN here; `forest_missing` then sends it both ways, weighted by left_fraction.
//
// Compile-time: CLASSES, FEATURES (most features that fit the tile; 0: no tile), OFFSET_BITS, LANES, ROWS, PIXELS, FLIGHT.
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif
#define TILE (LANES * PIXELS)
#define OFFSET_MASK ((1u << OFFSET_BITS) - 1u)
#define SUMS (ROWS * CLASSES * TILE)
#define MEMORY (SUMS > FEATURES * TILE / 2 ? SUMS : FEATURES * TILE / 2)  // TILE is even, or one with FEATURES even

__device__ __forceinline__ unsigned votes_row(unsigned threshold_bits) {
    return (threshold_bits & 0x3fffffu) | (threshold_bits >> 31) << 22;
}

extern "C" __global__ void __launch_bounds__(LANES * ROWS)
forest(const float* __restrict__ features, const uint2* __restrict__ nodes, const int* __restrict__ roots,
       const double* __restrict__ votes, float* __restrict__ probabilities, int n_features, int n_trees,
       long long n_pixels) {
    __shared__ double memory[MEMORY];  // first the tile of features, then the sums of the rows
    __shared__ int is_missing[TILE];
    const int lane = threadIdx.x, row = threadIdx.y;
    const long long first = (long long)blockIdx.x * TILE;
    const int n_here = (int)min((long long)TILE, n_pixels - first);

    if (row == 0)
        for (int i = 0; i < PIXELS; ++i) is_missing[lane + i * LANES] = 0;
    __syncthreads();
#if FEATURES
    float* tile = (float*)memory;
#endif
    float check[PIXELS];  // becomes NaN with the first NaN; infinite values take the slow way too, to the same result
    for (int i = 0; i < PIXELS; ++i) check[i] = 0.0f;
    for (int f = row; f < n_features; f += ROWS) {
        const float* from = features + f * n_pixels + first;
        for (int i = 0; i < PIXELS; ++i) {
            const int p = lane + i * LANES;
            const float value = p < n_here ? from[p] : 0.0f;
#if FEATURES
            tile[f * TILE + p] = value;
#endif
            check[i] += value * 0.0f;
        }
    }
    for (int i = 0; i < PIXELS; ++i)
        if (check[i] != check[i]) atomicOr(&is_missing[lane + i * LANES], 1);
    __syncthreads();

    double sum[PIXELS][CLASSES];
    for (int i = 0; i < PIXELS; ++i)
        for (int c = 0; c < CLASSES; ++c) sum[i][c] = 0.0;
    const int per_row = (n_trees + ROWS - 1) / ROWS;
    const int last_tree = min(n_trees, (row + 1) * per_row);
    for (int tree = row * per_row; tree < last_tree; ++tree) {
        const unsigned root = roots[tree];
        for (int i0 = 0; i0 < PIXELS; i0 += FLIGHT) {
            unsigned at[FLIGHT];
            UNROLL for (int k = 0; k < FLIGHT; ++k) at[k] = root;
            unsigned moving;
            do {
                moving = 0;
                UNROLL for (int k = 0; k < FLIGHT; ++k) {
                    const uint2 node = nodes[at[k]];
                    const unsigned f = node.y >> OFFSET_BITS, offset = node.y & OFFSET_MASK;
#if FEATURES
                    const float value = (tile + lane + (i0 + k) * LANES)[f * TILE];
#else
                    const int p = min(lane + (i0 + k) * LANES, n_here - 1);
                    const float value = (features + first + p)[f * n_pixels];
#endif
                    at[k] += offset + (value >= __uint_as_float(node.x) ? 1u : 0u);
                    moving |= offset;
                }
            } while (moving);
            UNROLL for (int k = 0; k < FLIGHT; ++k) {
                const double* of_leaf = votes + (size_t)votes_row(nodes[at[k]].x) * CLASSES;
                for (int c = 0; c < CLASSES; ++c) sum[i0 + k][c] += of_leaf[c];
            }
        }
    }
    __syncthreads();  // everybody has done with the tile
    for (int i = 0; i < PIXELS; ++i)
        for (int c = 0; c < CLASSES; ++c) memory[(row * CLASSES + c) * TILE + lane + i * LANES] = sum[i][c];
    __syncthreads();
    if (row != 0) return;
    for (int p = lane; p < n_here; p += LANES) {
        double of_class[CLASSES], total = 0.0;
        for (int c = 0; c < CLASSES; ++c) {
            of_class[c] = memory[c * TILE + p];
            for (int r = 1; r < ROWS; ++r) of_class[c] += memory[(r * CLASSES + c) * TILE + p];
            total += of_class[c];
        }
        for (int c = 0; c < CLASSES; ++c)
            probabilities[c * n_pixels + first + p] =
                is_missing[p] ? __int_as_float(0x7fc00000) : (float)(of_class[c] / total);
    }
}

// Pixels that `forest` left as NaN. Where a value is missing the walk goes left and notes the right child with its
// weight on a stack, one per thread; few threads share the pixels, so the stacks stay small for any depth.
extern "C" __global__ void forest_missing(
    const float* __restrict__ features, const uint2* __restrict__ nodes, const float* __restrict__ left_fraction,
    const int* __restrict__ roots, const double* __restrict__ votes, float* __restrict__ probabilities,
    unsigned* __restrict__ stack_nodes, double* __restrict__ stack_weights, int n_trees, long long n_pixels) {
    const long long n_threads = (long long)gridDim.x * blockDim.x;
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (long long p = me; p < n_pixels; p += n_threads) {
        if (probabilities[p] == probabilities[p]) continue;
        double sum[CLASSES], total = 0.0;
        for (int c = 0; c < CLASSES; ++c) sum[c] = 0.0;
        for (int tree = 0; tree < n_trees; ++tree) {
            unsigned at = roots[tree];
            double weight = 1.0;
            int waiting = 0;
            for (;;) {
                const uint2 node = nodes[at];
                const unsigned offset = node.y & OFFSET_MASK;
                if (offset) {
                    const float value = features[(long long)(node.y >> OFFSET_BITS) * n_pixels + p];
                    if (value == value) {
                        at += offset + (value >= __uint_as_float(node.x) ? 1u : 0u);
                        continue;
                    }
                    const double left = left_fraction[at];
                    at += offset;
                    if (left > 0.0 && left < 1.0) {
                        stack_nodes[waiting * n_threads + me] = at + 1;
                        stack_weights[waiting * n_threads + me] = weight * (1.0 - left);
                        ++waiting;
                        weight *= left;
                    } else if (left <= 0.0) {
                        ++at;
                    }
                    continue;
                }
                const double* row = votes + (size_t)votes_row(node.x) * CLASSES;
                for (int c = 0; c < CLASSES; ++c) sum[c] += weight * row[c];
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
