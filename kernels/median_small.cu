// Median over the smallest of ImageJ's disks: at most 29 pixels.   Python: gpu_tomoclass/features/accelerated/ranks.py
//
// Of n values, the least and the greatest of any n / 2 + 2 cannot be the median. So: take so many, drop those two, take the
// next value; the last one left is the median. Min and max of integers in registers, the same for every pixel:
// 9 pixels take 20 pairs of them, 21 pixels 95. Keys are the bits of the float32 values as integers in the same order.
// Reads each pixel of the disk from L1, writes 4 bytes per pixel.
//
// Compile-time: SQUARE: the disk is dx^2 + dy^2 <= SQUARE; HALF: dx and dy are at most that; COUNT: number of its pixels;
// TX, TY (block).
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#define FOR_EACH_THREAD_INSIDE(X, x0, nx, Y, y0, ny)          \
    const int X = (x0) + threadIdx.x, Y = (y0) + threadIdx.y; \
    if (X < (nx) && Y < (ny))
#define UNROLL _Pragma("unroll")
#endif
#define KEPT (COUNT / 2 + 2 < COUNT ? COUNT / 2 + 2 : COUNT)
#define SORT_TWO(a, b) { const int low_ = min(a, b), high_ = max(a, b); a = low_; b = high_; }

// padded: keys with a margin of at least half the disk.
extern "C" __global__ void __launch_bounds__(TX * TY)
median_small(const int* __restrict__ padded, float* __restrict__ result, int margin, int ny, int nx) {
    const int pitch = nx + 2 * margin;
    const int* plane = padded + (size_t)blockIdx.z * (ny + 2 * margin) * pitch + (size_t)margin * pitch + margin;
    float* to = result + (size_t)blockIdx.z * ny * nx;
    FOR_EACH_THREAD_INSIDE(x, blockIdx.x * TX, nx, y, blockIdx.y * TY, ny) {
        const int* pixel = plane + (size_t)y * pitch + x;
        int value[COUNT];
        int n = 0;
        UNROLL for (int dy = -HALF; dy <= HALF; ++dy)
            UNROLL for (int dx = -HALF; dx <= HALF; ++dx)
                if (dx * dx + dy * dy <= SQUARE) value[n++] = pixel[dy * pitch + dx];
        // value[first .. last - 1] are kept; the next one to take is value[last].
        UNROLL for (int first = 0; first <= COUNT - KEPT; ++first) {
            const int m = KEPT - first, half = m / 2;
            // The lesser of each pair to the front, the greater behind: the least is in the front half.
            UNROLL for (int i = 0; i < half; ++i) SORT_TWO(value[i], value[m - 1 - i])
            UNROLL for (int i = 1; i < m - half; ++i) SORT_TWO(value[0], value[i])
            UNROLL for (int i = half; i < m - 1; ++i) SORT_TWO(value[i], value[m - 1])
            // Both go: the next value in place of the least, the last kept one becomes the one before.
            if (first < COUNT - KEPT) value[0] = value[KEPT + first];
        }
        to[(size_t)y * nx + x] = __int_as_float(value[1] ^ (value[1] >> 31 & 0x7fffffff));
    }
}
