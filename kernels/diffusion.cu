// Anisotropic diffusion after Tschumperle and Deriche.   Python: gpu_tomoclass/features/accelerated/diffusion.py
//
//   20 iterations:  T = u u^T base^-a1 + v v^T base^-a2, base = 1 + (l1 + l2) / edge_range, l1, l2 eigenvalues
//                   of the gradient's structure tensor, u lies along the edge and v across it
//     n smoothings: V = T_xx I_xx + T_xy I_xy + T_yy I_yy;  I += 20 step_range / max |V| V within the plane's range
//
// A job is one channel of one plane. Jobs run in grid z, sorted by n: those that are done leave at the end.
// The step of a smoothing needs max |V| over the plane, so each smoothing is one launch: it applies step t and makes V
// and max |V| of step t + 1, for which the moved image is in shared memory with a border of one pixel. V is stored, so
// that a tile with its border is moved by a product and a sum per pixel. Per pixel 28 bytes (image and V in and out,
// tensor) and about 40 operations, 5 of them in double; the last step of an iteration needs no V: 12 bytes.
// `diffusion_tensor` opens an iteration: 20 bytes and about 150 operations in double per pixel.
//
// Where thread blocks form clusters and share their memory (compute capability 9.0 and 10), and a plane fits it, a job
// is one cluster of one launch (`diffusion_cluster`): image, tensor and V never leave the chip. Each block has some rows,
// with one more above and below that its neighbours write; all meet twice per smoothing, for max |V| and for the moved
// image. Per pixel and job 8 bytes of device memory, and about 10 accesses to shared memory per smoothing.
//
// fastest[job][t] holds the bits of max |V|: as integers they compare as the numbers do, and NaN is above all. So a
// plane where nothing moves (step = infinity) becomes NaN entirely, which ends as 0, as in Java.
//
// Compile-time: TX, TY (block), ROWS (rows of a tile, a multiple of TY), THREADS (of diffusion_begin); or CLUSTER
// (blocks of a cluster, at most 32), THREADS (of a block) and SHARED_BYTES (given to each block at the launch: HEADER
// floats, and for ceil(ny / CLUSTER) rows of nx pixels five floats each, and two rows more).
#ifndef FOR_EACH_THREAD  // on a GPU; cuda_on_cpu.h has its own
#define FOR_EACH_THREAD
#define UNROLL _Pragma("unroll")
#define BY_WARPS 1
#else
#define BY_WARPS 0
#endif
#define N_ITERATIONS 20
#define TIME_STEP 20.0
#define C1 0.14644660940672627f  // 0.25 (2 - sqrt 2)
#define C2 0.20710678118654757f  // 0.5 (sqrt 2 - 1)
#define WIDE (TX + 2)  // of a tile with its border

__device__ __forceinline__ float cut_to_whole(float value) {  // as Java casts to int: NaN is 0
    const float limited = fminf(fmaxf(value, -2147483648.0f), 2147483648.0f);
    return value == value ? truncf(limited) : 0.0f;
}

// 1 / sqrt(x) within 2 units of the last place, for normal x > 0: a guess within 3.5 %, then Newton's method.
__device__ __forceinline__ double inverse_root(double x) {
    double y = __longlong_as_double(0x5fe6eb50c7b537a9ll - (__double_as_longlong(x) >> 1));
    double root = x * y, half = 0.5 * y, rest;
    UNROLL for (int i = 0; i < 3; ++i) {
        rest = fma(-root, half, 0.5);
        root = fma(root, rest, root);
        half = fma(half, rest, half);
    }
    rest = fma(-root, half, 0.5);
    return 2.0 * fma(half, rest, half);
}

// 2^(exponent * (whole + part)); exponent has 24 bits, so exponent * whole is exact.
__device__ __forceinline__ float power(double exponent, double whole, double part) {
    const double rounding = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves the nearest integer in the low bits
    const double shifted = fma(exponent, whole + part, rounding), nearest = shifted - rounding;
    const double x = fma(exponent, part, fma(exponent, whole, -nearest));
    double y = fma(7.072585949269223e-09, x, 1.0208690299958306e-07);
    y = fma(y, x, 1.321544258792169e-06);
    y = fma(y, x, 1.5252657260200837e-05);
    y = fma(y, x, 0.0001540353044173605);
    y = fma(y, x, 0.0013333558230164974);
    y = fma(y, x, 0.009618129107606888);
    y = fma(y, x, 0.05550410866444772);
    y = fma(y, x, 0.24022650695910097);
    y = fma(y, x, 0.69314718055995);
    y = fma(y, x, 1.0);
    return __uint_as_float(__float_as_uint((float)y) + ((unsigned)__double_as_longlong(shifted) << 23));
}

// Diffusion tensor xx, xy, yy from the gradient. The structure tensor is not smoothed, so its determinant is 0 but for
// rounding; large and small are what the plugin makes of that rounding.
__device__ __forceinline__ float3 diffusion_tensor_of(float gx, float gy, double edge_range, double a1, double a2) {
    const double a = (double)(gx * gx), b = (double)(gx * gy), c = (double)(gy * gy);
    const double trace = a + c, determinant = a * c - b * b;
    const double small = 0.5 * (trace - sqrt(trace * trace - 4.0 * determinant));
    const double large = small != 0.0 ? determinant / small : trace;
    const float base = 1.0f + (float)(large / edge_range) + (float)(small / edge_range);
    // Along the edge: (|b|, -rest) or (-b, |rest|) brought to length 1, (1, 0) where both are 0. Signs matter for u v.
    const double rest = a - small, level = fabs(rest), steep = level > 0.0 ? fabs(b) : fabs(b) + 1e-150;
    const double inverse = inverse_root(fma(steep, steep, level * level));
    const float u = (float)(steep * inverse), v = (float)(level * inverse);
    const float uu = u * u, vv = v * v, uv = b * rest > 0.0 ? -(u * v) : u * v;
    // log2(base) = whole + part: part = 2 artanh(s) / ln 2, s = (m - 1) / (m + 1), m within sqrt 2 of 1.
    const int whole = (__float_as_int(base) - 0x3f3504f3) >> 23;  // bits of sqrt 0.5
    const double m = (double)__int_as_float(__float_as_int(base) - whole * (1 << 23));
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    double y = fma(0.213658959211263, z, 0.22091308401429963);
    y = fma(y, z, 0.26233435251228127);
    y = fma(y, z, 0.32059853491381096);
    y = fma(y, z, 0.4121985858409019);
    y = fma(y, z, 0.5770780163455203);
    y = fma(y, z, 0.9617966939259898);
    y = fma(y, z, 2.8853900817779268);
    const float along = power(-a1, (double)whole, s * y), across = power(-a2, (double)whole, s * y);
    return make_float3(along * uu + across * vv, (along - across) * uv, along * vv + across * uu);
}

// Trace of (tensor x Hessian) at `at`, in a tile with rows of `wide`.
__device__ __forceinline__ float speed_at(const float* at, int wide, float xx, float xy, float yy) {
    const float twice = at[0] * 2.0f;
    float part = at[-wide - 1] + at[wide + 1] - at[wide - 1] - at[-wide + 1];
    part = part * 0.5f * xy;
    const float total = (at[1] + at[-1] - twice) * xx + part;
    return total + (at[wide] + at[-wide] - twice) * yy;
}

__device__ __forceinline__ int size_bits(float value) { return __float_as_int(value) & 0x7fffffff; }

// The same from the 3 x 3 pixels around it.
__device__ __forceinline__ float3 tensor_at(const float* p, double edge_range, double a1, double a2) {
    const float diagonal = C1 * (p[8] - p[0]), anti = C1 * (p[6] - p[2]);
    const float gx = diagonal - anti - C2 * p[3] + C2 * p[5];
    const float gy = diagonal + anti - C2 * p[1] + C2 * p[7];
    return diffusion_tensor_of(gx, gy, edge_range, a1, a2);
}

// A pixel after a step, within the plane's range; NaN stays.
__device__ __forceinline__ float moved_by(float speed, float old, double step, float low, float high) {
    float moved = (float)((double)speed * step + (double)old);
    moved = moved < low ? low : moved;
    return moved > high ? high : moved;
}

#ifdef CLUSTER
#ifndef CLUSTER_MEMORY  // on a GPU; cuda_fibers.h has its own
#define CLUSTER_MEMORY(type, name) extern __shared__ type name[];
#endif
#define HEADER 64  // floats
#define WARPS (THREADS / 32)
#define ALL_BLOCKS_MEET()       \
    __cluster_barrier_arrive(); \
    __cluster_barrier_wait();

__device__ __forceinline__ int largest_of_lanes(int largest) {
    UNROLL for (int half = 16; half > 0; half /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, half));
    return largest;
}

// A warp takes 32 columns downwards, then the next 32: an equal share of all rows of such strips, begun at strip and row.
struct Run {
    int x, top, bottom;
};
__device__ __forceinline__ Run run_at(int begin, int end, int n_rows) {
    const int top = begin % n_rows;
    return {begin / n_rows * 32 + (int)threadIdx.x, top, min(top + end - begin, n_rows)};
}
#define FOR_EACH_RUN(run, n_strips, n_rows)                                                   \
    for (int begin = (n_strips) * (n_rows) * (int)threadIdx.y / WARPS,                         \
             end = (n_strips) * (n_rows) * ((int)threadIdx.y + 1) / WARPS; begin < end;)       \
        if (const Run run = run_at(begin, end, n_rows); (begin += run.bottom - run.top, true))

// V of a block's pixels, and where an iteration begins the tensor; the bits of this thread's largest |V|. The image has
// a row above and one below.
__device__ __forceinline__ int make_speeds(bool with_tensor, const float* image, float* speed, float* tensor, int n_rows,
                                           int all, int nx, double edge_range, double a1, double a2) {
    int largest = 0;
    FOR_EACH_RUN(run, (nx + 31) / 32, n_rows) {
        const int x = run.x, left = max(x - 1, 0), right = min(x + 1, nx - 1);
        if (x < nx) {
            const float* row = image + run.top * nx;
            float p[9] = {0.0f, 0.0f, 0.0f, row[left], row[x], row[right], row[nx + left], row[nx + x], row[nx + right]};
            row += 2 * nx;
            for (int j = run.top, at = run.top * nx + x; j < run.bottom; ++j, at += nx, row += nx) {
                UNROLL for (int i = 0; i < 6; ++i) p[i] = p[i + 3];
                p[6] = row[left];
                p[7] = row[x];
                p[8] = row[right];
                float3 d;
                if (with_tensor) {
                    d = tensor_at(p, edge_range, a1, a2);
                    tensor[at] = d.x;
                    tensor[all + at] = d.y;
                    tensor[2 * all + at] = d.z;
                } else {
                    d = make_float3(tensor[at], tensor[all + at], tensor[2 * all + at]);
                }
                const float next = speed_at(p + 4, 3, d.x, d.y, d.z);
                speed[at] = next;
                largest = max(largest, size_bits(next));
            }
        }
    }
    return largest;
}

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS)
diffusion_cluster(const float* __restrict__ image, const double* __restrict__ limits,
                  const int* __restrict__ smoothings, const double* __restrict__ a1,
                  const double* __restrict__ edge_threshold, double a2, float* __restrict__ result, int nz, int ny,
                  int nx) {
    CLUSTER_MEMORY(float, memory)
    const int rank = blockIdx.x, z = blockIdx.y, job = blockIdx.z, lane = threadIdx.x, me = threadIdx.y * 32 + lane;
    const int rows = (ny + CLUSTER - 1) / CLUSTER, y0 = rank * rows, n_rows = max(min(rows, ny - y0), 0), all = rows * nx;
    int *most = (int*)memory, *of_blocks = most + 1;  // largest |V| of this block; of each block
    float *here = memory + HEADER, *speed = here + all + 2 * nx, *tensor = speed + all;
    const float* plane = image + (size_t)z * ny * nx;
    for (int i = me; i < (n_rows + 2) * nx; i += THREADS) {  // beyond an edge of the plane its pixels are repeated
        const int j = i / nx;
        here[i] = cut_to_whole(plane[min(max(y0 + j - 1, 0), ny - 1) * nx + i - j * nx]);
    }
    if (me == 0) *most = 0;
    __syncthreads();
    float* to = result + ((size_t)job * nz + z) * ny * nx + y0 * nx;
    float* above = (float*)__cluster_map_shared_rank(here + all + nx, max(rank - 1, 0));  // what lies below its last row
    float* below = (float*)__cluster_map_shared_rank(here, min(rank + 1, CLUSTER - 1));
    if (rank == 0) above = here;
    if (y0 + n_rows == ny) below = here + (n_rows + 1) * nx;
    const float low = (float)limits[3 * z], high = (float)limits[3 * z + 1];
    const double deviation = limits[3 * z + 2], edge = edge_threshold[job] * deviation / 256.0, edge_range = edge * edge;
    const int n = smoothings[job];
    for (int iteration = 0; iteration < N_ITERATIONS; ++iteration) {
        for (int t = 0; t < n; ++t) {
            const bool is_last = iteration + 1 == N_ITERATIONS && t + 1 == n;
            int largest = t == 0 ? make_speeds(true, here, speed, tensor, n_rows, all, nx, edge_range, a1[job], a2)
                                 : make_speeds(false, here, speed, tensor, n_rows, all, nx, 0.0, 0.0, 0.0);
            largest = largest_of_lanes(largest);
            if (lane == 0) atomicMax(most, largest);
            __syncthreads();
            if (me < CLUSTER) *(int*)__cluster_map_shared_rank(of_blocks + rank, me) = *most;
            ALL_BLOCKS_MEET()
            if (me == 0) *most = 0;
            largest = largest_of_lanes(lane < CLUSTER ? of_blocks[lane] : 0);
            const double step = TIME_STEP / (double)__int_as_float(largest) * (6.0 * deviation / 256.0);
            FOR_EACH_RUN(run, (nx + 31) / 32, n_rows) {
                const int x = run.x;
                if (x < nx) {
                    for (int j = run.top, at = run.top * nx + x; j < run.bottom; ++j, at += nx) {
                        const float moved = moved_by(speed[at], here[at + nx], step, low, high);
                        if (is_last) to[at] = cut_to_whole(moved);
                        else here[at + nx] = moved;
                    }
                    if (run.top == 0) above[x] = here[nx + x];
                    if (run.bottom == n_rows) below[x] = here[n_rows * nx + x];
                }
            }
            if (!is_last) {
                ALL_BLOCKS_MEET()
            }
        }
    }
}
#else
// The largest value that a thread of the block has, to *slot. A warp (TX is 32) finds its own by itself; a CPU,
// whose threads come one after the other, has room for one value of each.
#if BY_WARPS
#define LARGEST_OF_THREADS
#define THREAD_HAS(largest, slot)                                                                      \
    UNROLL for (int half = 16; half > 0; half /= 2) largest = max(largest, __shfl_xor_sync(~0u, largest, half)); \
    if (threadIdx.x == 0) atomicMax(slot, largest);
#define KEEP_LARGEST(slot)
#else
#define LARGEST_OF_THREADS __shared__ int most[TX * TY];
#define THREAD_HAS(largest, slot) most[threadIdx.y * TX + threadIdx.x] = largest;
#define KEEP_LARGEST(slot)                                                   \
    __syncthreads();                                                         \
    FOR_EACH_THREAD {                                                        \
        if (threadIdx.x == 0 && threadIdx.y == 0) {                          \
            int largest = most[0];                                           \
            for (int i = 1; i < TX * TY; ++i) largest = max(largest, most[i]); \
            atomicMax(slot, largest);                                        \
        }                                                                    \
    }
#endif

// Every job's image from its plane, and its slots of max |V| to 0.
extern "C" __global__ void __launch_bounds__(THREADS)
diffusion_begin(const float* __restrict__ image, float* __restrict__ images, int* __restrict__ fastest, int n_slots,
                long long n_pixels) {
    const size_t item = (size_t)blockIdx.z * gridDim.y + blockIdx.y;
    FOR_EACH_THREAD {
        const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
        if (i < n_pixels) images[item * n_pixels + i] = cut_to_whole(image[blockIdx.y * (size_t)n_pixels + i]);
        if (blockIdx.x == 0)
            for (int k = threadIdx.x; k < n_slots; k += THREADS) fastest[item * n_slots + k] = 0;
    }
}

// The tensor of jobs whose iteration begins with step t, their V and max |V|.
extern "C" __global__ void __launch_bounds__(TX * TY)
diffusion_tensor(const float* __restrict__ images, const double* __restrict__ limits,
                 const int* __restrict__ smoothings, const double* __restrict__ a1,
                 const double* __restrict__ edge_threshold, double a2, float* __restrict__ tensor,
                 float* __restrict__ speeds, int* __restrict__ fastest, int n_slots, int t, int nz, int n_items, int ny,
                 int nx) {
    LARGEST_OF_THREADS
    const int item = blockIdx.z, job = item / nz, z = item % nz;
    if (t % smoothings[job] != 0 || t >= N_ITERATIONS * smoothings[job]) return;
    const size_t n_pixels = (size_t)ny * nx, all = n_pixels * n_items;
    const float* image = images + item * n_pixels;
    const double edge = edge_threshold[job] * limits[3 * z + 2] / 256.0, edge_range = edge * edge;
    int* slot = fastest + (size_t)item * n_slots + t;
    FOR_EACH_THREAD {
        int largest = 0;
        const int x = blockIdx.x * TX + threadIdx.x;
        for (int j = threadIdx.y; j < ROWS; j += TY) {
            const int y = blockIdx.y * ROWS + j;
            if (x < nx && y < ny) {
                const int left = max(x - 1, 0), right = min(x + 1, nx - 1);
                const float* at = image + (size_t)y * nx;
                const float* up = image + (size_t)max(y - 1, 0) * nx;
                const float* down = image + (size_t)min(y + 1, ny - 1) * nx;
                const float p[9] = {up[left], up[x],      up[right], at[left],   at[x],
                                    at[right], down[left], down[x],   down[right]};
                const float3 d = tensor_at(p, edge_range, a1[job], a2);
                const float speed = speed_at(p + 4, 3, d.x, d.y, d.z);
                const size_t to = item * n_pixels + (size_t)y * nx + x;
                tensor[to] = d.x;
                tensor[all + to] = d.y;
                tensor[2 * all + to] = d.z;
                speeds[to] = speed;
                largest = max(largest, size_bits(speed));
            }
        }
        THREAD_HAS(largest, slot)
    }
    KEEP_LARGEST(slot)
}

// Step t of jobs that have one; V and max |V| of step t + 1 if that is in the same iteration. The last step leaves
// whole numbers.
extern "C" __global__ void __launch_bounds__(TX * TY)
diffusion_step(const float* __restrict__ images, const float* __restrict__ speeds, const float* __restrict__ tensor,
               const double* __restrict__ limits, const int* __restrict__ smoothings, int* fastest,
               float* __restrict__ moved_images, float* __restrict__ moved_speeds, int n_slots, int t, int nz, int n_items,
               int ny, int nx) {
    __shared__ float after[ROWS + 2][WIDE];
    __shared__ double step;
    LARGEST_OF_THREADS
    const int item = blockIdx.z, job = item / nz, z = item % nz, n_steps = N_ITERATIONS * smoothings[job];
    if (t >= n_steps) return;
    const bool goes_on = (t + 1) % smoothings[job] != 0, is_last = t + 1 == n_steps;
    const size_t n_pixels = (size_t)ny * nx, all = n_pixels * n_items;
    const float *image = images + item * n_pixels, *speed = speeds + item * n_pixels, *of_item = tensor + item * n_pixels;
    float *to = moved_images + item * n_pixels, *next_speed = moved_speeds + item * n_pixels;
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * ROWS;
    const float low = (float)limits[3 * z], high = (float)limits[3 * z + 1];
    int* slot = fastest + (size_t)item * n_slots + t;
    FOR_EACH_THREAD {
        if (threadIdx.x == 0 && threadIdx.y == 0)
            step = TIME_STEP / (double)__int_as_float(*slot) * (6.0 * limits[3 * z + 2] / 256.0);
    }
    __syncthreads();
    FOR_EACH_THREAD {
        // Beyond an edge its pixel is repeated, so that is the one to move. First the tile and the rows above and below.
        const int x = x0 + threadIdx.x, x_inside = min(x, nx - 1);
        for (int j = threadIdx.y; j < ROWS + 2; j += TY) {
            const int y = y0 + j - 1, at = min(max(y, 0), ny - 1) * nx + x_inside;
            const float moved = moved_by(speed[at], image[at], step, low, high);
            after[j][threadIdx.x + 1] = moved;
            if (j >= 1 && j <= ROWS && x < nx && y < ny) to[at] = is_last ? cut_to_whole(moved) : moved;
        }
        if (goes_on) {  // the columns beside
            for (int k = threadIdx.y * TX + threadIdx.x; k < 2 * (ROWS + 2); k += TX * TY) {
                const int j = k / 2, i = k % 2 ? TX + 1 : 0;
                const int at = min(max(y0 + j - 1, 0), ny - 1) * nx + min(max(x0 + i - 1, 0), nx - 1);
                after[j][i] = moved_by(speed[at], image[at], step, low, high);
            }
        }
    }
    if (!goes_on) return;
    __syncthreads();
    FOR_EACH_THREAD {
        int largest = 0;
        const int x = x0 + threadIdx.x;
        for (int j = threadIdx.y; j < ROWS; j += TY) {
            const int y = y0 + j;
            if (x < nx && y < ny) {
                const int at = y * nx + x;
                const float* here = &after[j + 1][threadIdx.x + 1];
                const float next = speed_at(here, WIDE, of_item[at], of_item[all + at], of_item[2 * all + at]);
                next_speed[at] = next;
                largest = max(largest, size_bits(next));
            }
        }
        THREAD_HAS(largest, slot + 1)
    }
    KEEP_LARGEST(slot + 1)
}
#endif  // CLUSTER
