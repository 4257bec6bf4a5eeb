// Lines made shorter by a factor, and back: what ImageJ does before and after a large Gaussian blur.
// Python: gpu_tomoclass/features/accelerated/blur.py
//
//   reduce:  result[j] = s[0] + s[1] + s[2]
//            s[part] = sum over i < factor of w[i + part factor] v[c(j) + i + (part - 1) factor]
//            c(j) = (j - 3) factor - factor / 2; samples beyond the ends equal the end sample
//   enlarge: result[j] = sum over part < 4 of w[phase + part factor] v[p / factor - 2 + part]
//            p = j + 4 factor - 1, phase = factor - 1 - p mod factor
//
// along x or along y, added in this order in float32, nothing fused. Lanes along x. Reduce reads each pixel three times
// (of which caches serve two), enlarge writes each once; 6 and 8 operations per pixel of the full image.
//
// Compile-time: TX, TY (block).
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#define UNROLL _Pragma("unroll")
#endif

// `from_ny`, `from_pitch`: rows and pixels per row of a plane as stored; `length`: samples of a line.
extern "C" __global__ void __launch_bounds__(TX * TY)
reduce(const float* __restrict__ image, const float* __restrict__ weights, float* __restrict__ result, int factor,
       bool along_x, int length, int from_ny, int from_pitch, int ny, int nx, int pitch) {
    FOR_EACH_THREAD {
        const int x = blockIdx.x * TX + threadIdx.x, y = blockIdx.y * TY + threadIdx.y;
        if (x < nx && y < ny) {
            const float* plane = image + (size_t)blockIdx.z * from_ny * from_pitch;
            const float* line = along_x ? plane + (size_t)y * from_pitch : plane + x;
            const int step = along_x ? 1 : from_pitch, first = ((along_x ? x : y) - 4) * factor - factor / 2;
            float sums[3] = {0.0f, 0.0f, 0.0f};
            for (int i = 0; i < factor; ++i)
                UNROLL for (int part = 0; part < 3; ++part) {
                    const int at = min(max(first + i + part * factor, 0), length - 1);
                    sums[part] += weights[i + part * factor] * line[(size_t)at * step];
                }
            result[((size_t)blockIdx.z * ny + y) * pitch + x] = sums[0] + sums[1] + sums[2];
        }
    }
}

extern "C" __global__ void __launch_bounds__(TX * TY)
enlarge(const float* __restrict__ image, const float* __restrict__ weights, float* __restrict__ result, int factor,
        bool along_x, int from_ny, int from_pitch, int ny, int nx) {
    FOR_EACH_THREAD {
        const int x = blockIdx.x * TX + threadIdx.x, y = blockIdx.y * TY + threadIdx.y;
        if (x < nx && y < ny) {
            const float* plane = image + (size_t)blockIdx.z * from_ny * from_pitch;
            const float* line = along_x ? plane + (size_t)y * from_pitch : plane + x;
            const int step = along_x ? 1 : from_pitch, position = (along_x ? x : y) + 4 * factor - 1;
            const int first = position / factor - 2, phase = factor - 1 - position % factor;
            float sum = line[(size_t)first * step] * weights[phase];
            UNROLL for (int part = 1; part < 4; ++part)
                sum += line[(size_t)(first + part) * step] * weights[phase + part * factor];
            result[((size_t)blockIdx.z * ny + y) * nx + x] = sum;
        }
    }
}
