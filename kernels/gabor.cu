// Responses of Gabor kernels of 10 angles.   Python: gpu_tomoclass/features/accelerated/gabor.py
//
//   response[angle, y, x] = sum over j, i of kernel[angle, j, i] plane[y - j, x - i]      |i|, |j| <= REACH
//
// A kernel is even about its centre (phase 0) or odd (phase 2), and that of 180 degrees - angle is the mirror image. So
// the four pixels (+-dx, +-dy) are added and subtracted once for all angles: s = row[dy] + row[-dy], d = row[dy] -
// row[-dy], then
//   phase 0: even = s[dx] + s[-dx], odd = d[dx] - d[-dx];   phase 2: even = d[dx] + d[-dx], odd = s[dx] - s[-dx]
// (even and odd in x), and 10 sums of products give 10 angles: E + O at an angle, E - O at its mirror image. Per pixel
// and bank 10 (REACH + 1)^2 fmaf and 6 (REACH + 1)^2 additions; taps, [dy][dx][10], are the same for all threads. A
// thread has PIXELS neighbours in x, whose s and d it keeps in registers; the rows come from a tile in shared memory.
// Per pixel 4 bytes (and the tile's edges) are read and 40 written. Sums of responses and of their squares are float32
// within a block and double beyond it.
//
// Compile-time: REACH, PHASE, TX, TY (block), PIXELS (4), MARGIN (of the padded plane).
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#define UNROLL _Pragma("unroll")
#endif
#define N_ANGLES 10
#define WINDOW ((PIXELS + 2 * REACH + 3) / 4 * 4)
#define WIDE ((TX - 1) * PIXELS + WINDOW)
#define HIGH (TY + 2 * REACH)
#define N_TAPS ((REACH + 1) * (REACH + 1) * N_ANGLES)
#define N_EVEN (PHASE == 0 ? 6 : 5)          // sums that are even in x: of angles FIRST_EVEN..5
#define FIRST_EVEN (PHASE == 0 ? 0 : 1)
#define FIRST_ODD (PHASE == 0 ? 1 : 0)       // the other sums are of angles FIRST_ODD..4
#define PARTS 4                              // in which the sums of a block's threads are added
#define SUMS_PITCH (TX * TY + PARTS)         // so that threads (sum, part) read different banks

// Responses of one bank, [angle][z][y][x], rows of `pitch`; partial sums, [angle][z][block][2].
extern "C" __global__ void __launch_bounds__(TX * TY)
gabor_filter(const float* __restrict__ padded, const float* __restrict__ taps, float* __restrict__ responses,
             double* __restrict__ partial, int ny, int nx, int padded_pitch, int pitch) {
    __shared__ float4 tile[HIGH][WIDE / 4];
    __shared__ float2 shared_taps[N_TAPS / 2];
    __shared__ float sums[2 * N_ANGLES][SUMS_PITCH], parts[2 * N_ANGLES][PARTS];
    const int x0 = blockIdx.x * TX * PIXELS, y0 = blockIdx.y * TY, z = blockIdx.z;
    const float* plane = padded + (size_t)z * (ny + 2 * MARGIN) * padded_pitch;
    const float* corner = plane + (size_t)(MARGIN - REACH) * padded_pitch + MARGIN - REACH + x0;
    FOR_EACH_THREAD {
        for (int j = threadIdx.y; j < HIGH; j += TY)
            for (int i = threadIdx.x; i < WIDE; i += TX)
                ((float*)tile[j])[i] = corner[(size_t)min(y0 + j, ny + 2 * REACH - 1) * padded_pitch + i];
        for (int i = threadIdx.y * TX + threadIdx.x; i < N_TAPS; i += TX * TY) ((float*)shared_taps)[i] = taps[i];
    }
    __syncthreads();
    FOR_EACH_THREAD {
        float sum[N_ANGLES][PIXELS];
        UNROLL for (int k = 0; k < N_ANGLES; ++k) UNROLL for (int p = 0; p < PIXELS; ++p) sum[k][p] = 0.0f;
        const int left = threadIdx.x * PIXELS, middle = threadIdx.y + REACH;
#ifdef __CUDACC__
#pragma unroll 1
#endif
        for (int dy = REACH; dy >= 0; --dy) {  // from far to near: sums stay small until the end, and their errors too
            float s[WINDOW], d[WINDOW];
            const float4 *below = &tile[middle + dy][left / 4], *above = &tile[middle - dy][left / 4];
            UNROLL for (int i = 0; i < WINDOW / 4; ++i) {
                const float4 a = below[i], b = above[i];
                s[4 * i] = a.x + b.x; s[4 * i + 1] = a.y + b.y; s[4 * i + 2] = a.z + b.z; s[4 * i + 3] = a.w + b.w;
                d[4 * i] = a.x - b.x; d[4 * i + 1] = a.y - b.y; d[4 * i + 2] = a.z - b.z; d[4 * i + 3] = a.w - b.w;
            }
            const float2* pairs = shared_taps + dy * (REACH + 1) * (N_ANGLES / 2);
            UNROLL for (int dx = REACH; dx >= 0; --dx) {
                float even[PIXELS], odd[PIXELS], tap[N_ANGLES];
                UNROLL for (int p = 0; p < PIXELS; ++p) {
                    const int plus = REACH + p + dx, minus = REACH + p - dx;
                    even[p] = PHASE == 0 ? s[plus] + s[minus] : d[plus] + d[minus];
                    odd[p] = PHASE == 0 ? d[plus] - d[minus] : s[plus] - s[minus];
                }
                UNROLL for (int k = 0; k < N_ANGLES; k += 2) {
                    const float2 pair = pairs[dx * (N_ANGLES / 2) + k / 2];
                    tap[k] = pair.x;
                    tap[k + 1] = pair.y;
                }
                UNROLL for (int k = 0; k < N_ANGLES; ++k) UNROLL for (int p = 0; p < PIXELS; ++p)
                    sum[k][p] = fmaf(tap[k], k < N_EVEN ? even[p] : odd[p], sum[k][p]);
            }
        }
        const int x = x0 + left, y = y0 + threadIdx.y, t = threadIdx.y * TX + threadIdx.x;
        UNROLL for (int angle = 0; angle < N_ANGLES; ++angle) {
            const int e = angle <= 5 ? angle : N_ANGLES - angle;  // of this angle or its mirror image
            float value[PIXELS], total = 0.0f, total_squares = 0.0f;
            UNROLL for (int p = 0; p < PIXELS; ++p) {
                const float part_e = e >= FIRST_EVEN ? sum[e >= FIRST_EVEN ? e - FIRST_EVEN : 0][p] : 0.0f;
                const bool has_odd = e >= FIRST_ODD && e <= 4;
                const float part_o = has_odd ? sum[has_odd ? N_EVEN + e - FIRST_ODD : 0][p] : 0.0f;
                value[p] = angle <= 5 ? part_e + part_o : part_e - part_o;
                const float counted = x + p < nx && y < ny ? value[p] : 0.0f;
                total += counted;
                total_squares = fmaf(counted, counted, total_squares);
            }
            sums[2 * angle][t] = total;
            sums[2 * angle + 1][t] = total_squares;
            if (y < ny) {
                float4* to = (float4*)(responses + (((size_t)angle * gridDim.z + z) * ny + y) * pitch + x);
                *to = make_float4(value[0], value[1], value[2], value[3]);
            }
        }
    }
    __syncthreads();
    FOR_EACH_THREAD {
        for (int i = threadIdx.y * TX + threadIdx.x; i < 2 * N_ANGLES * PARTS; i += TX * TY) {
            const int k = i / PARTS, part = i % PARTS;
            float total = 0.0f;
            for (int t = part; t < TX * TY; t += PARTS) total += sums[k][t];
            parts[k][part] = total;
        }
    }
    __syncthreads();
    FOR_EACH_THREAD {
        const int i = threadIdx.y * TX + threadIdx.x;
        if (i < 2 * N_ANGLES) {
            double total = 0.0;
            UNROLL for (int part = 0; part < PARTS; ++part) total += parts[i][part];
            const size_t block = (size_t)blockIdx.y * gridDim.x + blockIdx.x, n_blocks = (size_t)gridDim.x * gridDim.y;
            partial[(((i / 2) * (size_t)gridDim.z + z) * n_blocks + block) * 2 + i % 2] = total;
        }
    }
}
