// Values and squares as doubles for volume_sums.cu, on a CPU.   Python: gpu_tomoclass/features/accelerated/volume_ranks.py
//
// Rows get a margin of zeros at both ends; each square is rounded to float first. widened: (1 + SQUARES, rows, nx + 2
// margin). Grid: rows of the slab. Per voxel 4 bytes read and 8 or 16 written.
//
// Compile-time: ONE_THREAD, SQUARES (0, 1).
extern "C" __global__ void
volume_widen_cpu(const float* __restrict__ image, double* __restrict__ widened, int margin, int nx) {
    const int pitch = nx + 2 * margin;
    const float* line = image + (size_t)blockIdx.x * nx;
    double* values = widened + (size_t)blockIdx.x * pitch;
    double* squares = values + (SQUARES ? (size_t)gridDim.x * pitch : 0);
    for (int x = 0; x < margin; ++x) {
        values[x] = values[margin + nx + x] = 0.0;
        if (SQUARES) squares[x] = squares[margin + nx + x] = 0.0;
    }
    for (int x = 0; x < nx; ++x) values[margin + x] = line[x];
    if (SQUARES)
        for (int x = 0; x < nx; ++x) squares[margin + x] = line[x] * line[x];
}
