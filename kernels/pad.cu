// A plane with a margin on all sides, so that windows need no bounds checks.   Python: gpu_tomoclass/features/accelerated/ranks.py
//
//   result[y, x] = f(image[clamp(y - margin), clamp(x - margin)])
//
// f(v) = v; with KEYS the bits of v as an integer of the same order (its own inverse, see disk_extremes.cu). With OUTSIDE,
// pixels outside of the plane get that value instead of the nearest pixel's. Reads and writes each pixel once.
//
// Compile-time: INPUT, OUTPUT (types), KEYS or OUTSIDE (optional), TX, TY (block).
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#endif

extern "C" __global__ void __launch_bounds__(TX * TY)
pad(const INPUT* __restrict__ image, OUTPUT* __restrict__ result, int margin, int ny, int nx) {
    const int pitch = nx + 2 * margin, height = ny + 2 * margin;
    const INPUT* from = image + blockIdx.z * (size_t)ny * nx;
    OUTPUT* to = result + blockIdx.z * (size_t)height * pitch;
    FOR_EACH_THREAD {
        const int x = blockIdx.x * TX + threadIdx.x, y = blockIdx.y * TY + threadIdx.y;
        if (x < pitch && y < height) {
            const int from_x = min(max(x - margin, 0), nx - 1), from_y = min(max(y - margin, 0), ny - 1);
            const INPUT value = from[(size_t)from_y * nx + from_x];
#if defined(KEYS)
            const int bits = __float_as_int(value);
            to[(size_t)y * pitch + x] = bits ^ (bits >> 31 & 0x7fffffff);
#elif defined(OUTSIDE)
            const bool is_inside = from_x == x - margin && from_y == y - margin;
            to[(size_t)y * pitch + x] = is_inside ? (OUTPUT)value : (OUTPUT)OUTSIDE;
#else
            to[(size_t)y * pitch + x] = value;
#endif
        }
    }
}
