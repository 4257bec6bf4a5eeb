// Absolute eigenvalues of symmetric 3 x 3 matrices, and the sums of derivatives that need none.
// Python: gpu_tomoclass/features/accelerated/volume_derivatives.py; formulas in
// gpu_tomoclass/features/reference/volume_eigenvalues.py.
//
//   volume_eigenvalues   (xx, xy, xz, yy, yz, zz) -> largest, middle, smallest        36 bytes per voxel
//   volume_laplacian     (zz + yy) + xx                                               16
//   volume_edges         sqrt(x^2 + y^2 + z^2)                                        16
//   volume_product       a b                                                          12
//
// All in double as the reference does. Arc cosine and cosine are polynomials in fma, within 1e-16 of the true ones, so
// that a CPU, the PTX and a GPU agree in every bit and with the reference but for one float32 in 10^7. For the arc cosine of
// t, with s = |t| or, above 1/2, sqrt((1 - |t|) / 2):  asin s = s + s z R(z), z = s^2 <= 1/4. The three angles lie within
// 0..pi/3, 2 pi/3..pi and -2 pi/3..-pi/3 and are brought to within pi/3 of 0 by symmetry.
//
// Compile-time: THREADS (block).
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#endif
#define PI 3.141592653589793
#define HALF_PI 1.5707963267948966
#define PI_REST 1.2246467991473532e-16  // what PI lacks

#define START ((long long)blockIdx.x * THREADS)
#define IS_FULL (START + THREADS <= n)  // then a CPU needs no test for the end, and turns the block into vectors
#define VOXEL (START + (int)threadIdx.x)

__device__ __forceinline__ double arc_cosine(double t) {
    const double size = fabs(t);
    const bool is_big = size > 0.5;
    const double z = is_big ? 0.5 * (1.0 - size) : size * size, s = is_big ? sqrt(z) : size;
    double r = 0.029174802228138497;
    r = fma(r, z, -0.01842778513574747);
    r = fma(r, z, 0.018877838184919962);
    r = fma(r, z, 0.0033766513114790297);
    r = fma(r, z, 0.009212885048245235);
    r = fma(r, z, 0.009645503313550432);
    r = fma(r, z, 0.011562753318318573);
    r = fma(r, z, 0.013964192613993807);
    r = fma(r, z, 0.017352784165455305);
    r = fma(r, z, 0.02237215919170921);
    r = fma(r, z, 0.030381944413414737);
    r = fma(r, z, 0.044642857143894696);
    r = fma(r, z, 0.0749999999999859);
    r = fma(r, z, 0.16666666666666674);
    const double arc = fma(s * z, r, s);  // sine: s
    const double twice = 2.0 * arc, other = PI - twice;
    const double of_big = t < 0.0 ? other : twice, of_small = HALF_PI - (t < 0.0 ? -arc : arc);
    return is_big ? of_big : of_small;
}

// For angles within 0..pi/3.
__device__ __forceinline__ double cosine(double angle) {
    const double v = angle * angle;
    double p = 4.110317623312165e-19;  // 1/20!, with signs from here on
    p = fma(p, v, -1.5619206968586225e-16);
    p = fma(p, v, 4.779477332387385e-14);
    p = fma(p, v, -1.1470745597729725e-11);
    p = fma(p, v, 2.08767569878681e-09);
    p = fma(p, v, -2.755731922398589e-07);
    p = fma(p, v, 2.48015873015873e-05);
    p = fma(p, v, -0.001388888888888889);
    p = fma(p, v, 0.041666666666666664);
    return fma(v * v, p, fma(-0.5, v, 1.0));
}

// For angles within -pi/6..pi/6.
__device__ __forceinline__ double sine(double angle) {
    const double v = angle * angle;
    double p = 2.8114572543455206e-15;  // 1/17!
    p = fma(p, v, -7.647163731819816e-13);
    p = fma(p, v, 1.6059043836821613e-10);
    p = fma(p, v, -2.505210838544172e-08);
    p = fma(p, v, 2.7557319223985893e-06);
    p = fma(p, v, -0.0001984126984126984);
    p = fma(p, v, 0.008333333333333333);
    p = fma(p, v, -0.16666666666666666);
    return fma(angle * v, p, angle);
}

struct Three {
    double largest, middle, smallest;
};

__device__ __forceinline__ Three absolute_eigenvalues(double xx, double xy, double xz, double yy, double yz, double zz) {
    const double a = -(xx + yy + zz);
    const double b = xx * yy + xx * zz + yy * zz - xy * xy - xz * xz - yz * yz;
    const double c = xx * (yz * yz - yy * zz) + yy * xz * xz + zz * xy * xy - 2.0 * xy * xz * yz;
    const double q = (a * a - 3.0 * b) / 9.0, r = (a * a * a - 4.5 * a * b + 13.5 * c) / 27.0;
    const double w = sqrt(q > 0.0 ? q : 0.0), cube = w * w * w;
    double t = r / (cube == 0.0 ? 1.0 : cube);
    t = t < -1.0 ? -1.0 : t;
    t = t > 1.0 ? 1.0 : t;
    const double phi = arc_cosine(t), third = a / 3.0, twice = -2.0 * w;
    const double second = (PI - (phi + 2.0 * PI) / 3.0) + PI_REST, minus = fabs((phi - 2.0 * PI) / 3.0);
    const double e = fabs(twice * cosine(phi / 3.0) - third);
    const double f = fabs(twice * -cosine(second) - third);
    const double g = fabs(twice * sine((HALF_PI - minus) + 0.5 * PI_REST) - third);
    const double high = e > f ? e : f, low = e > f ? f : e;
    const double rest = high < g ? high : g;
    const double share = cube == 0.0 ? 0.0 : 1.0;
    Three three;
    three.largest = share * (high < g ? g : high);
    three.middle = share * (rest > low ? rest : low);
    three.smallest = share * (rest > low ? low : rest);
    return three;
}

__device__ __forceinline__ void eigenvalues_at(const float* entries, float* result, long long n, long long i) {
    const Three three = absolute_eigenvalues(entries[i], entries[n + i], entries[2 * n + i], entries[3 * n + i],
                                             entries[4 * n + i], entries[5 * n + i]);
    result[i] = (float)three.largest;
    result[n + i] = (float)three.middle;
    result[2 * n + i] = (float)three.smallest;
}

// entries: (6, n); result: (3, n).
extern "C" __global__ void __launch_bounds__(THREADS)
volume_eigenvalues(const float* __restrict__ entries, float* __restrict__ result, long long n) {
    if (IS_FULL) {
        FOR_EACH_THREAD { eigenvalues_at(entries, result, n, VOXEL); }
    } else {
        FOR_EACH_THREAD {
            if (VOXEL < n) eigenvalues_at(entries, result, n, VOXEL);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
volume_laplacian(const float* __restrict__ xx, const float* __restrict__ yy, const float* __restrict__ zz,
                 float* __restrict__ result, long long n) {
    if (IS_FULL) {
        FOR_EACH_THREAD { result[VOXEL] = (zz[VOXEL] + yy[VOXEL]) + xx[VOXEL]; }
    } else {
        FOR_EACH_THREAD {
            if (VOXEL < n) result[VOXEL] = (zz[VOXEL] + yy[VOXEL]) + xx[VOXEL];
        }
    }
}

__device__ __forceinline__ float length(double x, double y, double z) { return (float)sqrt(x * x + y * y + z * z); }

// Components of the gradient.
extern "C" __global__ void __launch_bounds__(THREADS)
volume_edges(const float* __restrict__ gx, const float* __restrict__ gy, const float* __restrict__ gz,
             float* __restrict__ result, long long n) {
    if (IS_FULL) {
        FOR_EACH_THREAD { result[VOXEL] = length(gx[VOXEL], gy[VOXEL], gz[VOXEL]); }
    } else {
        FOR_EACH_THREAD {
            if (VOXEL < n) result[VOXEL] = length(gx[VOXEL], gy[VOXEL], gz[VOXEL]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
volume_product(const float* a, const float* b, float* __restrict__ result, long long n) {
    if (IS_FULL) {
        FOR_EACH_THREAD { result[VOXEL] = a[VOXEL] * b[VOXEL]; }
    } else {
        FOR_EACH_THREAD {
            if (VOXEL < n) result[VOXEL] = a[VOXEL] * b[VOXEL];
        }
    }
}
