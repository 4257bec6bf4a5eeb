// The label value of the largest probability, the first of equals.   Python: gpu_tomoclass/forest/labels_on_device.py
//
//   label[p] = values[argmax over c of probability[c, p]]
//
// Reads 4 n_classes bytes per pixel and writes one, n_classes comparisons. Lanes along pixels: loads are whole lines.
//
// Compile-time: THREADS.
#ifndef FOR_EACH_THREAD
#define FOR_EACH_THREAD
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
labels(const float* __restrict__ probabilities, const unsigned char* __restrict__ values,
       unsigned char* __restrict__ result, int n_classes, long long n_pixels) {
    FOR_EACH_THREAD {
        const long long p = (long long)blockIdx.x * THREADS + threadIdx.x;
        if (p < n_pixels) {
            float best = probabilities[p];
            int of_best = 0;
            for (int c = 1; c < n_classes; ++c) {
                const float probability = probabilities[c * n_pixels + p];
                const bool is_better = probability > best;
                best = is_better ? probability : best;
                of_best = is_better ? c : of_best;
            }
            result[p] = values[of_best];
        }
    }
}
