// How often each of BINS values occurs among values[(first + i) step mod n], i = 0 .. n - 1: a tally per block in shared
// memory, then added to the result.
// BUG 1 does not clear the tally, 2 counts without atomics within the block, 3 between blocks, 4 computes the index in
// 32 bits.
#ifndef BUG
#define BUG 0
#endif
#define BINS 8

extern "C" __global__ void __launch_bounds__(64)
tally(const int* __restrict__ values, int* __restrict__ counts, int n, int first, int step) {
    __shared__ int here[BINS];
    const int t = threadIdx.x, i = blockIdx.x * 64 + t;
    if (BUG != 1 && t < BINS) here[t] = 0;
    __syncthreads();
    if (i < n) {
#if BUG == 4
        const int at = (first + i) * step % n;
#else
        const int at = (int)((long long)(first + i) * step % n);
#endif
        const int bin = values[at];
        if (BUG == 2) ++here[bin];
        else atomicAdd(&here[bin], 1);
    }
    __syncthreads();
    if (t < BINS) {
        if (BUG == 3) counts[t] += here[t];
        else atomicAdd(&counts[t], here[t]);
    }
}
