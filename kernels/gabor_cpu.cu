// Responses of Gabor kernels of 10 angles, for a CPU.   Python: gpu_tomoclass/features/accelerated/gabor.py
//
// As kernels/gabor.cu, but what the kernels of one size and phase share is formed once for all their banks: for TILE
// pixels a table of sums and differences over (+-dx, +-dy), of which the responses are products with taps, [TILE x
// offsets] x [offsets x 10], in registers. In phase 0 the transposed kernel, of 90 degrees - angle, shares too: with
// offsets (dx, dy) and (dy, dx) joined, `same` = sum, `other` = difference of their terms,
//   P at an angle of 0, 18, 36 degrees = S + D, at 90 - angle = S - D, S from the even `same`, D from the even `other`,
//   Q at an angle of 18, 36 degrees    = S + D, at 90 - angle = S - D, S from the odd `same`, D from the odd `other`,
// and the response is P + Q at an angle, P - Q at its mirror image: half as many products. Per pixel and bank 5 (phase
// 0) or 10 (phase 2) times (REACH + 1)^2 fmaf.
//
// A block has BAND rows of a plane. Sums of responses and of their squares are float32 over a column of the band,
// double beyond it.
//
// Compile-time: ONE_THREAD, REACH, PHASE, MARGIN, BANKS, BAND.
#define N_ANGLES 10
#define TILE 32
#define WIDE (TILE + 2 * REACH)
// Vectors of the width that this CPU has, in the notation of GCC and Clang: GCC leaves sums in arrays in memory.
#define LANES ((int)(__BIGGEST_ALIGNMENT__ / sizeof(float)))
#define VECTORS (TILE / LANES)
typedef float Wide __attribute__((vector_size(LANES * sizeof(float))));
#if PHASE == 0
#define N_OFFSETS ((REACH + 1) * (REACH + 2) / 2)
#define N_TERMS 4  // even same, even other, odd same, odd other
#define TERM(k) (k < 3 ? 0 : k < 6 ? 1 : k < 8 ? 2 : 3)
#define SPLIT 6  // the first sum of the second half's terms
#else
#define N_OFFSETS ((REACH + 1) * (REACH + 1))
#define N_TERMS 2  // even, odd
#define TERM(k) (k < 5 ? 0 : 1)
#define SPLIT 5
#endif
typedef float Terms[N_OFFSETS][TILE];

// Sums and differences of rows at distance dy, TILE + 2 REACH pixels wide.
__device__ __forceinline__ void fold_rows(const float* middle, int pitch, float (*s)[WIDE], float (*d)[WIDE]) {
    for (int dy = 0; dy <= REACH; ++dy) {
        const float *below = middle + (long long)dy * pitch, *above = middle - (long long)dy * pitch;
        for (int i = 0; i < WIDE; ++i) {
            s[dy][i] = below[i] + above[i];
            d[dy][i] = below[i] - above[i];
        }
    }
}

// The table: terms of every offset for TILE pixels. From far to near: taps grow, so that sums are small until the end
// and their rounding errors too (4 times smaller than from near to far, on planes whose grey level wanders).
__device__ __forceinline__ void fold_columns(const float (*s)[WIDE], const float (*d)[WIDE], Terms* terms) {
    int offset = 0;
    for (int dy = REACH; dy >= 0; --dy)
#if PHASE == 0
        for (int dx = dy; dx >= 0; --dx, ++offset)
            for (int i = 0; i < TILE; ++i) {
                const int j = REACH + i;
                const float even = s[dy][j + dx] + s[dy][j - dx], even_transposed = s[dx][j + dy] + s[dx][j - dy];
                const float odd = d[dy][j + dx] - d[dy][j - dx], odd_transposed = d[dx][j + dy] - d[dx][j - dy];
                terms[0][offset][i] = even + even_transposed;
                terms[1][offset][i] = even - even_transposed;
                terms[2][offset][i] = odd + odd_transposed;
                terms[3][offset][i] = odd - odd_transposed;
            }
#else
        for (int dx = REACH; dx >= 0; --dx, ++offset)
            for (int i = 0; i < TILE; ++i) {
                const int j = REACH + i;
                terms[0][offset][i] = d[dy][j + dx] + d[dy][j - dx];
                terms[1][offset][i] = s[dy][j + dx] - s[dy][j - dx];
            }
#endif
}

__device__ __forceinline__ Wide fused(float a, Wide b, Wide c) {
    for (int l = 0; l < LANES; ++l) c[l] = fmaf(a, b[l], c[l]);
    return c;
}

// The sums of products FIRST to LAST - 1 of one bank. They stay in registers: all ten with AVX-512, else three at most,
// which all banks form of a term before the next three, while the first cache has it.
template <int FIRST, int LAST>
__device__ __noinline__ void multiply(const Terms* __restrict__ terms, const float* __restrict__ taps,
                                      float (*__restrict__ result)[TILE]) {
    Wide sum[LAST - FIRST][VECTORS];
    UNROLL for (int k = FIRST; k < LAST; ++k)
        UNROLL for (int v = 0; v < VECTORS; ++v) sum[k - FIRST][v] = Wide{};
    for (int offset = 0; offset < N_OFFSETS; ++offset)
        UNROLL for (int v = 0; v < VECTORS; ++v) {
            Wide term;
            UNROLL for (int k = FIRST; k < LAST; ++k) {
                if (k == FIRST || TERM(k) != TERM(k - 1)) {
                    memcpy(&term, &terms[TERM(k)][offset][v * LANES], sizeof term);
                    KEEP_VECTOR(term);
                }
                sum[k - FIRST][v] = fused(taps[k + offset * N_ANGLES], term, sum[k - FIRST][v]);
            }
        }
    UNROLL for (int k = FIRST; k < LAST; ++k)
        UNROLL for (int v = 0; v < VECTORS; ++v) memcpy(&result[k][v * LANES], &sum[k - FIRST][v], sizeof(Wide));
}

template <int FIRST, int LAST>
__device__ __forceinline__ void multiply_all(const Terms* terms, const float* taps, float (*values)[N_ANGLES][TILE]) {
    for (int bank = 0; bank < BANKS; ++bank)
        multiply<FIRST, LAST>(terms, taps + bank * (N_OFFSETS * N_ANGLES), values[bank]);
}

// From the sums of products to responses, in place.
__device__ __forceinline__ void combine(float (*sum)[TILE]) {
    for (int i = 0; i < TILE; ++i) {
        float even[6], odd[6];
#if PHASE == 0
        UNROLL for (int k = 0; k < 3; ++k) {
            even[k] = sum[k][i] + sum[3 + k][i];
            even[5 - k] = sum[k][i] - sum[3 + k][i];
        }
        UNROLL for (int k = 1; k < 3; ++k) {
            odd[k] = sum[5 + k][i] + sum[7 + k][i];
            odd[5 - k] = sum[5 + k][i] - sum[7 + k][i];
        }
        odd[0] = odd[5] = 0.0f;
#else
        UNROLL for (int k = 0; k < 5; ++k) {
            even[k + 1] = sum[k][i];
            odd[k] = sum[5 + k][i];
        }
        even[0] = odd[5] = 0.0f;
#endif
        UNROLL for (int k = 0; k <= 5; ++k) sum[k][i] = even[k] + odd[k];
        UNROLL for (int k = 1; k < 5; ++k) sum[N_ANGLES - k][i] = even[k] - odd[k];
    }
}

// Responses of one plane, [bank][angle][y][x], rows of `pitch`, a multiple of TILE; partial sums,
// [bank][angle][band][2].
extern "C" __global__ void gabor_filter_cpu(const float* __restrict__ padded, const float* __restrict__ taps,
                                            float* __restrict__ responses, double* __restrict__ partial, int ny, int nx,
                                            int padded_pitch, int pitch) {
    __shared__ float s[REACH + 1][WIDE], d[REACH + 1][WIDE], values[BANKS][N_ANGLES][TILE];
    __shared__ Terms terms[N_TERMS];
    __shared__ float sums[BANKS * N_ANGLES][2][TILE];
    for (int k = 0; k < BANKS * N_ANGLES; ++k)
        for (int i = 0; i < TILE; ++i) sums[k][0][i] = sums[k][1][i] = 0.0f;
    const int first = blockIdx.x * BAND, last = min(first + BAND, ny);
    for (int y = first; y < last; ++y)
        for (int x = 0; x < nx; x += TILE) {
            fold_rows(padded + (size_t)(y + MARGIN) * padded_pitch + MARGIN - REACH + x, padded_pitch, s, d);
            fold_columns(s, d, terms);
            const int n_here = nx - x;
#if defined(__AVX512F__)
            multiply_all<0, 10>(terms, taps, values);
#else
            multiply_all<0, 3>(terms, taps, values);
            multiply_all<3, SPLIT>(terms, taps, values);
            multiply_all<SPLIT, 8>(terms, taps, values);
            multiply_all<8, 10>(terms, taps, values);
#endif
            for (int bank = 0; bank < BANKS; ++bank) {
                combine(values[bank]);
                for (int angle = 0; angle < N_ANGLES; ++angle) {
                    const int k = bank * N_ANGLES + angle;
                    float* to = responses + ((size_t)k * ny + y) * pitch + x;
                    for (int i = 0; i < TILE; ++i) {
                        const float value = values[bank][angle][i], counted = i < n_here ? value : 0.0f;
                        to[i] = value;
                        sums[k][0][i] += counted;
                        sums[k][1][i] = fmaf(counted, counted, sums[k][1][i]);
                    }
                }
            }
        }
    for (int k = 0; k < BANKS * N_ANGLES; ++k)
        for (int which = 0; which < 2; ++which) {
            double total = 0.0;
            for (int i = 0; i < TILE; ++i) total += sums[k][which][i];
            partial[((size_t)k * gridDim.x + blockIdx.x) * 2 + which] = total;
        }
}
