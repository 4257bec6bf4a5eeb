// result = factor * values + offset, one thread per value: no barrier.
extern "C" __global__ void scale(const float* __restrict__ values, float* __restrict__ result, float factor,
                                 double offset, long long n, int first) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= first && i < n) result[i] = fmaf(factor, values[i], (float)offset);
}

// The same with another width of every scalar and vectors.
extern "C" __global__ void scale4(const float4* values, float4* __restrict__ result, unsigned char factor, bool negate,
                                  short offset, unsigned long long n4) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n4) return;
    const float f = negate ? -(float)factor : (float)factor;
    const float4 v = values[i];
    result[i] = make_float4(fmaf(f, v.x, offset), fmaf(f, v.y, offset), fmaf(f, v.z, offset), fmaf(f, v.w, offset));
}
