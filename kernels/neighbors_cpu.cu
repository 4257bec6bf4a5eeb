// The plane shifted to its eight neighbours, on a CPU; see neighbors.cu.   Python: gpu_tomoclass/features/accelerated/neighbors.py
//
// A block is a row, copied to each channel: all but `distance` pixels at its ends in one piece.
//
// Compile-time: ONE_THREAD.

__device__ __forceinline__ int mirrored(int i, int n) {
    i = i < 0 ? -i : i;
    return i >= n ? 2 * (n - 1) - i : i;
}

extern "C" __global__ void
neighbors_cpu(const float* __restrict__ image, float* __restrict__ result, int distance, int ny, int nx) {
    const size_t n_pixels = (size_t)ny * nx, channel = n_pixels * gridDim.z;
    const float* plane = image + blockIdx.z * n_pixels;
    float* to = result + blockIdx.z * n_pixels + (size_t)blockIdx.y * nx;
    const float missing = __int_as_float(0x7fc00000);
    for (int i = -1; i <= 1; ++i)
        for (int j = -1; j <= 1; ++j) {
            if (i == 0 && j == 0) continue;
            const int y = mirrored((int)blockIdx.y + j * distance, ny), shift = i * distance;
            const float* row = plane + (size_t)max(y, 0) * nx;
            // Where x + shift is inside of the plane.
            const int first = min(max(-shift, 0), nx), last = max(min(nx - shift, nx), first);
            const auto at = [&](int x) {
                const int from = mirrored(x + shift, nx);
                return from >= 0 && y >= 0 ? row[from] : missing;
            };
            for (int x = 0; x < first; ++x) to[x] = at(x);
            if (y >= 0) memcpy(to + first, row + first + shift, (last - first) * sizeof(float));
            else
                for (int x = first; x < last; ++x) to[x] = missing;
            for (int x = last; x < nx; ++x) to[x] = at(x);
            to += channel;
        }
}
