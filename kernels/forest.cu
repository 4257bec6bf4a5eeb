// Class probabilities of pixels by a random forest.
//
// Python: gpu_tomoclass/forest/predict_on_device.py
//
//   probability[c, p] = sum over trees of votes[leaf(tree, p), c] / the same summed over c
//
// Pixels come as ranks, see forest_ranks.cu. A node is 4 bytes, from the top: the distance to its left child (behind
// which the right one lies), 255 - k, and the column that it asks about: right where rank > k. Then rank + (255 - k)
// carries into the distance, so that one addition makes the distance to the next node:
//
//   at += (node + (rank << COLUMN_BITS)) >> (COLUMN_BITS + 8)
//
// A leaf has distance 0 and k = 255, so that a walk that has reached it stays there and pixels can walk side by side
// without asking who has arrived; its column is the class that all of its votes are for, or CLASSES, then `rows` has
// its row of `votes`.
//
// Per pixel and tree: one node and one rank per step, steps = depth. A block has TILE pixels, their ranks as
// [column][pixel] bytes (read once). On a GPU these are in shared memory, where four neighbouring pixels share a bank:
// they belong to different warps, so that a lane's bank is its own whatever it asks for (with a TILE of 128). Each of
// the ROWS of threads has a tree at a time; these trees, one behind the other, come to shared memory too where they fit,
// else the first TOP places of each, where the nodes are that most pixels meet; the sums of the rows are added in the
// end. On a CPU (ONE_THREAD) a thread walks pixels of a tile side by side, tree
// after tree, so that tile and tree stay in the first-level cache: all of them as vectors of gathers (GATHERS), or a few
// one by one, so that the latency of one hides behind the others.
//
// A pixel with a missing value gets NaN here; forest_missing.cu then sends it both ways, weighted by left_fraction.
//
// Compile-time: CLASSES, COLUMN_BITS, WORDS (a quarter of the columns), TILE; on a GPU ROWS, QUADS (of nodes in shared
// memory: every ROWS trees begin at a multiple of 4 QUADS; 0: they are larger), then TOP (places of a tree in shared
// memory, a multiple of 4, as each tree's first place is); on a CPU ONE_THREAD, GATHERS.
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif
#define MISSING 255u
#define COLUMN_OF(node) ((int)((node) & ((1u << COLUMN_BITS) - 1u)))
#define STEP(node, rank) (((node) + ((rank) << COLUMN_BITS)) >> (COLUMN_BITS + 8))

#ifdef ONE_THREAD
#define PIXELS TILE  // of a thread
#define OF_BLOCK __shared__  // what is large
#define TOGETHER 8
#define BLOCKS 1
#define IN_REGISTERS 1
#define PER_CLASS
#else
#define PIXELS 1
#define OF_BLOCK
#define MISSING_OF(word) ((((word) & 0x7f7f7f7fu) + 0x01010101u) & (word) & 0x80808080u)  // of four bytes each
// Of a multiprocessor: a full one has 32 registers per thread, which hold the sums of four classes; half a one has 64.
#define BLOCKS ((CLASSES > 4 ? 1024 : 2048) / (TILE * ROWS))
#define IN_REGISTERS (CLASSES <= 12)  // the sums; else in local memory, where a leaf finds its class by number
#if IN_REGISTERS
#define PER_CLASS UNROLL
#else
#define PER_CLASS _Pragma("unroll 1")
#endif
#define TILE_WORDS (WORDS * TILE)
#define SUM_WORDS (ROWS > 1 ? 2 * ROWS * CLASSES * TILE : 0)
#define BETWEEN_TESTS 2  // steps; a walk may stay at its leaf for some
#endif

extern "C" __global__ void __launch_bounds__(TILE / PIXELS * ROWS, BLOCKS)
forest(const unsigned char* __restrict__ ranks, const unsigned* __restrict__ nodes, const int* __restrict__ roots,
       const int* __restrict__ rows, const double* __restrict__ votes, float* __restrict__ probabilities, int n_trees,
       long long n_pixels) {
    const long long first = (long long)blockIdx.x * TILE;
    const unsigned* of_block = (const unsigned*)ranks + (size_t)blockIdx.x * (WORDS * TILE);
    OF_BLOCK double sum[CLASSES][PIXELS];
    PER_CLASS for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < PIXELS; ++i) sum[c][i] = 0.0;
#if IN_REGISTERS
    OF_BLOCK int count[CLASSES][PIXELS];
    PER_CLASS for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < PIXELS; ++i) count[c][i] = 0;
#endif
#ifdef ONE_THREAD
    unsigned is_missing[PIXELS];
    for (int i = 0; i < PIXELS; ++i) is_missing[i] = 0;
    for (int column = 0; column < 4 * WORDS; ++column)
        for (int i = 0; i < PIXELS; ++i)
            is_missing[i] |= ((const unsigned char*)of_block)[column * TILE + i] == MISSING;
    for (int tree = 0; tree < n_trees; ++tree) {
        const unsigned* of_tree = nodes + roots[tree];
        int at[PIXELS], leaf[PIXELS], is_mixed = 0;
        for (int i = 0; i < PIXELS; ++i) at[i] = 0;
        unsigned moving;
#if GATHERS
        do {
            moving = 0;
            for (int i = 0; i < PIXELS; ++i) {
                const unsigned node = of_tree[at[i]];
                const unsigned word = of_block[COLUMN_OF(node) * (TILE / 4) + (i >> 2)];
                const unsigned step = STEP(node, word >> (8 * (i & 3)) & 255u);
                at[i] += (int)step;
                moving |= step;
            }
        } while (moving);
#else
        for (int i = 0; i < PIXELS; i += TOGETHER) {
            const unsigned char* of_pixels = (const unsigned char*)of_block + i;
            unsigned to[TOGETHER];
            UNROLL for (int j = 0; j < TOGETHER; ++j) to[j] = 0;
            do {
                moving = 0;
                UNROLL for (int j = 0; j < TOGETHER; ++j) {
                    const unsigned node = of_tree[to[j]];
                    unsigned step = STEP(node, (unsigned)of_pixels[COLUMN_OF(node) * TILE + j]);
                    KEEP_SCALAR(step);
                    to[j] += step;
                    moving |= step;
                }
            } while (moving);
            UNROLL for (int j = 0; j < TOGETHER; ++j) at[i + j] = (int)to[j];
        }
#endif
        for (int i = 0; i < PIXELS; ++i) {
            leaf[i] = COLUMN_OF(of_tree[at[i]]);
            is_mixed |= leaf[i] == CLASSES ? 1 : 0;
        }
        if (is_mixed) {
            for (int i = 0; i < PIXELS; ++i) leaf[i] = rows[roots[tree] + at[i]] * CLASSES;
            PER_CLASS for (int c = 0; c < CLASSES; ++c)
                for (int i = 0; i < PIXELS; ++i) sum[c][i] += votes[leaf[i] + c];
        } else {
            PER_CLASS for (int c = 0; c < CLASSES; ++c)
                for (int i = 0; i < PIXELS; ++i) count[c][i] += leaf[i] == c ? 1 : 0;
        }
    }
    PER_CLASS for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < PIXELS; ++i) sum[c][i] += count[c][i];
    const int pixel = 0;
#else
    __shared__ uint4 memory[(TILE_WORDS > SUM_WORDS ? TILE_WORDS : SUM_WORDS) / 4];
    __shared__ unsigned missing_of_word[TILE / 4];
#if QUADS
    __shared__ uint4 quads[QUADS];
#elif TOP
    __shared__ uint4 quads[ROWS * TOP / 4];
#endif
    const int lane = threadIdx.x, row = threadIdx.y, me = row * TILE + lane;
    uint4* tile = memory;
    if (me < TILE / 4) missing_of_word[me] = 0;
    uint4 missing = make_uint4(0, 0, 0, 0);
    for (int i = me; i < TILE_WORDS / 4; i += TILE * ROWS) {  // the same 16 pixels every time
        const uint4 word = ((const uint4*)of_block)[i];
        tile[i] = word;
        missing.x |= MISSING_OF(word.x);
        missing.y |= MISSING_OF(word.y);
        missing.z |= MISSING_OF(word.z);
        missing.w |= MISSING_OF(word.w);
    }
    __syncthreads();
    if (missing.x | missing.y | missing.z | missing.w) {
        unsigned* to = missing_of_word + 4 * (me % (TILE / 16));
        atomicOr(to, missing.x);
        atomicOr(to + 1, missing.y);
        atomicOr(to + 2, missing.z);
        atomicOr(to + 3, missing.w);
    }

    const unsigned char* of_pixel = (const unsigned char*)tile + 4 * (lane % (TILE / 4)) + lane / (TILE / 4);
#if QUADS
    const uint4* from = (const uint4*)nodes;
#endif
    for (int first_tree = 0; first_tree < n_trees; first_tree += ROWS) {
        const int tree = first_tree + row;
#if QUADS
        if (first_tree > 0) __syncthreads();  // everybody has done with the trees before
        UNROLL for (int i = 0; i < QUADS; i += TILE * ROWS)
            if (i + me < QUADS) quads[i + me] = from[i + me];
        from += QUADS;
        __syncthreads();
        const unsigned* of_trees = (const unsigned*)quads;
        const int origin = first_tree / ROWS * (4 * QUADS);
        if (tree >= n_trees) continue;
        unsigned at = (unsigned)(roots[tree] - origin), step, node;
#else
        const int origin = tree < n_trees ? roots[tree] - 1 : 0;  // a tree has a free place before its root
        const unsigned* of_trees = nodes + origin;
#if TOP
        if (first_tree > 0) __syncthreads();
        if (tree < n_trees)
            for (int i = lane; i < TOP / 4; i += TILE) quads[row * (TOP / 4) + i] = ((const uint4*)of_trees)[i];
        __syncthreads();
#endif
        if (tree >= n_trees) continue;
        unsigned at = 1, step = 1, node = 0;
#if TOP
        const unsigned* of_top = (const unsigned*)(quads + row * (TOP / 4));
        while (step && at < TOP) {
            node = of_top[at];
            step = STEP(node, (unsigned)of_pixel[COLUMN_OF(node) * TILE]);
            at += step;
        }
        if (step)
#endif
#endif
        do {
            UNROLL for (int i = 0; i < BETWEEN_TESTS; ++i) {
                node = of_trees[at];
                step = STEP(node, (unsigned)of_pixel[COLUMN_OF(node) * TILE]);
                at += step;
            }
        } while (step);
        const int leaf = COLUMN_OF(node);
        if (leaf == CLASSES) {
            const double* of_leaf = votes + (size_t)rows[origin + (int)at] * CLASSES;
            PER_CLASS for (int c = 0; c < CLASSES; ++c) sum[c][0] += of_leaf[c];
        }
#if IN_REGISTERS
        UNROLL for (int c = 0; c < CLASSES; ++c) count[c][0] += leaf == c ? 1 : 0;
#else
        else sum[leaf][0] += 1.0;
#endif
    }

    __syncthreads();  // everybody has done with the tile
    const int own = 4 * (lane % (TILE / 4)) + lane / (TILE / 4);
#if IN_REGISTERS
    PER_CLASS for (int c = 0; c < CLASSES; ++c) sum[c][0] += count[c][0];
#endif
#if ROWS > 1
    double* sums = (double*)memory;  // of the rows
    PER_CLASS for (int c = 0; c < CLASSES; ++c) sums[(row * CLASSES + c) * TILE + own] = sum[c][0];
    __syncthreads();
    if (row > 0) return;
    const int pixel = lane;
    PER_CLASS for (int c = 0; c < CLASSES; ++c) sum[c][0] = 0.0;
    for (int r = 0; r < ROWS; ++r)
        PER_CLASS for (int c = 0; c < CLASSES; ++c) sum[c][0] += sums[(r * CLASSES + c) * TILE + lane];
#else
    const int pixel = own;
#endif
    const unsigned is_missing[1] = {missing_of_word[pixel / 4] >> (8 * (pixel % 4)) & 128u};
#endif
    double total[PIXELS];
    for (int i = 0; i < PIXELS; ++i) total[i] = 0.0;
    PER_CLASS for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < PIXELS; ++i) total[i] += sum[c][i];
    const int n_here = (int)min((long long)TILE, n_pixels - first);
    PER_CLASS for (int c = 0; c < CLASSES; ++c)
        for (int i = 0; i < PIXELS; ++i)
            if (pixel + i < n_here)
                probabilities[c * n_pixels + first + pixel + i] =
                    is_missing[i] ? __int_as_float(0x7fc00000) : (float)(sum[c][i] / total[i]);
}
