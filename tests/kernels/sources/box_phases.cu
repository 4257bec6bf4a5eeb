// Mean over (2 RADIUS + 1)^2 pixels, edge pixels repeated, through a tile in shared memory; barriers between phases.
// BUG 1 removes the first barrier, 2 the second, 3 reads the tile transposed, 4 drops the bounds check of the store,
// 5 makes the tile one row too short, 6 returns before a barrier in some threads.
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#define UNROLL _Pragma("unroll")
#endif
#ifndef BUG
#define BUG 0
#endif
#define WIDE (TX + 2 * RADIUS)
#define HIGH (TY + 2 * RADIUS)

extern "C" __global__ void __launch_bounds__(TX * TY)
box(const float* __restrict__ values, float* __restrict__ mean, int ny, int nx) {
    __shared__ float tile[HIGH - (BUG == 5)][WIDE];
    __shared__ float rows[HIGH][TX];
    const int x0 = blockIdx.x * TX, y0 = blockIdx.y * TY;
#if BUG == 6
    if (x0 + (int)threadIdx.x >= nx) return;
#endif
    FOR_EACH_THREAD {
        for (int j = threadIdx.y; j < HIGH; j += TY)
            for (int i = threadIdx.x; i < WIDE; i += TX) {
                const int y = min(max(y0 + j - RADIUS, 0), ny - 1), x = min(max(x0 + i - RADIUS, 0), nx - 1);
                tile[j][i] = values[(size_t)y * nx + x];
            }
    }
#if BUG != 1
    __syncthreads();
#endif
    FOR_EACH_THREAD {
        for (int j = threadIdx.y; j < HIGH; j += TY) {
            float sum = 0.0f;
            UNROLL for (int k = 0; k <= 2 * RADIUS; ++k) sum += tile[j][threadIdx.x + k];
            rows[j][threadIdx.x] = sum;
        }
    }
#if BUG != 2
    __syncthreads();
#endif
    FOR_EACH_THREAD {
        float sum = 0.0f;
        UNROLL for (int k = 0; k <= 2 * RADIUS; ++k) sum += rows[threadIdx.y + k][threadIdx.x];
        const int x = x0 + (int)threadIdx.x, y = y0 + (int)threadIdx.y;
        const size_t at = BUG == 3 ? (size_t)x * nx + y : (size_t)y * nx + x;
        if (BUG == 4 || (x < nx && y < ny)) mean[at] = sum * (1.0f / ((2 * RADIUS + 1) * (2 * RADIUS + 1)));
    }
}
