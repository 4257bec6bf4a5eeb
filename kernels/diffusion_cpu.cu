// Anisotropic diffusion on a CPU: a whole chain of steps per block; formulas in diffusion.cu.
// Python: gpu_tomoclass/features/accelerated/diffusion.py
//
// A block is a task of one CPU thread: one channel of one plane, all iterations. Its scratch holds the image, its speed
// and the tensor, row by row side by side, so that a step is one pass through memory in order: row y moves, then the
// speed of row y - 1 and the fastest of all follow while the three rows are in the first cache. 28 bytes and about 40
// operations per pixel and step. Rows are whole numbers of LANES; behind the plane's last column the tensor is 0.
//
// Sweeps go down and up in turns, so that what the second cache still holds is used first. Loops are over short pieces
// of a row with arrays in between, so that each is vectorised with few operations in a chain. A slow divider is spared
// where products do: x / edge_range is brought to the bits that `/` gives by one residual, and the unit vector scaled
// by an inverse root within 2 units in the last place of double.
//
// Compile-time: ONE_THREAD.
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("prefer-vector-width=512")
#endif
#define LANES 16  // floats of the widest vectors
#define PIECE 64
#define BEFORE LANES  // floats in front of a row of the image, for the repeated edge pixel; as many behind it
#define N_ITERATIONS 20
#define TIME_STEP 20.0
#define C1 0.14644660940672627f  // 0.25 (2 - sqrt 2)
#define C2 0.20710678118654757f  // 0.5 (sqrt 2 - 1)

__device__ __forceinline__ float cut_to_whole(float value) {  // as Java casts to int: NaN is 0
    const float limited = fminf(fmaxf(value, -2147483648.0f), 2147483648.0f);
    return value == value ? truncf(limited) : 0.0f;
}

// Where the rows of a job are in its scratch.
struct Rows {
    float* first;
    size_t length;
    int wide;  // pixels of a row, rounded up to LANES
};
__device__ __forceinline__ float* image_row(const Rows& rows, int y) { return rows.first + y * rows.length + BEFORE; }
__device__ __forceinline__ float* speed_row(const Rows& rows, int y) { return image_row(rows, y) + rows.wide + LANES; }
__device__ __forceinline__ float* tensor_row(const Rows& rows, int y, int k) {
    return speed_row(rows, y) + (k + 1) * rows.wide;
}

__device__ __forceinline__ void repeat_edges(float* row, int nx) {
    row[-1] = row[0];
    row[nx] = row[nx - 1];
}

// image += step * speed within low..high, in double.
#if defined(__AVX512F__)
__device__ __forceinline__ void move_row(float* __restrict__ image, const float* __restrict__ speed, double step,
                                         float low, float high, int wide) {
    for (int x = 0; x < wide; ++x) {
        float moved = (float)((double)speed[x] * step + (double)image[x]);
        moved = moved < low ? low : moved;
        image[x] = moved > high ? high : moved;
    }
}
#else
// In vectors of doubles, by name: GCC makes vectors of floats and spends most of the time on taking them apart.
typedef float Narrow __attribute__((vector_size(sizeof(cuda_doubles) / 2)));
__device__ __forceinline__ void move_row(float* __restrict__ image, const float* __restrict__ speed, double step,
                                         float low, float high, int wide) {
    const Narrow lowest = Narrow{} + low, highest = Narrow{} + high;
    const int n = sizeof(Narrow) / sizeof(float);
    for (int x = 0; x < wide; x += n) {
        const cuda_doubles exact = cuda_widened(speed + x) * step + cuda_widened(image + x);
        Narrow moved = __builtin_convertvector(exact, Narrow);
        moved = moved < lowest ? lowest : moved;
        moved = moved > highest ? highest : moved;
        memcpy(image + x, &moved, sizeof moved);
    }
}
#endif

// speed = trace of (tensor x Hessian); returns the bits of the largest absolute value, or of fastest, if that is more.
__device__ __forceinline__ int speed_of_row(const Rows& rows, int y, int fastest, int ny) {
    const float *at = image_row(rows, y), *up = image_row(rows, max(y - 1, 0));
    const float* down = image_row(rows, min(y + 1, ny - 1));
    const float *xx = tensor_row(rows, y, 0), *xy = tensor_row(rows, y, 1), *yy = tensor_row(rows, y, 2);
    float* __restrict__ speed = speed_row(rows, y);
    const int wide = rows.wide & -LANES;
    for (int x = 0; x < wide; ++x) {
        const float twice = at[x] * 2.0f;
        float total = at[x + 1] + at[x - 1] - twice;
        total *= xx[x];
        float part = up[x - 1] + down[x + 1] - down[x - 1] - up[x + 1];
        part *= 0.5f;
        part *= xy[x];
        total += part;
        part = down[x] + up[x] - twice;
        part *= yy[x];
        total += part;
        speed[x] = total;
        const int bits = __float_as_int(total) & 0x7fffffff;  // integers compare as the absolute values do
        fastest = bits > fastest ? bits : fastest;
    }
    return fastest;
}

// a / b as `/` rounds it, from a nearly exact 1 / b.
__device__ __forceinline__ double quotient(double a, double b, double inverse) {
    const double q = a * inverse;
    return fma(fma(-q, b, a), inverse, q);
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

// base = 1 + large / edge_range + small / edge_range for the eigenvalues of the structure tensor (a, b; b, c), and
// float32 products of the unit vector (u, v) along the edge.
__device__ __forceinline__ void eigen_piece(const float* aa, const float* bb, const float* cc, double edge_range,
                                            double inverse_range, float* __restrict__ base, float* __restrict__ uu,
                                            float* __restrict__ uv, float* __restrict__ vv, int n) {
    for (int i = 0; i < n; ++i) {
        const double a = (double)aa[i], b = (double)bb[i], c = (double)cc[i];
        const double trace = a + c, determinant = a * c - b * b;
        const double small = 0.5 * (trace - sqrt(trace * trace - 4.0 * determinant));
        const double large = small != 0.0 ? determinant / small : trace;
        base[i] = 1.0f + (float)quotient(large, edge_range, inverse_range) +
                  (float)quotient(small, edge_range, inverse_range);
        // (|b|, -rest) or (-b, |rest|) brought to length 1, (1, 0) where both are 0; signs matter for u v alone.
        const double rest = a - small, level = fabs(rest), steep = level > 0.0 ? fabs(b) : fabs(b) + 1e-150;
        const double inverse = inverse_root(fma(steep, steep, level * level));
        const float u = (float)(steep * inverse), v = (float)(level * inverse);
        uu[i] = u * u;
        vv[i] = v * v;
        uv[i] = b * rest > 0.0 ? -(u * v) : u * v;
    }
}

// log2(base) = whole + part: part = 2 artanh(s) / ln 2, s = (m - 1) / (m + 1), m within a factor sqrt 2 of 1.
__device__ __forceinline__ void logarithm_piece(const float* base, double* __restrict__ wholes,
                                                double* __restrict__ parts, int n) {
    for (int i = 0; i < n; ++i) {
        const int whole = (__float_as_int(base[i]) - 0x3f3504f3) >> 23;  // bits of sqrt 0.5
        const float mantissa = __int_as_float(__float_as_int(base[i]) - whole * (1 << 23));
        const double m = (double)mantissa, s = (m - 1.0) / (m + 1.0), z = s * s;
        double y = fma(0.213658959211263, z, 0.22091308401429963);
        y = fma(y, z, 0.26233435251228127);
        y = fma(y, z, 0.32059853491381096);
        y = fma(y, z, 0.4121985858409019);
        y = fma(y, z, 0.5770780163455203);
        y = fma(y, z, 0.9617966939259898);
        y = fma(y, z, 2.8853900817779268);
        wholes[i] = (double)whole;
        parts[i] = s * y;
    }
}

// 2^(exponent * log2(base)) where log2(base) = whole + part; exponent has 24 bits, so exponent * whole is exact.
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

// Diffusion tensor from base^-a1 along and base^-a2 across the edge.
__device__ __forceinline__ void tensor_piece(const double* wholes, const double* parts, const float* uu,
                                             const float* uv, const float* vv, double a1, double a2,
                                             float* __restrict__ xx, float* __restrict__ xy, float* __restrict__ yy,
                                             int n) {
    for (int i = 0; i < n; ++i) {
        const float along = power(-a1, wholes[i], parts[i]), across = power(-a2, wholes[i], parts[i]);
        xx[i] = along * uu[i] + across * vv[i];
        xy[i] = (along - across) * uv[i];
        yy[i] = along * vv[i] + across * uu[i];
    }
}

__device__ __forceinline__ void make_tensor(const float* up, const float* at, const float* down, double a1, double a2,
                                           double edge_range, float* xx, float* xy, float* yy, int nx, int wide) {
    float a[PIECE], b[PIECE], c[PIECE], base[PIECE], uu[PIECE], uv[PIECE], vv[PIECE];
    double wholes[PIECE], parts[PIECE];
    for (int x0 = 0; x0 < wide; x0 += PIECE) {
        const int n = min(PIECE, wide - x0) & -LANES;  // the mask tells the compiler that vectors leave no rest
        for (int i = 0; i < n; ++i) {
            const int x = x0 + i;
            const float diagonal = C1 * (down[x + 1] - up[x - 1]), anti = C1 * (down[x - 1] - up[x + 1]);
            const float gx = diagonal - anti - C2 * at[x - 1] + C2 * at[x + 1];
            const float gy = diagonal + anti - C2 * up[x] + C2 * down[x];
            a[i] = gx * gx;
            b[i] = gx * gy;
            c[i] = gy * gy;
        }
        eigen_piece(a, b, c, edge_range, 1.0 / edge_range, base, uu, uv, vv, n);
        logarithm_piece(base, wholes, parts, n);
        tensor_piece(wholes, parts, uu, uv, vv, a1, a2, xx + x0, xy + x0, yy + x0, n);
    }
    for (int x = nx; x < wide; ++x) xx[x] = xy[x] = yy[x] = 0.0f;
}

extern "C" __global__ void
diffusion_cpu(const float* __restrict__ image, const double* __restrict__ limits, const int* __restrict__ smoothings,
              const double* __restrict__ a1, const double* __restrict__ edge_threshold, double a2,
              float* __restrict__ scratch, float* __restrict__ result, int ny, int nx) {
    const int job = blockIdx.y, n_smoothings = smoothings[job];
    const size_t n_pixels = (size_t)ny * nx, item = (size_t)job * gridDim.x + blockIdx.x;
    const float* plane = image + blockIdx.x * n_pixels;
    float* out = result + item * n_pixels;
    const float low = (float)limits[3 * blockIdx.x], high = (float)limits[3 * blockIdx.x + 1];
    const double deviation = limits[3 * blockIdx.x + 2];
    const double edge = edge_threshold[job] * deviation / 256.0, edge_range = edge * edge;
    const double step_range = 6.0 * deviation / 256.0;
    const int wide = (nx + LANES - 1) & -LANES;
    const size_t length = 5 * (size_t)wide + BEFORE + LANES;
    const Rows rows{scratch + item * ny * length, length, wide};

    for (int y = 0; y < ny; ++y) {
        float* row = image_row(rows, y);
        for (int x = 0; x < nx; ++x) row[x] = cut_to_whole(plane[(size_t)y * nx + x]);
        for (int x = nx; x < wide + LANES; ++x) row[x] = low;
        repeat_edges(row, nx);
    }
    bool is_upwards = false;
    bool is_moving = deviation != 0.0;
    for (int iteration = 0; is_moving && iteration < N_ITERATIONS; ++iteration) {
        int fastest = 0;
        for (int y = 0; y < ny; ++y) {
            const float *at = image_row(rows, y), *up = image_row(rows, max(y - 1, 0));
            const float* down = image_row(rows, min(y + 1, ny - 1));
            float *xx = tensor_row(rows, y, 0), *xy = tensor_row(rows, y, 1), *yy = tensor_row(rows, y, 2);
            make_tensor(up, at, down, a1[job], a2, edge_range, xx, xy, yy, nx, wide);
            fastest = speed_of_row(rows, y, fastest, ny);
        }
        for (int k = 0; k < n_smoothings; ++k) {
            if (fastest == 0) {  // Java: 0 * infinity = NaN everywhere, which ends as 0
                is_moving = false;
                break;
            }
            const double step = TIME_STEP / (double)__int_as_float(fastest) * step_range;
            fastest = 0;
            const bool is_last = k + 1 == n_smoothings;
            is_upwards = !is_upwards;
            for (int i = 0; i <= ny; ++i) {
                const int y = is_upwards ? ny - 1 - i : i, last = is_upwards ? y + 1 : y - 1;
                if (i < ny) {
                    move_row(image_row(rows, y), speed_row(rows, y), step, low, high, wide);
                    repeat_edges(image_row(rows, y), nx);
                }
                if (i > 0 && !is_last)
                    fastest = speed_of_row(rows, last, fastest, ny);
            }
        }
    }
    for (int y = 0; y < ny; ++y)
        for (int x = 0; x < nx; ++x) out[(size_t)y * nx + x] = is_moving ? cut_to_whole(image_row(rows, y)[x]) : 0.0f;
}
