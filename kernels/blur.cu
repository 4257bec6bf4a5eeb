// Gaussian blur with ImageJ's weights, one pass per axis.   Python: gpu_tomoclass/features/accelerated/blur.py
//
//   result[i] = v[i] w[0] + e[i] v[0] + e[n - 1 - i] v[n - 1]
//               + sum over k = 1 .. radius - 1 of (v[i - k] + v[i + k]) w[k]
//
// along a line v of n samples, added in this order in float32, nothing fused: as ImageJ does. Samples beyond the ends
// count as 0; e[i], the weight of all that lies further out than i, belongs to the end sample and is added within
// `radius` of the end. `weights` holds w, then e.
//
// Per pixel and pass 4 bytes read, 4 written, 3 (radius - 1) operations. blur_x keeps a piece of a row with its
// surroundings in shared memory, read once. Its result has rows of `pitch` pixels, of which blur_y may read more than
// nx: loads are whole lines without a check; caches serve them 2 radius - 1 times. A thread has PIXELS pixels at
// distances of LANES, so that a weight is loaded once for all, in a CPU's only thread (ONE_THREAD, LANES and ROWS 1)
// neighbours in vectors, whose sums stay in registers.
//
// Compile-time: LANES, ROWS (block), PIXELS, RUN (chunks of LANES * PIXELS pixels of a block: along x in blur_x, along
// y in blur_y).
#define CHUNK (LANES * PIXELS)
#define HALO 49  // largest radius - 1; features/accelerated/blur.py refuses more

// Where ImageJ starts to add the rest beyond the end: at n - radius it is of the size of rounding errors, and yet added
// where the start of the line is out of reach.
__device__ __forceinline__ int start_of_end(int n, int radius) {
    return n - radius >= min(radius, n) ? n - radius : max(0, n - radius + 1);
}

extern "C" __global__ void __launch_bounds__(LANES * ROWS)
blur_x(const float* __restrict__ image, const float* __restrict__ weights, float* __restrict__ result, int radius,
       int ny, int nx, int pitch) {
    __shared__ float tile[ROWS][RUN * CHUNK + 2 * HALO];
    const int lane = threadIdx.x, y = blockIdx.y * ROWS + threadIdx.y, reach = radius - 1;
    const int first = blockIdx.x * RUN * CHUNK, width = min(RUN * CHUNK, nx - first);
    const float* row = image + ((size_t)blockIdx.z * ny + min(y, ny - 1)) * nx;
    float* to = result + ((size_t)blockIdx.z * ny + y) * pitch;
    float* own = tile[threadIdx.y];

    // own[i] is sample first - reach + i; outside of the line there are zeros.
    const int low = max(0, reach - first), high = min(width + 2 * reach, nx - first + reach);
    for (int i = lane; i < low; i += LANES) own[i] = 0.0f;
    for (int i = low + lane; i < high; i += LANES) own[i] = row[first - reach + i];
    for (int i = high + lane; i < RUN * CHUNK + 2 * reach; i += LANES) own[i] = 0.0f;
    __syncthreads();
    if (y >= ny) return;

    const int near_start = min(radius, nx), near_end = start_of_end(nx, radius);
    const float* beyond = weights + radius;
    for (int x0 = first; x0 < first + width; x0 += CHUNK) {
        const float* centre = own + reach + (x0 - first) + lane;
        float sum[PIXELS];
        for (int i = 0; i < PIXELS; ++i) sum[i] = centre[i * LANES] * weights[0];
        if (x0 < near_start)
            for (int i = 0; i < PIXELS; ++i) {
                const int x = x0 + lane + i * LANES;
                if (x < near_start) sum[i] += beyond[x] * row[0];
            }
        if (x0 + CHUNK > near_end)
            for (int i = 0; i < PIXELS; ++i) {
                const int x = x0 + lane + i * LANES;
                if (x >= near_end && x < nx) sum[i] += beyond[nx - 1 - x] * row[nx - 1];
            }
        for (int k = 1; k < radius; ++k) {
            const float weight = weights[k];
            for (int i = 0; i < PIXELS; ++i) sum[i] += (centre[i * LANES - k] + centre[i * LANES + k]) * weight;
        }
        for (int i = 0; i < PIXELS; ++i) to[x0 + lane + i * LANES] = sum[i];
    }
}

extern "C" __global__ void __launch_bounds__(LANES * ROWS)
blur_y(const float* __restrict__ image, const float* __restrict__ weights, float* __restrict__ result, int radius,
       int ny, int nx, int pitch) {
    const int x0 = blockIdx.x * CHUNK + threadIdx.x;
    const float* columns = image + (size_t)blockIdx.z * ny * pitch + x0;
    const float* beyond = weights + radius;
    const int near_start = min(radius, ny), near_end = start_of_end(ny, radius);
    const int first = (blockIdx.y * ROWS + threadIdx.y) * RUN;
    for (int y = first; y < min(first + RUN, ny); ++y) {
        const float *centre = columns + (size_t)y * pitch, *end = columns + (size_t)(ny - 1) * pitch;
        float sum[PIXELS];
        for (int i = 0; i < PIXELS; ++i) sum[i] = centre[i * LANES] * weights[0];
        if (y < near_start)
            for (int i = 0; i < PIXELS; ++i) sum[i] += beyond[y] * columns[i * LANES];
        if (y >= near_end)
            for (int i = 0; i < PIXELS; ++i) sum[i] += beyond[ny - 1 - y] * end[i * LANES];
        const float *above = centre, *below = centre;
        const int n_above = min(radius, y + 1), n_below = min(radius, ny - y), n_both = min(n_above, n_below);
        int k = 1;
        for (; k < n_both; ++k) {
            const float weight = weights[k];
            above -= pitch;
            below += pitch;
            for (int i = 0; i < PIXELS; ++i) sum[i] += (above[i * LANES] + below[i * LANES]) * weight;
        }
        const int step = n_above > n_below ? -pitch : pitch;  // only one of the two samples exists, or none
        const float* other = centre + (ptrdiff_t)step * (k - 1);
        for (; k < max(n_above, n_below); ++k) {
            const float weight = weights[k];
            other += step;
            for (int i = 0; i < PIXELS; ++i) sum[i] += other[i * LANES] * weight;
        }
        float* to = result + ((size_t)blockIdx.z * ny + y) * nx;
        for (int i = 0; i < PIXELS; ++i)
            if (x0 + i * LANES < nx) to[x0 + i * LANES] = sum[i];
    }
}
