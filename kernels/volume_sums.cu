// Mean and variance over balls.   Python: gpu_tomoclass/features/accelerated/volume_ranks.py
//
//   mean = S1 / n     variance = (S2 - S1^2 / n) / (n - 1), 0 for n = 1
//
// over the n voxels of the ball that lie in the volume. S1 and S2 are sums of values and of squares in double, in the order
// z, y, x; each square is rounded to float before it is added. The order matters to the last bit, so nothing is shared
// between neighbours but the reading: 2109 voxels at radius 8, two additions each; 4 bytes read and 4 to 8 written.
//
// On a CPU (ONE_THREAD) volume_widen_cpu.cu writes values and squares as doubles first, with a margin of zeros at the ends of
// rows, which change no sum; then a block is TX voxels of a row, done in GROUPS vectors of LANES columns at a time.
//
// Compile-time: INPUT (float; double on a CPU), SQUARES (0, 1: whether the variance is wanted), TX, TY (block).
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif

#if defined(ONE_THREAD)
#define LANES (__BIGGEST_ALIGNMENT__ / 8)
#define GROUPS 4
#define THREADS 1
typedef double Wide __attribute__((vector_size(LANES * sizeof(double))));
__device__ __forceinline__ Wide load(const double* from) {
    Wide values;
    memcpy(&values, from, sizeof values);
    return values;
}
#else
#define THREADS (TX * TY)
#endif

// image: (planes, ny, nx) on a GPU, what volume_widen_cpu.cu wrote on a CPU (level_size: from values to squares). ball: for each of
// its n_rows rows the distance along z and y and the half-width w; widest: the largest of these. Planes: `first` is the
// position of the slab in a volume of `depth`, `start` that of the first result. Grid: parts of rows, rows, planes.
extern "C" __global__ void __launch_bounds__(THREADS)
volume_sums(const INPUT* __restrict__ image, const int4* __restrict__ ball, float* __restrict__ mean,
            float* __restrict__ variance, int n_rows, int widest, int margin, long long level_size, int first, int depth,
            int start, int ny, int nx) {
    const int y = blockIdx.y * TY + threadIdx.y, z = start + blockIdx.z;
    if (y >= ny) return;
    const size_t line_at = ((size_t)blockIdx.z * ny + y) * nx;
#if defined(ONE_THREAD)
    const int pitch = nx + 2 * margin, stop = min(nx, (int)(blockIdx.x + 1) * TX);
    for (int x = blockIdx.x * TX; x < stop; x += GROUPS * LANES) {
        Wide sum[GROUPS] = {}, square[GROUPS] = {};
        int n[GROUPS * LANES] = {};
        const bool is_inside = x >= widest && x + GROUPS * LANES + widest <= nx;
        for (int j = 0; j < n_rows; ++j) {
            const int4 row = ball[j];
            const int from_z = z + row.x, from_y = y + row.y;
            if (from_z < 0 || from_z >= depth || from_y < 0 || from_y >= ny) continue;
            const double* value = image + ((size_t)(from_z - first) * ny + from_y) * pitch + margin + x - row.z;
            for (int i = 0; i <= 2 * row.z; ++i, ++value)
                UNROLL for (int g = 0; g < GROUPS; ++g) {
                    sum[g] = sum[g] + load(value + g * LANES);
                    if (SQUARES) square[g] = square[g] + load(value + level_size + g * LANES);
                }
            if (is_inside) n[0] += 2 * row.z + 1;
            else
                for (int i = 0; i < GROUPS * LANES; ++i) n[i] += max(min(x + i + row.z, nx - 1) - max(x + i - row.z, 0) + 1, 0);
        }
        for (int i = 0; i < GROUPS * LANES && x + i < nx; ++i) {
            const double s1 = sum[i / LANES][i % LANES], s2 = square[i / LANES][i % LANES];
            const int count = is_inside ? n[0] : n[i];
            mean[line_at + x + i] = (float)(s1 / count);
            if (SQUARES) variance[line_at + x + i] = count > 1 ? (float)((s2 - s1 * s1 / count) / (count - 1)) : 0.0f;
        }
    }
#else
    const int x = blockIdx.x * TX + threadIdx.x;
    if (x >= nx) return;
    double sum = 0.0, square = 0.0;
    int n = 0;
    for (int j = 0; j < n_rows; ++j) {
        const int4 row = ball[j];
        const int from_z = z + row.x, from_y = y + row.y;
        if (from_z < 0 || from_z >= depth || from_y < 0 || from_y >= ny) continue;
        const float* line = image + ((size_t)(from_z - first) * ny + from_y) * nx;
        const int low = max(x - row.z, 0), high = min(x + row.z, nx - 1);
        for (int i = low; i <= high; ++i) {
            const float value = line[i];
            sum += value;
            if (SQUARES) square += value * value;
        }
        n += high - low + 1;
    }
    mean[line_at + x] = (float)(sum / n);
    if (SQUARES) variance[line_at + x] = n > 1 ? (float)((square - sum * sum / n) / (n - 1)) : 0.0f;
#endif
}
