// result[t] = values of the lane behind and of the one ahead, through shared memory of the warp, twice as the tally of even
// ones. BUG 1 leaves out the first __syncwarp, 2 the second, 3 looks into the next warp, 4 the one before the tally is read.
#ifndef BUG
#define BUG 0
#endif
extern "C" __global__ void __launch_bounds__(64) turns(const int* __restrict__ values, int* __restrict__ result) {
    __shared__ int room[2][32], even[2];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = blockIdx.x * 64 + threadIdx.x;
    room[warp][lane] = values[t];
    if (lane == 0) even[warp] = 0;
    if (BUG != 1) __syncwarp();
    const int ahead = room[BUG == 3 ? 1 - warp : warp][(lane + 1) % 32];
    if (BUG != 2) __syncwarp();
    room[warp][lane] = -values[t];
    if (values[t] % 2 == 0) atomicAdd(even + warp, 1);
    if (BUG != 4) __syncwarp();
    result[t] = ahead - room[warp][lane] + 100 * even[warp];
}
