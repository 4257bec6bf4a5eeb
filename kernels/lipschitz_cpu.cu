// How far 8-bit planes lie below their Lipschitz cover, on a CPU; see lipschitz.cu.
// Python: gpu_tomoclass/features/accelerated/lipschitz.py
//
// A block is one task of a CPU thread: one plane and one slope. Each row first takes what the row above demands, many
// pixels at a time, then runs along itself, one pixel after the other.
//
// Compile-time: ONE_THREAD.

// Raises a row of n pixels to what the row above demands. At the ends, the neighbour outside is replaced by the pixel
// above, which demands less across a diagonal than straight down.
__device__ void take_from_above(const unsigned char* start, const unsigned char* above, unsigned char* row, int slope,
                                int diagonal, int n) {
    for (int x = 0; x < n; x += max(1, n - 1)) {
        const int beside = max(above[max(x - 1, 0)], above[min(x + 1, n - 1)]);
        row[x] = (unsigned char)max((int)start[x], max(above[x] - slope, beside - diagonal));
    }
    for (int x = 1; x < n - 1; ++x) {
        const int beside = above[x - 1] > above[x + 1] ? above[x - 1] : above[x + 1];
        const int straight = above[x] - slope, across = beside - diagonal;
        const int wanted = straight > across ? straight : across;
        row[x] = (unsigned char)(wanted > start[x] ? wanted : start[x]);
    }
}

extern "C" __global__ void
lipschitz_cpu(const unsigned char* __restrict__ grey, const int* __restrict__ steps,
              unsigned char* __restrict__ cover, float* __restrict__ result, int ny, int nx) {
    const int slope = steps[2 * blockIdx.x], diagonal = steps[2 * blockIdx.x + 1];
    const size_t n_pixels = (size_t)ny * nx;
    const unsigned char* plane = grey + blockIdx.y * n_pixels;
    const size_t own = (blockIdx.x * (size_t)gridDim.y + blockIdx.y) * n_pixels;
    unsigned char* swept = cover + own;
    float* to = result + own;
    for (int y = 0; y < ny; ++y) {
        const unsigned char* start = plane + (size_t)y * nx;
        unsigned char* row = swept + (size_t)y * nx;
        if (y == 0)
            for (int x = 0; x < nx; ++x) row[x] = start[x];
        else
            take_from_above(start, row - nx, row, slope, diagonal, nx);
        int value = 0;
        for (int x = 0; x < nx; ++x) {
            value = max((int)row[x], value - slope);
            row[x] = (unsigned char)value;
        }
    }
    for (int y = ny - 1; y >= 0; --y) {
        unsigned char* row = swept + (size_t)y * nx;
        if (y < ny - 1) take_from_above(row, row + nx, row, slope, diagonal, nx);
        int value = 0;
        for (int x = nx - 1; x >= 0; --x) {
            value = max((int)row[x], value - slope);
            row[x] = (unsigned char)value;
        }
        for (int x = 0; x < nx; ++x) to[(size_t)y * nx + x] = (float)(plane[(size_t)y * nx + x] - row[x] + 255);
    }
}
