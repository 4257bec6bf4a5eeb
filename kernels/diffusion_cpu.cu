// Anisotropic diffusion on a CPU: a whole chain of steps per block; formulas in diffusion.cu.
// Python: gpu_tomoclass/features/accelerated/diffusion.py
//
// A block is a task of one CPU thread: one channel of one plane, all iterations. Its scratch holds, row by row, the image
// and its changes: for each LANES pixels their speed and the three parts of their tensor. So a step is one pass through
// memory in order: two rows move, then the speed of the two before them and the fastest of all follow while these rows
// are in the first cache. 28 bytes and about 40 operations per pixel and step. Rows are whole numbers of LANES; behind the
// plane's last column the tensor is 0.
//
// Sweeps go down and up in turns, so that what the second cache still holds is used first. All is written as vectors, with
// few operations in a chain or with several chains side by side, as a processor looks at some hundred instructions at a
// time. Roots and quotients are slow, one after the other, but beside other work: those of the next pixels are taken in
// the midst of polynomials. A slow divider is spared where products do: large / edge_range is brought to the bits that `/`
// gives by one residual, and the unit vector scaled by an inverse root within 2 units in the last place of double.
//
// Compile-time: ONE_THREAD.
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("prefer-vector-width=512")
#endif
#define LANES 16  // floats of the widest vectors
#define BEFORE LANES  // floats in front of a row of the image, for the repeated edge pixel; as many behind it
#define N_ITERATIONS 20
#define TIME_STEP 20.0
#define C1 0.14644660940672627f  // 0.25 (2 - sqrt 2)
#define C2 0.20710678118654757f  // 0.5 (sqrt 2 - 1)
typedef cuda_doubles Doubles;
typedef long long Longs __attribute__((vector_size(sizeof(Doubles))));
typedef float Halved __attribute__((vector_size(sizeof(Doubles) / 2)));  // as many floats as there are doubles
typedef float Floats __attribute__((vector_size(sizeof(Doubles))));
typedef int Ints __attribute__((vector_size(sizeof(Doubles))));
#define N_DOUBLES ((int)(sizeof(Doubles) / sizeof(double)))
#define N_FLOATS ((int)(sizeof(Floats) / sizeof(float)))

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
// For each LANES pixels SPEED, XX, XY and YY.
__device__ __forceinline__ float* changes_row(const Rows& rows, int y) { return image_row(rows, y) + rows.wide + LANES; }
#define XX LANES
#define XY (2 * LANES)
#define YY (3 * LANES)

__device__ __forceinline__ Doubles load(const double* from) {
    Doubles values;
    memcpy(&values, from, sizeof values);
    return values;
}
__device__ __forceinline__ Floats load(const float* from) {
    Floats values;
    memcpy(&values, from, sizeof values);
    return values;
}
__device__ __forceinline__ void store(double* to, Doubles values) { memcpy(to, &values, sizeof values); }
__device__ __forceinline__ void store(float* to, Floats values) { memcpy(to, &values, sizeof values); }
__device__ __forceinline__ void store(float* to, Halved values) { memcpy(to, &values, sizeof values); }
__device__ __forceinline__ Halved narrowed(Doubles values) { return __builtin_convertvector(values, Halved); }

__device__ __forceinline__ void repeat_edges(float* row, int nx) {
    row[-1] = row[0];
    row[nx] = row[nx - 1];
}

// image += step * speed within low..high, in double.
__device__ __forceinline__ void move_row(float* __restrict__ image, const float* __restrict__ changes, double step,
                                         float low, float high, int wide) {
    const Halved lowest = Halved{} + low, highest = Halved{} + high;
    for (int x = 0; x < wide; x += LANES, changes += 4 * LANES)
        UNROLL for (int i = 0; i < LANES; i += N_DOUBLES) {
            Halved moved = narrowed(cuda_widened(changes + i) * step + cuda_widened(image + x + i));
            moved = moved < lowest ? lowest : moved;
            store(image + x + i, moved > highest ? highest : moved);
        }
}

struct Three {  // pixels of a row with their neighbours
    Floats left, middle, right;
};
__device__ __forceinline__ Three three(const float* at) { return {load(at - 1), load(at), load(at + 1)}; }

// Trace of (tensor x Hessian).
__device__ __forceinline__ Floats speed_of(const Three& up, const Three& at, const Three& down, const float* changes) {
    const Floats twice = at.middle * 2.0f;
    Floats part = up.left + down.right - down.left - up.right;
    part = part * 0.5f * load(changes + XY);
    const Floats total = (at.right + at.left - twice) * load(changes + XX) + part;
    return total + (down.middle + up.middle - twice) * load(changes + YY);
}

__device__ __forceinline__ Ints larger(Ints most, Floats speed) {
    const Ints bits = (Ints)speed & 0x7fffffff;  // integers compare as the absolute values do
    return bits > most ? bits : most;
}
__device__ __forceinline__ int largest(Ints most) {
    int found = 0;
    for (int i = 0; i < N_FLOATS; ++i) found = max(found, most[i]);
    return found;
}

// Speed of a row; returns the bits of the largest absolute values, or of `most`, where that is more.
__device__ __forceinline__ Ints speed_of_row(const Rows& rows, int y, Ints most, int ny) {
    const float *at = image_row(rows, y), *up = image_row(rows, max(y - 1, 0));
    const float* down = image_row(rows, min(y + 1, ny - 1));
    float* __restrict__ changes = changes_row(rows, y);
    for (int x = 0; x < rows.wide; x += LANES, changes += 4 * LANES)
        UNROLL for (int i = 0; i < LANES; i += N_FLOATS) {
            const Floats speed = speed_of(three(up + x + i), three(at + x + i), three(down + x + i), changes + i);
            store(changes + i, speed);
            most = larger(most, speed);
        }
    return most;
}

// Of rows y and y + 1, whose pixels are loaded once for both: loads are what takes the time.
__device__ __forceinline__ Ints speed_of_two_rows(const Rows& rows, int y, Ints most, int ny) {
    const float *first = image_row(rows, y), *second = image_row(rows, y + 1);
    const float *up = image_row(rows, max(y - 1, 0)), *down = image_row(rows, min(y + 2, ny - 1));
    float* __restrict__ of_first = changes_row(rows, y);
    float* __restrict__ of_second = changes_row(rows, y + 1);
    for (int x = 0; x < rows.wide; x += LANES, of_first += 4 * LANES, of_second += 4 * LANES)
        UNROLL for (int i = 0; i < LANES; i += N_FLOATS) {
            Three a = three(first + x + i), b = three(second + x + i);
            KEEP_VECTOR(a.left);
            KEEP_VECTOR(a.middle);
            KEEP_VECTOR(a.right);
            KEEP_VECTOR(b.left);
            KEEP_VECTOR(b.middle);
            KEEP_VECTOR(b.right);
            const Floats speed_a = speed_of(three(up + x + i), a, b, of_first + i);
            const Floats speed_b = speed_of(a, b, three(down + x + i), of_second + i);
            store(of_first + i, speed_a);
            store(of_second + i, speed_b);
            most = larger(larger(most, speed_a), speed_b);
        }
    return most;
}

// ---- the tensor ----------------------------------------------------------------------------------------------------
#define PIECE 48  // pixels at a time
#define SIDE 6    // polynomials side by side, in as many registers as their arguments
#define ROOTS 3   // inverse roots side by side, each in three registers
struct Piece {
    float a[PIECE], b[PIECE], c[PIECE], base[PIECE];           // structure tensor (a, b; b, c)
    float uu[PIECE], uv[PIECE], vv[PIECE];                     // products of the unit vector along the edge
    float along[PIECE], across[PIECE];                         // base^-a1, base^-a2
    double trace[PIECE], determinant[PIECE], root[PIECE];      // root: of trace^2 - 4 determinant
    double small[PIECE], large[PIECE];                         // eigenvalues
    double rest[PIECE], steep[PIECE];                          // a - small, |b|
    double double_root[PIECE], inverse[PIECE];                 // of their squares, for Newton's method
    double whole[PIECE], below[PIECE], above[PIECE], part[PIECE], shifted[PIECE];  // of logarithms and powers
};

__device__ __forceinline__ Doubles all(double value) { return Doubles{} + value; }
__device__ __forceinline__ Doubles size_of(Doubles values) { return (Doubles)((Longs)values & 0x7fffffffffffffffll); }
__device__ __forceinline__ Doubles square_root(Doubles values) {
    for (int i = 0; i < N_DOUBLES; ++i) values[i] = sqrt(values[i]);
    return values;
}

// a / b as `/` rounds it, from a nearly exact 1 / b.
__device__ __forceinline__ Doubles quotient(Doubles a, Doubles b, Doubles inverse) {
    const Doubles q = a * inverse;
    return cuda_fused(cuda_fused(-q, b, a), inverse, q);
}

__device__ __forceinline__ void structure_piece(const float* up, const float* at, const float* down, Piece& p, int n) {
    INDEPENDENT for (int x = 0; x < n; ++x) {
        const float diagonal = C1 * (down[x + 1] - up[x - 1]), anti = C1 * (down[x - 1] - up[x + 1]);
        const float gx = diagonal - anti - C2 * at[x - 1] + C2 * at[x + 1];
        const float gy = diagonal + anti - C2 * up[x] + C2 * down[x];
        p.a[x] = gx * gx;
        p.b[x] = gx * gy;
        p.c[x] = gy * gy;
    }
    for (int i = 0; i < PIECE; i += N_DOUBLES) {
        const Doubles a = cuda_widened(p.a + i), b = cuda_widened(p.b + i), c = cuda_widened(p.c + i), trace = a + c;
        const Doubles determinant = cuda_fused(a, c, -(b * b));  // products of floats are exact in double
        store(p.trace + i, trace);
        store(p.determinant + i, determinant);
        store(p.root + i, cuda_fused(all(-4.0), determinant, trace * trace));
    }
}

// 1 / sqrt(x) within 2 units of the last place, for normal x > 0: a guess within 3.5 %, then Newton's method.
// The unit vector is (|b|, -rest) or (-b, |rest|) brought to length 1, and (1, 0) where both are 0.
__device__ __forceinline__ void guess_piece(Piece& p) {
    for (int i = 0; i < PIECE; i += N_DOUBLES) {
        const Doubles small = 0.5 * (load(p.trace + i) - load(p.root + i)), rest = cuda_widened(p.a + i) - small;
        const Doubles steep = size_of(cuda_widened(p.b + i)) + 1e-150;  // less than any last place of a product of floats
        const Doubles x = cuda_fused(steep, steep, rest * rest);
        const Doubles y = (Doubles)(0x5fe6eb50c7b537a9ll - ((Longs)x >> 1));
        store(p.small + i, small);
        store(p.rest + i, rest);
        store(p.steep + i, steep);
        store(p.double_root + i, x * (0.5 * y));
        store(p.inverse + i, y);
    }
}

__device__ __forceinline__ void inverse_piece(Piece& p) {
    for (int i = 0; i < PIECE; i += ROOTS * N_DOUBLES) {
        Doubles root[ROOTS], inverse[ROOTS], error[ROOTS];
        UNROLL for (int v = 0; v < ROOTS; ++v) {
            root[v] = load(p.double_root + i + v * N_DOUBLES);
            inverse[v] = load(p.inverse + i + v * N_DOUBLES);
        }
        UNROLL for (int k = 0; k < 4; ++k) {
            if (k < ROOTS) {  // beside it
                const int j = i + k * N_DOUBLES;
                const Doubles small = load(p.small + j);
                store(p.large + j, small != 0.0 ? load(p.determinant + j) / small : load(p.trace + j));
            }
            UNROLL for (int v = 0; v < ROOTS; ++v) error[v] = cuda_fused(-root[v], inverse[v], all(0.5));
            if (k < 3) UNROLL for (int v = 0; v < ROOTS; ++v) root[v] = cuda_fused(root[v], error[v], root[v]);
            UNROLL for (int v = 0; v < ROOTS; ++v) inverse[v] = cuda_fused(inverse[v], error[v], inverse[v]);
        }
        UNROLL for (int v = 0; v < ROOTS; ++v) store(p.inverse + i + v * N_DOUBLES, inverse[v]);
    }
}

// base = 1 + large / edge_range + small / edge_range. Of log2(base) = whole + part: the whole, and what the part is
// made of, s = (m - 1) / (m + 1), m within a factor sqrt 2 of 1.
__device__ __forceinline__ void base_piece(Piece& p, double edge_range, double inverse_range) {
    for (int i = 0; i < PIECE; i += N_DOUBLES) {
        const Doubles large = quotient(load(p.large + i), all(edge_range), all(inverse_range));
        const Doubles small = quotient(load(p.small + i), all(edge_range), all(inverse_range));
        store(p.base + i, 1.0f + narrowed(large) + narrowed(small));
    }
    for (int i = 0; i < PIECE; ++i) {
        const int bits = __float_as_int(p.base[i]), whole = (bits - 0x3f3504f3) >> 23;  // bits of sqrt 0.5
        const double m = (double)__int_as_float(bits - whole * (1 << 23));
        p.whole[i] = (double)whole;
        p.below[i] = m - 1.0;
        p.above[i] = m + 1.0;
    }
}

__device__ __forceinline__ void unit_piece(Piece& p) {
    for (int i = 0; i < PIECE; i += N_DOUBLES) {
        const Doubles rest = load(p.rest + i), inverse = load(p.inverse + i);
        const Longs is_turned = (Longs)(cuda_widened(p.b + i) * rest > 0.0);  // u v is negative
        const Doubles level = (Doubles)((Longs)size_of(rest) | (is_turned & (-0x7fffffffffffffffll - 1)));
        const Halved u = narrowed(load(p.steep + i) * inverse), v = narrowed(level * inverse);
        store(p.uu + i, u * u);
        store(p.vv + i, v * v);
        store(p.uv + i, u * v);
        store(p.part + i, load(p.below + i) / load(p.above + i));  // s, beside it
    }
}

// Polynomials in x, coefficients from the highest power on; `beside(k)` is done in their midst.
template <int N, class Beside>
__device__ __forceinline__ void polynomials(const double (&coefficients)[N], const Doubles (&x)[SIDE], Doubles (&y)[SIDE],
                                            Beside beside) {
    UNROLL for (int v = 0; v < SIDE; ++v) y[v] = cuda_fused(all(coefficients[0]), x[v], all(coefficients[1]));
    UNROLL for (int k = 2; k < N; ++k) {
        UNROLL for (int v = 0; v < SIDE; ++v) y[v] = cuda_fused(y[v], x[v], all(coefficients[k]));
        beside(k);
    }
}

// part = 2 artanh(s) / ln 2.
__device__ __forceinline__ void logarithm_piece(Piece& p) {
    static const double coefficients[] = {0.213658959211263,  0.22091308401429963, 0.26233435251228127,
                                          0.32059853491381096, 0.4121985858409019,  0.5770780163455203,
                                          0.9617966939259898,  2.8853900817779268};
    for (int i = 0; i < PIECE; i += SIDE * N_DOUBLES) {
        Doubles z[SIDE], y[SIDE];
        UNROLL for (int v = 0; v < SIDE; ++v) {
            const Doubles s = load(p.part + i + v * N_DOUBLES);
            z[v] = s * s;
        }
        polynomials(coefficients, z, y, [](int) {});
        UNROLL for (int v = 0; v < SIDE; ++v) {
            double* part = p.part + i + v * N_DOUBLES;
            store(part, y[v] * load(part));
        }
    }
}

// 2^(exponent * log2(base)) where log2(base) = whole + part; exponent has 24 bits, so exponent * whole is exact.
// Beside it square roots of half a piece.
__device__ __forceinline__ void power_piece(Piece& p, double exponent, float* power, double* roots) {
    static const double coefficients[] = {7.072585949269223e-09,  1.0208690299958306e-07, 1.321544258792169e-06,
                                          1.5252657260200837e-05, 0.0001540353044173605,  0.0013333558230164974,
                                          0.009618129107606888,   0.05550410866444772,    0.24022650695910097,
                                          0.69314718055995,       1.0};
    const double rounding = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves the nearest integer in the low bits
    for (int i = 0; i < PIECE; i += SIDE * N_DOUBLES) {
        Doubles x[SIDE], y[SIDE];
        UNROLL for (int v = 0; v < SIDE; ++v) {
            const int j = i + v * N_DOUBLES;
            const Doubles whole = load(p.whole + j), part = load(p.part + j);
            const Doubles shifted = cuda_fused(all(exponent), whole + part, all(rounding)), nearest = shifted - rounding;
            store(p.shifted + j, shifted);
            x[v] = cuda_fused(all(exponent), part, cuda_fused(all(exponent), whole, -nearest));
        }
        double* of_group = roots + i / 2;
        polynomials(coefficients, x, y, [=](int k) {
            if (k % 2 == 1 || k > SIDE) return;
            double* root = of_group + (k / 2 - 1) * N_DOUBLES;
            store(root, square_root(load(root)));
        });
        UNROLL for (int v = 0; v < SIDE; ++v) {
            const int j = i + v * N_DOUBLES;
            store(power + j, narrowed((Doubles)((Longs)y[v] + ((Longs)load(p.shifted + j) << 52))));
        }
    }
}

__device__ __forceinline__ void tensor_piece(const Piece& p, float* changes, int n) {
    for (int x = 0; x < n; x += LANES, changes += 4 * LANES)
        UNROLL for (int i = 0; i < LANES; i += N_FLOATS) {
            const Floats along = load(p.along + x + i), across = load(p.across + x + i);
            const Floats uu = load(p.uu + x + i), vv = load(p.vv + x + i);
            store(changes + i + XX, along * uu + across * vv);
            store(changes + i + XY, (along - across) * load(p.uv + x + i));
            store(changes + i + YY, along * vv + across * uu);
        }
}

// The last piece of a row ends with the row, and so overlaps the one before.
__device__ __forceinline__ void make_tensor(const float* up, const float* at, const float* down, double a1, double a2,
                                            double edge_range, float* changes, int nx, int wide) {
    __attribute__((aligned(64))) Piece p;
    const int n = min(PIECE, wide) & -LANES;  // the mask tells the compiler that vectors leave no rest
    for (int i = n; i < PIECE; ++i) p.a[i] = p.b[i] = p.c[i] = 0.0f;
    structure_piece(up, at, down, p, n);
    for (int i = 0; i < PIECE; i += N_DOUBLES) store(p.root + i, square_root(load(p.root + i)));
    for (int x = 0, next; x < wide; x = next) {
        next = x + n < wide ? min(x + n, wide - n) : wide;
        guess_piece(p);
        inverse_piece(p);
        base_piece(p, edge_range, 1.0 / edge_range);
        unit_piece(p);
        logarithm_piece(p);
        const int ahead = min(next, wide - n);
        structure_piece(up + ahead, at + ahead, down + ahead, p, n);
        power_piece(p, -a1, p.along, p.root);
        power_piece(p, -a2, p.across, p.root + PIECE / 2);
        tensor_piece(p, changes + 4 * x, n);
    }
    for (int x = nx; x < wide; ++x) {
        float* behind = changes + x / LANES * (4 * LANES) + x % LANES;
        behind[XX] = behind[XY] = behind[YY] = 0.0f;
    }
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
        Ints most{};
        for (int y = 0; y < ny; ++y) {
            const float *at = image_row(rows, y), *up = image_row(rows, max(y - 1, 0));
            const float* down = image_row(rows, min(y + 1, ny - 1));
            make_tensor(up, at, down, a1[job], a2, edge_range, changes_row(rows, y), nx, wide);
            most = speed_of_row(rows, y, most, ny);
        }
        for (int k = 0; k < n_smoothings; ++k) {
            const int fastest = largest(most);
            if (fastest == 0) {  // Java: 0 * infinity = NaN everywhere, which ends as 0
                is_moving = false;
                break;
            }
            const double step = TIME_STEP / (double)__int_as_float(fastest) * step_range;
            most = Ints{};
            const bool is_last = k + 1 == n_smoothings;
            is_upwards = !is_upwards;
            for (int n_moved = 0, n_fast = 0; n_moved < ny;) {  // rows in the order of the sweep
                for (const int stop = min(n_moved + 2, ny); n_moved < stop; ++n_moved) {
                    const int y = is_upwards ? ny - 1 - n_moved : n_moved;
                    move_row(image_row(rows, y), changes_row(rows, y), step, low, high, wide);
                    repeat_edges(image_row(rows, y), nx);
                }
                for (const int n_ready = is_last ? 0 : n_moved < ny ? n_moved - 1 : ny; n_fast < n_ready;) {
                    const int n = min(2, n_ready - n_fast), y = is_upwards ? ny - n_fast - n : n_fast;
                    most = n == 2 ? speed_of_two_rows(rows, y, most, ny) : speed_of_row(rows, y, most, ny);
                    n_fast += n;
                }
            }
        }
    }
    for (int y = 0; y < ny; ++y)
        for (int x = 0; x < nx; ++x) out[(size_t)y * nx + x] = is_moving ? cut_to_whole(image_row(rows, y)[x]) : 0.0f;
}
