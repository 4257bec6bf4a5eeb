// How far 8-bit planes lie below their Lipschitz cover.   Python: gpu_tomoclass/features/accelerated/lipschitz.py
//
//   cover(p) = max over q of grey(q) - cost(p, q),   result = 255 + grey - cover
//
// cost: a step along a row or column costs `slope`, a diagonal one int(slope sqrt(2)). As in the reference, two sweeps
// over rows: down with steps to the right, up with steps to the left. All numbers are whole, so any order gives the
// same. (The reference also takes the first row as the row above itself: diagonal steps within a row, which cost no
// less than straight ones, so they change nothing and are left out.)
//
// A block has one plane and one slope and goes from row to row; thread t holds PIXELS neighbours, from x = t PIXELS on.
// The steps along a row are a running maximum that loses `slope` per pixel: within threads, then within warps by
// shuffles, then between warps through shared memory; a carried value has gone after 255 / slope pixels. One barrier
// per row. Per pixel and slope: 3 bytes read, 1 + 4 written; per row and sweep about 160 instructions with one pixel a
// thread.
//
// `grey` and `cover` are not __restrict__: NVRTC (13.5) then takes the choice between them for the constant one and reads
// what the first sweep wrote through the cache that does not see writes (ld.global.nc), wherever PIXELS > 1.
//
// Compile-time: THREADS (a multiple of 32), PIXELS.
#ifndef UNROLL
#define UNROLL _Pragma("unroll")
#endif
#define WARPS (THREADS / 32)
#define ALL 0xffffffffu
#define HIGHEST 255

extern "C" __global__ void __launch_bounds__(THREADS)
lipschitz(const unsigned char* grey, const int* __restrict__ steps, unsigned char* cover, float* __restrict__ result,
          int ny, int nx) {
    __shared__ int firsts[2][WARPS], lasts[2][WARPS];  // of the warps, before other warps count; rows in turn
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, x0 = (int)threadIdx.x * PIXELS;
    const int slope = steps[2 * blockIdx.x], diagonal = steps[2 * blockIdx.x + 1];
    const size_t n_pixels = (size_t)ny * nx;
    const unsigned char* plane = grey + blockIdx.y * n_pixels;
    const size_t own = (blockIdx.x * (size_t)gridDim.y + blockIdx.y) * n_pixels;
    unsigned char* swept = cover + own;  // what the first sweep leaves to the second
    float* to = result + own;

    for (int is_second = 0; is_second < 2; ++is_second) {
        const unsigned char* from = is_second ? swept : plane;
        // The second sweep sees the plane from its other end.
        const long long end = is_second ? (long long)n_pixels - 1 : 0, step = is_second ? -1 : 1;
        int above[PIXELS], next[PIXELS];
        UNROLL for (int i = 0; i < PIXELS; ++i) {
            above[i] = 0;
            next[i] = x0 + i < nx ? from[end + step * (x0 + i)] : 0;
        }
        int above_left = 0, above_right = 0;  // of the first lane and of the last one
        for (int y = 0; y < ny; ++y) {
            const long long row = (long long)y * nx + x0;
            int value[PIXELS];
            UNROLL for (int i = 0; i < PIXELS; ++i) {
                value[i] = next[i];
                next[i] = y + 1 < ny && x0 + i < nx ? from[end + step * (row + nx + i)] : 0;  // arrives meanwhile
            }
            const int from_left = __shfl_up_sync(ALL, above[PIXELS - 1], 1);
            const int from_right = __shfl_down_sync(ALL, above[0], 1);
            const int left = lane == 0 ? above_left : from_left, right = lane == 31 ? above_right : from_right;
            UNROLL for (int i = 0; i < PIXELS; ++i) {
                const int beside = max(i == 0 ? left : above[i - 1], i == PIXELS - 1 ? right : above[i + 1]);
                value[i] = max(value[i], max(above[i] - slope, beside - diagonal));
            }
            UNROLL for (int i = 1; i < PIXELS; ++i) value[i] = max(value[i], value[i - 1] - slope);
            int last = value[PIXELS - 1];
            for (int reach = 1; reach < 32 && reach * PIXELS * slope < HIGHEST; reach *= 2) {
                const int other = __shfl_up_sync(ALL, last, reach);
                if (lane >= reach) last = max(last, other - reach * PIXELS * slope);
            }
            const int turn = y & 1;
            if (lane == 0) firsts[turn][warp] = value[0];
            if (lane == 31) lasts[turn][warp] = last;
            const int other = __shfl_up_sync(ALL, last, 1);
            __syncthreads();
            int carried = 0;  // the pixel before the warp's first
            for (int w = warp - 1, cost = 0; w >= 0 && cost < HIGHEST; --w, cost += 32 * PIXELS * slope)
                carried = max(carried, lasts[turn][w] - cost);
            const int before = max(lane == 0 ? 0 : other, carried - lane * PIXELS * slope);
            UNROLL for (int i = 0; i < PIXELS; ++i) {
                const bool is_inside = x0 + i < nx;
                value[i] = max(value[i], before - (i + 1) * slope);
                above[i] = is_inside ? value[i] : 0;
                if (!is_inside) continue;
                const long long at = end + step * (row + i);
                if (is_second) to[at] = (float)(plane[at] - value[i] + HIGHEST);
                else swept[at] = (unsigned char)value[i];
            }
            above_left = carried;
            above_right = warp + 1 < WARPS ? max(firsts[turn][warp + 1], value[PIXELS - 1] - slope) : 0;
        }
        __syncthreads();  // the other sweep reads what other threads wrote, and begins with turn 0 again
    }
}
