// The plane shifted to its eight neighbours at a distance.   Python: gpu_tomoclass/features/accelerated/neighbors.py
//
//   result[k, z, y, x] = image[z, m(y + dy_k d), m(x + dx_k d)]
//
// m mirrors at 0, then at the far edge, without repeating the edge pixel; where that still lies outside (planes of d
// pixels and less) the value is missing, NaN. Reads 8 x 4 bytes per pixel, of which caches serve all but the first,
// writes 32; a few integer operations each. Lanes along x: loads and stores are whole lines.
//
// Compile-time: TX, TY (block).
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#define UNROLL _Pragma("unroll")
#endif

__device__ __forceinline__ int mirrored(int i, int n) {
    i = i < 0 ? -i : i;
    return i >= n ? 2 * (n - 1) - i : i;
}

extern "C" __global__ void __launch_bounds__(TX * TY)
neighbors(const float* __restrict__ image, float* __restrict__ result, int distance, int ny, int nx) {
    const size_t n_pixels = (size_t)ny * nx, channel = n_pixels * gridDim.z;
    const float* plane = image + blockIdx.z * n_pixels;
    float* to = result + blockIdx.z * n_pixels;
    const float missing = __int_as_float(0x7fc00000);
    FOR_EACH_THREAD {
        const int x = blockIdx.x * TX + threadIdx.x, y = blockIdx.y * TY + threadIdx.y;
        if (x < nx && y < ny) {
            const int xs[3] = {mirrored(x - distance, nx), x, mirrored(x + distance, nx)};
            const int ys[3] = {mirrored(y - distance, ny), y, mirrored(y + distance, ny)};
            int k = 0;
            UNROLL for (int i = 0; i < 3; ++i)
                UNROLL for (int j = 0; j < 3; ++j) {
                    if (i == 1 && j == 1) continue;
                    const bool is_inside = xs[i] >= 0 && ys[j] >= 0;
                    to[k * channel + (size_t)y * nx + x] = is_inside ? plane[(size_t)ys[j] * nx + xs[i]] : missing;
                    ++k;
                }
        }
    }
}
