// What a forest sees of its pixels, on a CPU: for each value its rank among the thresholds, as forest_ranks.cu says.
//
// Python: gpu_tomoclass/forest/walks.py, gpu_tomoclass/forest/cells.py
//
//   rank[column, p] = number of the column's thresholds <= values[feature of column, p];   MISSING for NaN
//
// A value's cell is a function of it that never falls: so all thresholds of lower cells, of which `below` knows how many,
// are below it, and it is compared with those of its own cell only, by a few halvings without a jump. Cells are found as
// vectors; the rest is done value by value, since gathers are slow on many processors.
//
// Values and thresholds are compared as whole numbers of the same order: the bits of a float, those of the magnitude
// turned over where it is negative. `keys` holds such numbers of the thresholds, n_keys per column, ascending, filled
// up with the largest int; `places` tells how a column's cells are found and the number of its halvings.
//
// A block has PIXELS * PASSES pixels of four columns. Per column and pixel: 4 bytes read, 1 written; the tables stay in the
// first two caches.
//
// A tile has n_words_of_tile words of four columns; n_words of them are filled.
//
// Forests differ in all that is told at run time, so that a new one needs no compiler.
//
// Compile-time: ONE_THREAD, CELLS, TILE, PIXELS (at a time), PASSES.
#define MISSING 255
#define LINEAR -1

// Of values in equal steps; NaN goes to the first cell.
__device__ __forceinline__ void linear_cells(const float* value, float first, float scale, int* cell) {
    for (int i = 0; i < PIXELS; ++i) {
        float step = (value[i] - first) * scale;
        step = step > 0.0f ? step : 0.0f;
        cell[i] = (int)(step < (float)(CELLS - 1) ? step : (float)(CELLS - 1));
    }
}

// Of keys in equal steps, which are nearly those of a logarithm.
__device__ __forceinline__ void key_cells(const int* key, int first, int shift, int* cell) {
    for (int i = 0; i < PIXELS; ++i) {
        const unsigned from_first = (unsigned)max(key[i], first) - (unsigned)first;
        cell[i] = (int)min(from_first >> shift, CELLS - 1u);
    }
}

// The rank of every value by so many halvings in its cell.
template <int HALVINGS>
__device__ __forceinline__ void ranks_in_cells(const unsigned char* __restrict__ below, const int* __restrict__ keys,
                                               const int* __restrict__ cell, const int* __restrict__ key,
                                               int* __restrict__ rank) {
    for (int i = 0; i < PIXELS; ++i) {
        size_t n = below[cell[i]];
        UNROLL for (int half = (1 << HALVINGS) / 2; half; half >>= 1) {
            size_t is_above = keys[n + half - 1] <= key[i];
            KEEP_SCALAR(is_above);  // so that it is a number and no jump, which would be foreseen for one value in two
            n += is_above * half;
        }
        rank[i] = (int)n;
    }
}

extern "C" __global__ void forest_ranks_cpu(
    const float* __restrict__ features, const int* __restrict__ feature_of_column, const int4* __restrict__ places,
    const unsigned char* __restrict__ below, const int* __restrict__ keys, unsigned char* __restrict__ ranks, int n_words,
    int n_words_of_tile, int n_keys, long long n_pixels) {
    const int word = (int)blockIdx.x % n_words;
    const long long first = (long long)((int)blockIdx.x / n_words) * (PIXELS * PASSES);
    const long long n_written = (n_pixels + TILE - 1) / TILE * TILE;  // the last tile is filled up with the ranks of 0
    for (long long start = first; start < min(first + PIXELS * PASSES, n_written); start += PIXELS)
        for (int column = 4 * word; column < 4 * word + 4; ++column) {
            const float* from = features + feature_of_column[column] * n_pixels + start;
            const int4 place = places[column];
            const unsigned char* below_cells = below + (size_t)column * CELLS;
            const int* of_column = keys + (size_t)column * n_keys;
            const int n_here = (int)min((long long)PIXELS, n_pixels - start);
            float value[PIXELS];
            int key[PIXELS], cell[PIXELS], rank[PIXELS];
            if (n_here == PIXELS)
                for (int i = 0; i < PIXELS; ++i) value[i] = from[i];
            else
                for (int i = 0; i < PIXELS; ++i) value[i] = i < n_here ? from[i] : 0.0f;
            for (int i = 0; i < PIXELS; ++i) {
                const int bits = __float_as_int(value[i] + 0.0f);  // -0 becomes 0
                key[i] = bits ^ (bits >> 31 & 0x7fffffff);
            }
            if (place.x == LINEAR) linear_cells(value, __int_as_float(place.y), __int_as_float(place.z), cell);
            else key_cells(key, place.y, place.x, cell);
            switch (place.w) {
                case 0: ranks_in_cells<0>(below_cells, of_column, cell, key, rank); break;
                case 1: ranks_in_cells<1>(below_cells, of_column, cell, key, rank); break;
                case 2: ranks_in_cells<2>(below_cells, of_column, cell, key, rank); break;
                case 3: ranks_in_cells<3>(below_cells, of_column, cell, key, rank); break;
                case 4: ranks_in_cells<4>(below_cells, of_column, cell, key, rank); break;
                case 5: ranks_in_cells<5>(below_cells, of_column, cell, key, rank); break;
                default: ranks_in_cells<8>(below_cells, of_column, cell, key, rank);
            }
            unsigned char* to = ranks + (start / TILE * (4ll * n_words_of_tile) + column) * TILE + start % TILE;
            for (int i = 0; i < PIXELS; ++i) to[i] = (unsigned char)(value[i] != value[i] ? MISSING : rank[i]);
        }
}
