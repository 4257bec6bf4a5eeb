// Entropy of the grey levels in a disk, for the darkest 32, 64, 128 and 256 levels.   Python: gpu_tomoclass/features/accelerated/entropy.py
//
//   H = -sum over levels k < bins of (c_k / n) log2(c_k / n) = (T(n) - sum of T(c_k)) / n      T(c) = c log2(c)
//
// c_k: pixels of level k in the disk, n: those below `bins`. T comes from a table of 64-bit integers, c log2(c) 2^f rounded,
// so sums do not depend on their order, and a disk with one level has exactly 0. The four `bins` share one histogram, and
// for each of them one integer has both sums, that of T(c_k) above that of c_k, in count_bits: one addition for both.
// Sums of doubles, as the reference adds them, are off by up to 2 10^-13, ours by a few 10^-13: where that could round to
// another float32, once in some 10^5 values, the terms are added again as the reference does, level by level.
//
// A thread slides the disk along a line and keeps its histogram: a pixel that enters level k adds T(c + 1) - T(c), one that
// leaves subtracts it. On a GPU lanes are neighbouring columns and disks slide down: loads of levels are whole lines, and
// the histograms lie in shared memory as [level][lane]; nobody waits for anybody. On a CPU (ONE_THREAD) disks slide
// along rows.
// Per pixel: 2 (2 r + 1) levels of 2 bytes from L1, for each an update of the histogram, a value of the table and 4
// additions; 16 bytes written; per line once all pixels of the disk.
//
// Compile-time: LANES (block), COUNT (type of a count), ONE_THREAD on a CPU.
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif

// Per `bins`. CPU compilers do not find by themselves that one vector instruction serves all four.
#ifdef ONE_THREAD
typedef long long Sums __attribute__((vector_size(32)));
#define SUM(b) sums[b]
struct Masks {
    alignas(32) long long of_level[257][4];  // all bits where level < bins, or none
    constexpr Masks() : of_level() {
        for (int level = 0; level <= 256; ++level)
            for (int b = 0; b < 4; ++b) of_level[level][b] = level < 32 << b ? -1 : 0;
    }
};
static constexpr Masks masks;
__device__ __forceinline__ void add(Sums& sums, int level, long long step) {
    sums += *(const Sums*)masks.of_level[level] & step;
}
__device__ __forceinline__ void subtract(Sums& sums, int level, long long step) {
    sums -= *(const Sums*)masks.of_level[level] & step;
}
#else
struct Sums { long long of[4]; };
#define SUM(b) sums.of[b]
__device__ __forceinline__ void add(Sums& sums, int level, long long step) {
    UNROLL for (int b = 0; b < 4; ++b) SUM(b) += level < 32 << b ? step : 0;
}
__device__ __forceinline__ void subtract(Sums& sums, int level, long long step) { add(sums, level, -step); }
#endif

__device__ __forceinline__ void enter(COUNT counts[257][LANES], int lane, int level,
                                      const long long* __restrict__ steps, Sums& sums) {
    const int count = counts[level][lane];
    counts[level][lane] = (COUNT)(count + 1);
    add(sums, level, steps[count]);
}

__device__ __forceinline__ void leave(COUNT counts[257][LANES], int lane, int level,
                                      const long long* __restrict__ steps, Sums& sums) {
    const int count = counts[level][lane] - 1;
    counts[level][lane] = (COUNT)count;
    subtract(sums, level, steps[count]);
}

// The sum in the reference's order and precision.
__device__ double level_by_level(const COUNT counts[257][LANES], int lane, int bins, int n) {
    double bits = 0.0;
    for (int level = 0; level < bins; ++level) {
        const int count = counts[level][lane];
        if (count == 0) continue;
        const double p = (double)count / n;
        bits -= p * log(p) / 0.69314718055994530942;
    }
    return bits;
}

// levels: with a margin of more than half the disk, 256 outside of the plane; widths: half-lengths of the disk's rows;
// edges: per row where the pixel that leaves lies and the one that enters, from a disk's first row; table[c]: T(c) 2^f;
// steps[c]: (table[c + 1] - table[c]) 2^count_bits + 1; scales[n]: 2^-f / n, 0 for n = 0, and by how much
// the sum and the reference's can be off; line: pixels per thread.
extern "C" __global__ void __launch_bounds__(LANES)
entropy(const unsigned short* __restrict__ levels, const int* __restrict__ widths, const int2* __restrict__ edges,
        const long long* __restrict__ table, const long long* __restrict__ steps, const double2* __restrict__ scales,
        float* __restrict__ result, int count_bits, int n_rows, int line, int margin, int ny, int nx) {
    __shared__ COUNT counts[257][LANES];
    const int lane = threadIdx.x, pitch = nx + 2 * margin;
#ifdef ONE_THREAD
    const int x = blockIdx.x * line, y = blockIdx.y, along = 1, across = pitch, n_steps = min(line, nx - x), to_next = 1;
#else
    const int x = blockIdx.x * LANES + lane, y = blockIdx.y * line;
    const int along = pitch, across = 1, n_steps = min(line, ny - y), to_next = nx;
    if (x >= nx) return;
#endif
    const unsigned short* first_row = levels + ((size_t)blockIdx.z * (ny + 2 * margin) + y + margin) * pitch + margin + x
        - (long long)(n_rows / 2) * across;
    const size_t n_pixels = (size_t)ny * nx, channel = n_pixels * gridDim.z;
    float* to = result + blockIdx.z * n_pixels + (size_t)y * nx + x;

    for (int i = 0; i < 257; ++i) counts[i][lane] = 0;
    Sums sums = {};
    for (int j = 0; j < n_rows; ++j)
        for (int i = -widths[j]; i <= widths[j]; ++i)
            enter(counts, lane, first_row[j * across + i * along], steps, sums);
    for (int step = 0;; ++step) {
        UNROLL for (int b = 0; b < 4; ++b) {
            const int n = (int)(SUM(b) & ((1 << count_bits) - 1));
            const long long times_n = table[n] - (SUM(b) >> count_bits);
            const double bits = (double)times_n * scales[n].x, error = scales[n].y;
            float rounded = (float)(bits - error);
            if (rounded != (float)(bits + error) && times_n != 0) rounded = level_by_level(counts, lane, 32 << b, n);
            to[b * channel] = times_n == 0 ? 0.0f : rounded;
        }
        to += to_next;
        if (step == n_steps - 1) return;
        for (int j = 0; j < n_rows; ++j) {
            const int2 edge = edges[j];
            leave(counts, lane, first_row[edge.x], steps, sums);
            enter(counts, lane, first_row[edge.y], steps, sums);
        }
        first_row += along;
    }
}
