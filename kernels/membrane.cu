// Responses to lines in ten directions, and their projections.   Python: gpu_tomoclass/features/accelerated/membrane.py
//
//   r_i[z, y, x] = float(1 / n_i * sum over the n_i pixels (dy, dx) of line i of image[z, y + dy, x + dx])
//   result = mean, maximum, minimum, sum, standard deviation, median of r_0 .. r_9
//
// Edge pixels repeat. The pixels of a line are added in double, row by row, as in the reference: that order keeps every
// bit, also of images whose sums are not exact. About 380 additions per pixel for the usual patch of 19.
//
// `membrane_padded` writes the image as doubles with its edges repeated around it, so that each pixel of a line is one
// load at a distance that is the same for all pixels, for patches of any size; 8 bytes per pixel. `membrane` reads
// these (neighbouring lanes neighbouring pixels, nearly all from caches) and writes 24 bytes per pixel. On a GPU a
// thread has one pixel, with the ten responses in registers; on a CPU (ONE_THREAD) a block is a line of the plane, done
// in GROUPS vectors of LANES pixels at a time.
//
// Compile-time: TX, TY (block).
#ifndef UNROLL  // on a GPU; cuda_on_cpu.h has its own
#define UNROLL _Pragma("unroll")
#endif
#define DIRECTIONS 10
#define PROJECTIONS 6
#define THREADS (TX * TY)

#if defined(ONE_THREAD)
// Vectors of the width that this CPU has, in the notation of GCC and Clang: sums stay in registers along a line.
#define LANES (__BIGGEST_ALIGNMENT__ / 8)
#define GROUPS (LANES == 2 ? 4 : 32 / LANES)
#define EACH  // a loop that is left alone becomes vectors
typedef double Wide __attribute__((vector_size(LANES * sizeof(double))));
typedef float Narrow __attribute__((vector_size(LANES * sizeof(float))));
__device__ __forceinline__ Wide load(const double* from) {
    Wide values;
    memcpy(&values, from, sizeof values);
    return values;
}
__device__ __forceinline__ void round_to_float(Wide values, float* result) {
    const Narrow rounded = __builtin_convertvector(values, Narrow);
    memcpy(result, &rounded, sizeof rounded);
}
#else
#define LANES 1
#define GROUPS 1
#define EACH UNROLL
typedef double Wide;
__device__ __forceinline__ Wide load(const double* from) { return *from; }
__device__ __forceinline__ void round_to_float(Wide value, float* result) { *result = (float)value; }
#endif
#define PIXELS (GROUPS * LANES)  // of a thread at a time, beside each other

// padded: (nz, n_rows, pitch); pixel (y, x) of a plane is at (y + half, x + half).
extern "C" __global__ void __launch_bounds__(THREADS)
membrane_padded(const float* __restrict__ image, double* __restrict__ padded, int half, int n_rows, int pitch, int ny,
                int nx) {
    const int y = blockIdx.y * TY + threadIdx.y;
    if (y >= n_rows) return;
    const float* from = image + (blockIdx.z * (size_t)ny + min(max(y - half, 0), ny - 1)) * nx;
    double* to = padded + (blockIdx.z * (size_t)n_rows + y) * pitch;
    for (int x = blockIdx.x * TX + threadIdx.x; x < pitch; x += gridDim.x * TX)
        to[x] = from[min(max(x - half, 0), nx - 1)];
}

__device__ __forceinline__ void order(float& a, float& b) {
    const float smaller = b < a ? b : a, larger = b < a ? a : b;
    a = smaller;
    b = larger;
}

// ImageJ's projections of pixel p: mean, maximum, minimum, sum, sample standard deviation, median.
__device__ __forceinline__ void project(const float responses[DIRECTIONS][PIXELS], float result[PROJECTIONS][PIXELS],
                                        int p) {
    float response[DIRECTIONS];
    UNROLL for (int i = 0; i < DIRECTIONS; ++i) response[i] = responses[i][p];
    double total = 0.0, total_of_squares = 0.0;
    float sum = 0.0f, largest = response[0], smallest = response[0];
    UNROLL for (int i = 0; i < DIRECTIONS; ++i) {
        const double wide = response[i];
        total += wide;
        total_of_squares += wide * wide;
        sum += response[i];
        largest = response[i] > largest ? response[i] : largest;
        smallest = response[i] < smallest ? response[i] : smallest;
    }
    const double variance = (DIRECTIONS * total_of_squares - total * total) / DIRECTIONS;  // below 0 by rounding
    float a = response[0], b = response[1], c = response[2], d = response[3], e = response[4];
    float f = response[5], g = response[6], h = response[7], i = response[8], j = response[9];
    // The sorting network of 29 exchanges for ten values, without the last one, which the mean of the middle two does
    // not need; compilers drop what only the outer ones need.
    order(e, j), order(d, i), order(c, h), order(b, g), order(a, f);
    order(b, e), order(g, j), order(a, d), order(f, i);
    order(a, c), order(d, g), order(h, j);
    order(a, b), order(c, e), order(f, h), order(i, j);
    order(b, c), order(e, g), order(h, i), order(d, f);
    order(c, f), order(g, i), order(b, d), order(e, h);
    order(c, d), order(g, h);
    order(d, e), order(f, g);
    result[0][p] = (float)(total / DIRECTIONS);
    result[1][p] = largest;
    result[2][p] = smallest;
    result[3][p] = sum;
    result[4][p] = (float)sqrt((variance > 0.0 ? variance : 0.0) / (DIRECTIONS - 1));
    result[5][p] = (e + f) * 0.5f;
}

// distances: of the pixels of each line from the first pixel of the patch, in pixels of `padded`; those of line i are
// starts[i] .. starts[i + 1]. scales: 1 / n_i.
extern "C" __global__ void __launch_bounds__(THREADS, 8)
membrane(const double* __restrict__ padded, const int* __restrict__ distances, const int* __restrict__ starts,
         const double* __restrict__ scales, float* __restrict__ result, int n_rows, int pitch, int ny, int nx) {
    const size_t n_pixels = (size_t)ny * nx, step = n_pixels * gridDim.z;
    const int y = blockIdx.y * TY + threadIdx.y;
    if (y >= ny) return;
    for (int x = (blockIdx.x * TX + threadIdx.x) * PIXELS; x < nx; x += gridDim.x * TX * PIXELS) {
        const double* patch = padded + (blockIdx.z * (size_t)n_rows + y) * pitch + x;
        float responses[DIRECTIONS][PIXELS];
        EACH for (int i = 0; i < DIRECTIONS; ++i) {
            Wide sum[GROUPS] = {};
            const int stop = starts[i + 1];
            for (int k = starts[i]; k < stop; ++k) {
                const double* at = patch + distances[k];
                UNROLL for (int g = 0; g < GROUPS; ++g) sum[g] = sum[g] + load(at + g * LANES);
            }
            UNROLL for (int g = 0; g < GROUPS; ++g) round_to_float(sum[g] * scales[i], responses[i] + g * LANES);
        }
        float projections[PROJECTIONS][PIXELS];
        EACH for (int p = 0; p < PIXELS; ++p) project(responses, projections, p);
        float* to = result + blockIdx.z * n_pixels + (size_t)y * nx + x;
        const int n_here = min(PIXELS, nx - x);
        UNROLL for (int c = 0; c < PROJECTIONS; ++c)
            EACH for (int p = 0; p < n_here; ++p) to[c * step + p] = projections[c][p];
    }
}
