// Grey levels of a slab, for the median over balls.   Python: gpu_tomoclass/features/accelerated/volume_ranks.py
//
//   levels = lowest finite value, levels per grey value, 1 if voxels are whole numbers of at most 65536 levels, else 0
//
// Whole numbers have a level each: value = lowest + level. Other values share 65536 levels that rise with them. First step:
// each block reads every gridDim.x-th run of THREADS voxels, 4 bytes and four comparisons per voxel; the second joins the
// parts, (lowest, highest, number of voxels that are not whole).
//
// Compile-time: THREADS (a power of two).
#define LARGEST 3.402823466e+38f

// The three figures of a block's threads, in its first thread.
__device__ __forceinline__ float3 joined(float3 mine) {
    __shared__ float low[THREADS], high[THREADS], uneven[THREADS];
    const int t = threadIdx.x;
    low[t] = mine.x;
    high[t] = mine.y;
    uneven[t] = mine.z;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            low[t] = fminf(low[t], low[t + half]);
            high[t] = fmaxf(high[t], high[t + half]);
            uneven[t] = fmaxf(uneven[t], uneven[t + half]);
        }
    }
    float3 found = {low[0], high[0], uneven[0]};
    return found;
}

extern "C" __global__ void __launch_bounds__(THREADS)
volume_levels_of_parts(const float* __restrict__ image, float* __restrict__ parts, long long n_voxels) {
    float3 mine = {__int_as_float(0x7f800000), __int_as_float(0xff800000), 0.0f};
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < n_voxels; i += (long long)gridDim.x * THREADS) {
        const float value = image[i];
        if (fabsf(value) <= LARGEST) {  // false for NaN
            mine.x = fminf(mine.x, value);
            mine.y = fmaxf(mine.y, value);
        }
        if (value != truncf(value)) mine.z = 1.0f;  // true for NaN
    }
    mine = joined(mine);
    if (threadIdx.x == 0) {
        parts[3 * blockIdx.x] = mine.x;
        parts[3 * blockIdx.x + 1] = mine.y;
        parts[3 * blockIdx.x + 2] = mine.z;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
volume_levels(const float* __restrict__ parts, float* __restrict__ levels, int n_parts) {
    float3 mine = {__int_as_float(0x7f800000), __int_as_float(0xff800000), 0.0f};
    for (int i = threadIdx.x; i < n_parts; i += THREADS) {
        mine.x = fminf(mine.x, parts[3 * i]);
        mine.y = fmaxf(mine.y, parts[3 * i + 1]);
        mine.z = fmaxf(mine.z, parts[3 * i + 2]);
    }
    mine = joined(mine);
    if (threadIdx.x != 0) return;
    const float range = mine.y - mine.x;
    const bool is_whole = mine.z == 0.0f && range <= 65535.0f;
    levels[0] = mine.x;
    levels[1] = is_whole ? 1.0f : 65535.0f / range;
    levels[2] = is_whole ? 1.0f : 0.0f;
}
