// What anisotropic diffusion asks of a plane first.   Python: gpu_tomoclass/features/accelerated/diffusion.py
//
//   limits[z] = minimum, maximum, standard deviation (divided by n) of the plane cut to whole numbers
//
// The squares are added one by one in double, from the last column to the first and each column upwards: the order is
// part of the definition, as the time step hangs on every bit. So one block has a plane. The sum for the mean is one of
// integers, exact in any order. Reads 8 bytes per pixel.
//
// As long as the sum keeps its exponent it is a multiple of its last place, and adding a square adds that square rounded to
// whole last places, in any order; unless the square lies in the middle between two of them, where the sum's last bit
// decides. So threads round the squares of a chunk and add integers; chunks with such a middle, or at whose end the sum has
// another exponent, are added by one thread one by one: those that double the sum, a few at the beginning. The chunk is kept
// in shared memory for that. A CPU adds one by one.
//
// Compile-time: THREADS (a power of two, whole warps; 1 on a CPU), CHUNK.
#define MANY (1ull << 62)  // last places: more than the sum can have
__device__ __forceinline__ float cut_to_whole(float value) {  // as Java casts to int: NaN is 0
    const float limited = fminf(fmaxf(value, -2147483648.0f), 2147483648.0f);
    return value == value ? truncf(limited) : 0.0f;
}

extern "C" __global__ void __launch_bounds__(THREADS)
diffusion_start(const float* __restrict__ image, double* __restrict__ limits, int ny, int nx) {
    __shared__ double chunk[CHUNK];
    __shared__ double sums[THREADS];
#if THREADS > 1
    __shared__ unsigned long long of_warps[2][THREADS / 32];
#endif
    __shared__ float lows[THREADS], highs[THREADS];
    const long long n_pixels = (long long)ny * nx;
    const float* plane = image + blockIdx.x * (size_t)n_pixels;
    const int lane = threadIdx.x;
    float low = __int_as_float(0x7f800000), high = -low;
    double sum = 0.0;
    for (long long i = lane; i < n_pixels; i += THREADS) {
        const float value = cut_to_whole(plane[i]);
        low = value < low ? value : low;
        high = value > high ? value : high;
        sum += (double)value;
    }
    lows[lane] = low;
    highs[lane] = high;
    sums[lane] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half) {
            lows[lane] = fminf(lows[lane], lows[lane + half]);
            highs[lane] = fmaxf(highs[lane], highs[lane + half]);
            sums[lane] += sums[lane + half];
        }
    }
    __syncthreads();
    const double mean = sums[0] / (double)n_pixels;
    double squares = 0.0;
    int x = nx - 1 - lane / ny, y = ny - 1 - lane % ny;  // of this thread's next pixel
    for (long long first = 0; first < n_pixels; first += CHUNK) {
        const int n = (int)min((long long)CHUNK, n_pixels - first);
#if THREADS > 1
        const int exponent = (int)(__double_as_longlong(squares) >> 52);  // 0 as long as the sum is 0
        unsigned long long places = 0;
        int is_uneven = 0;
#endif
        for (int i = lane; i < n; i += THREADS) {
            const double from_mean = (double)cut_to_whole(plane[(size_t)y * nx + x]) - mean;
            const double square = from_mean * from_mean;
            chunk[i] = square;
            for (y -= THREADS; y < 0; y += ny) --x;
#if THREADS > 1
            const unsigned long long bits = (unsigned long long)__double_as_longlong(square);
            const int shift = exponent - (int)(bits >> 52);
            const unsigned long long digits = (bits & 0xfffffffffffffull) | 0x10000000000000ull;
            if (bits != 0) {
                if (shift < 1) is_uneven = 1;  // it is as large as the sum, which is doubled
                else if (shift < 54) {
                    const unsigned long long half = 1ull << (shift - 1), rest = digits & (2 * half - 1);
                    if (rest == half) is_uneven = 1;
                    places += (digits >> shift) + (rest > half);
                }
            }
#endif
        }
#if THREADS > 1
        if (is_uneven) places = MANY;
        for (int half = 16; half > 0; half /= 2) places = min(places + __shfl_xor_sync(0xffffffffu, places, half), MANY);
        unsigned long long* counts = of_warps[first / CHUNK % 2];  // some threads still read those of the chunk before
        if (lane % 32 == 0) counts[lane / 32] = places;
        __syncthreads();
        unsigned long long digits = (unsigned long long)__double_as_longlong(squares) & 0xfffffffffffffull;
        for (int i = 0; i < THREADS / 32; ++i) digits = min(digits + counts[i], MANY);
        if (digits >> 52 == 0) {  // the exponent stays; a sum of 0 stays 0, as a square would be as large
            squares = __longlong_as_double((long long)exponent << 52 | (long long)digits);
            continue;
        }
        if (lane == 0) {
            for (int i = 0; i < n; ++i) squares += chunk[i];
            sums[0] = squares;
        }
        __syncthreads();
        squares = sums[0];
#else
        for (int i = 0; i < n; ++i) squares += chunk[i];
#endif
    }
    if (lane == 0) {
        limits[blockIdx.x * 3 + 0] = (double)lows[0];
        limits[blockIdx.x * 3 + 1] = (double)highs[0];
        limits[blockIdx.x * 3 + 2] = sqrt(squares / (double)n_pixels);
    }
}
