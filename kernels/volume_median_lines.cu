// Median over large balls, on a GPU, by windows of grey levels.   Python: gpu_tomoclass/features/accelerated/volume_ranks.py
//
// A warp goes along a line of voxels. It has a histogram of the 1024 levels (volume_levels.cu) around the last median, and
// knows how many voxels of the ball lie below a group of 64 of them. A step takes away the voxel that leaves each row of the
// ball and adds the one that enters: 2 reads and 2 counts per row, each lane has rows of its own. Then the warp goes from
// group to group to the one with the place n / 2 of the n voxels' order, and in it to the level. Where that is outside the
// histogram, or at the beginning of a line, the ball is counted anew, twice: by levels of 512 first, then those around the
// one with the median.
//
// A level of whole numbers is a value. Otherwise the few voxels of the ball that share the level are put in order, for which
// all of the ball is read. Where n is even, at the borders of the volume, the value before is needed too, and the result is
// half the sum of the two. On a CPU volume_median_cpu.cu does the same; small balls are counted by volume_median.cu.
//
// Compile-time: WARPS (lines of a block).
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890)
#define BLOCKS 4  // at once: those have room for no more threads than six blocks, and with five registers run short
#else
#define BLOCKS 5
#endif
#define ALL 0xffffffffu
#define WINDOW 1024  // levels of the histogram
#define GROUP 64     // levels: two per lane, which share a word
#define N_GROUPS (WINDOW / GROUP)
#define COARSE_BITS 9
#define N_COARSE (65536 >> COARSE_BITS)

struct Lines {
    const float* image;
    const int4* ball;  // of each row the distance along z and y and the half-width
    float low, scale;
    int n_rows, widest, first, depth, ny, nx;
};

__device__ __forceinline__ int level_of(const Lines& lines, float value) {
    return (int)fminf(fmaxf((value - lines.low) * lines.scale, 0.0f), 65535.0f);  // NaN: 0
}
__device__ __forceinline__ unsigned key_of(float value) {  // integers in the order of values
    const unsigned bits = __float_as_uint(value);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(unsigned key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// The line of the volume in which row j of the ball around (z, y) lies; none outside of the volume.
__device__ __forceinline__ const float* line_of(const Lines& lines, int4 row, int z, int y) {
    const int from_z = z + row.x, from_y = y + row.y;
    if (from_z < 0 || from_z >= lines.depth || from_y < 0 || from_y >= lines.ny) return 0;
    return lines.image + ((size_t)(from_z - lines.first) * lines.ny + from_y) * lines.nx;
}

// What `use` does with each voxel of the ball; lanes have rows of their own.
template <class Use>
__device__ __forceinline__ void in_ball(const Lines& lines, int z, int y, int x, Use use) {
    for (int j = threadIdx.x; j < lines.n_rows; j += 32) {
        const int4 row = lines.ball[j];
        const float* line = line_of(lines, row, z, y);
        if (line == 0) continue;
        const int stop = min(x + row.z, lines.nx - 1);
        for (int i = max(x - row.z, 0); i <= stop; ++i) use(line[i]);
    }
}

__device__ __forceinline__ int sum_of_lanes(int value) {
    for (int half = 16; half > 0; half /= 2) value += __shfl_xor_sync(ALL, value, half);
    return value;
}
__device__ __forceinline__ unsigned largest_of_lanes(unsigned value) {
    for (int half = 16; half > 0; half /= 2) value = max(value, __shfl_xor_sync(ALL, value, half));
    return value;
}
__device__ __forceinline__ int sum_up_to_lane(int value) {
    for (int by = 1; by < 32; by *= 2) {
        const int before = __shfl_up_sync(ALL, value, by);
        if ((int)threadIdx.x >= by) value += before;
    }
    return value;
}

// A histogram of the levels around the median; base: its first level, below: voxels of the ball under that.
struct Window {
    int base, below, n;
};

__device__ __forceinline__ Window place_window(const Lines& lines, int z, int y, int x, unsigned* counts, unsigned* coarse) {
    const int lane = threadIdx.x;
    __syncwarp();
    for (int i = lane; i < N_COARSE; i += 32) coarse[i] = 0;
    for (int i = lane; i < WINDOW / 2; i += 32) counts[i] = 0;
    __syncwarp();
    int mine = 0;
    in_ball(lines, z, y, x, [&](float value) {
        atomicAdd(coarse + (level_of(lines, value) >> COARSE_BITS), 1u);
        ++mine;
    });
    __syncwarp();
    Window window;
    window.n = sum_of_lanes(mine);
    const int middle = window.n / 2;
    int own = 0;
    for (int i = 0; i < N_COARSE / 32; ++i) own += (int)coarse[N_COARSE / 32 * lane + i];
    const int up_to = sum_up_to_lane(own);
    int bin = N_COARSE / 32 * lane, before = up_to - own;
    for (int i = 0; i < N_COARSE / 32 - 1; ++i) {
        const int count = (int)coarse[N_COARSE / 32 * lane + i];
        if (bin == N_COARSE / 32 * lane + i && before + count <= middle) {
            before += count;
            ++bin;
        }
    }
    const int holder = __ffs((int)__ballot_sync(ALL, up_to > middle)) - 1;
    window.base = (__shfl_sync(ALL, bin, holder) << COARSE_BITS) - (WINDOW - (1 << COARSE_BITS)) / 2;
    mine = 0;
    in_ball(lines, z, y, x, [&](float value) {
        const int level = level_of(lines, value) - window.base;
        if (level < 0) ++mine;
        else if (level < WINDOW) atomicAdd(counts + level / 2, 1u << 16 * (level & 1));
    });
    window.below = sum_of_lanes(mine);
    __syncwarp();
    return window;
}

// The value at place k among the ball's voxels of this level.
__device__ __forceinline__ float value_at(const Lines& lines, int z, int y, int x, int level, int n_members, int k,
                                          unsigned* keys) {
    const int lane = threadIdx.x;
    unsigned least = ALL, most = 0;
    int found = 0;
    __syncwarp();
    for (int j = lane; j - lane < lines.n_rows; j += 32) {
        const int4 row = j < lines.n_rows ? lines.ball[j] : make_int4(0, 0, -1, 0);
        const float* line = line_of(lines, row, z, y);
        for (int i = -lines.widest; i <= lines.widest; ++i) {
            const bool is_inside = line != 0 && abs(i) <= row.z && x + i >= 0 && x + i < lines.nx;
            const float value = is_inside ? line[x + i] : 0.0f;
            const bool is_member = is_inside && level_of(lines, value) == level;
            const unsigned members = __ballot_sync(ALL, is_member);
            if (is_member) {
                const int at = found + __popc(members & ((1u << lane) - 1));
                if (at < 32) keys[at] = key_of(value);
                least = min(least, key_of(value));
                most = max(most, key_of(value));
            }
            found += __popc(members);
        }
    }
    __syncwarp();
    least = ~largest_of_lanes(~least);
    most = largest_of_lanes(most);
    if (n_members <= 32) {
        const unsigned key = lane < n_members ? keys[lane] : ALL;
        int place = 0;
        for (int i = 0; i < n_members; ++i) {
            const unsigned other = __shfl_sync(ALL, key, i);
            place += other < key || (other == key && i < lane);
        }
        least = __shfl_sync(ALL, key, __ffs((int)__ballot_sync(ALL, lane < n_members && place == k)) - 1);
    } else {
        while (least < most) {  // halve the range of keys
            const unsigned half = least + (most - least) / 2;
            int mine = 0;
            in_ball(lines, z, y, x, [&](float value) { mine += level_of(lines, value) == level && key_of(value) <= half; });
            if (sum_of_lanes(mine) > k) most = half;
            else least = half + 1;
        }
    }
    return value_of(least);
}

// The largest of the ball's voxels whose level is lower than this.
__device__ __forceinline__ float value_below(const Lines& lines, int z, int y, int x, int level) {
    unsigned most = 0;
    in_ball(lines, z, y, x, [&](float value) {
        if (level_of(lines, value) < level) most = max(most, key_of(value));
    });
    return value_of(largest_of_lanes(most));
}

// Planes: `first` is the position of the slab in a volume of `depth`, `start` that of the first result. Grid: parts of
// n_steps voxels of the lines, lines, planes.
extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS)
volume_median_lines(const float* __restrict__ image, const int4* __restrict__ ball, const float* __restrict__ levels,
                    float* __restrict__ result, int n_rows, int widest, int n_steps, int first, int depth, int start, int ny,
                    int nx) {
    __shared__ unsigned histograms[WARPS][WINDOW / 2], rooms[WARPS][N_COARSE];
    const int lane = threadIdx.x, y = blockIdx.y * WARPS + threadIdx.y, z = start + blockIdx.z;
    if (y >= ny) return;
    unsigned *counts = histograms[threadIdx.y], *room = rooms[threadIdx.y];
    const Lines lines = {image, ball, levels[0], levels[1], n_rows, widest, first, depth, ny, nx};
    const bool is_whole = levels[2] != 0.0f;
    const int from = blockIdx.x * n_steps, stop = min(from + n_steps, nx);
    float mine = 0.0f;  // of the next 32 results, the one of this lane
    int group = 0, under = 0;  // voxels below the group
    Window window = {0, 0, 0};
    for (int x = from; x < stop; ++x) {
        if (x > from) {
            int change = 0;  // of `under`, and 65536 times that of n
            const int edge = window.base + group * GROUP;
            for (int j = lane; j < n_rows; j += 32) {
                const int4 row = ball[j];
                const float* line = line_of(lines, row, z, y);
                const int leaving = x - 1 - row.z, entering = x + row.z;
                if (line != 0 && leaving >= 0) {
                    const int level = level_of(lines, line[leaving]);
                    const unsigned at = (unsigned)(level - window.base);
                    if (at < WINDOW) atomicSub(counts + at / 2, 1u << 16 * (at & 1));
                    change -= 65536 + (level < edge);
                }
                if (line != 0 && entering < nx) {
                    const int level = level_of(lines, line[entering]);
                    const unsigned at = (unsigned)(level - window.base);
                    if (at < WINDOW) atomicAdd(counts + at / 2, 1u << 16 * (at & 1));
                    change += 65536 + (level < edge);
                }
            }
            change = sum_of_lanes(change);
            under += (short)(change & 0xffff);
            window.n += (change - (short)(change & 0xffff)) >> 16;
            __syncwarp();
        }
        unsigned word = 0;
        int of_lane = 0, up_to = 0, middle = 0;
        bool is_placed = x > from;
        while (true) {
            if (!is_placed) {
                window = place_window(lines, z, y, x, counts, room);
                group = 0;
                under = window.below;
                is_placed = true;
            }
            middle = window.n / 2;
            word = counts[group * GROUP / 2 + lane];
            of_lane = (int)(word & 0xffffu) + (int)(word >> 16);
            up_to = sum_up_to_lane(of_lane);
            const int total = __shfl_sync(ALL, up_to, 31);
            if (middle < under) {
                is_placed = --group >= 0;
                if (is_placed) {
                    const unsigned before = counts[group * GROUP / 2 + lane];
                    under -= sum_of_lanes((int)(before & 0xffffu) + (int)(before >> 16));
                }
            } else if (middle >= under + total) {
                under += total;
                is_placed = ++group < N_GROUPS;
            } else break;
        }
        __syncwarp();
        const int holder = __ffs((int)__ballot_sync(ALL, under + up_to > middle)) - 1;
        word = __shfl_sync(ALL, word, holder);
        int k = middle - under - __shfl_sync(ALL, up_to - of_lane, holder);
        const int lower_half = (int)(word & 0xffffu), is_upper = k >= lower_half;
        const int level = window.base + group * GROUP + 2 * holder + is_upper;
        const int n_members = is_upper ? (int)(word >> 16) : lower_half;
        k -= is_upper ? lower_half : 0;
        float median = lines.low + (float)level;
        if (!is_whole) median = value_at(lines, z, y, x, level, n_members, k, room);
        if (window.n % 2 == 0) {
            float before = median;
            if (k == 0) before = value_below(lines, z, y, x, level);
            else if (!is_whole) before = value_at(lines, z, y, x, level, n_members, k - 1, room);
            median = 0.5f * (before + median);
        }
        const int at = (x - from) % 32;
        if (lane == at) mine = median;
        if ((at == 31 || x == stop - 1) && lane <= at)
            result[((size_t)blockIdx.z * ny + y) * nx + x - at + lane] = mine;
    }
}
