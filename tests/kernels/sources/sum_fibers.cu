// Sum of all values by warp shuffles, shared memory and one atomic per block: needs one fiber per thread on a CPU.
// BUG 1 removes the barrier, 2 names half of the lanes, 3 lets some threads wait elsewhere.
#ifndef BUG
#define BUG 0
#endif
__device__ __forceinline__ int warp_sum(int value) {
    for (int by = 16; by > 0; by >>= 1) value += __shfl_down_sync(BUG == 2 ? 0x0000ffffu : 0xffffffffu, value, by);
    return value;
}

extern "C" __global__ void __launch_bounds__(256) total(const int* __restrict__ values, int* __restrict__ sum, int n) {
    __shared__ int partial[8];
    const int t = threadIdx.x, i = blockIdx.x * 256 + t;
    const int of_warp = warp_sum(i < n ? values[i] : 0);
    if ((t & 31) == 0) partial[t >> 5] = of_warp;
#if BUG == 3
    if (t < 100) __syncthreads();
    else
#endif
#if BUG != 1
    __syncthreads();
#endif
    if (t < 32) {
        const int of_block = warp_sum(t < 8 ? partial[t] : 0);
        if (t == 0) atomicAdd(sum, of_block);
    }
}

// Which threads of each warp hold an odd value; every function that exchanges within a warp.
extern "C" __global__ void exchange(const int* __restrict__ values, int* __restrict__ result) {
    const int t = blockIdx.x * blockDim.x + threadIdx.x, v = values[t];
    const unsigned all = 0xffffffffu;
    int r = __shfl_xor_sync(all, v, 5) + 3 * __shfl_up_sync(all, v, 2) + 5 * __shfl_sync(all, v, 7, 16);
    __syncwarp();
    r += (int)__ballot_sync(all, v & 1) + __any_sync(all, v == 11) + 2 * __all_sync(all, v >= 0) + __popc(v) + __clz(v);
    result[t] = r;
}
