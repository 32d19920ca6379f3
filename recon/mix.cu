// One Hermitian matrix per point of a Fourier grid times the channels there, in place, for a batch of coils.
//
// spectra: (coils, CHANNELS, points) complex. kernels: (pairs, points), the upper triangle row by row: real (PLANES 1)
// or complex (PLANES 2). A thread takes one point of one coil; neighbours read and write neighbouring numbers, so that
// every access is coalesced. Bytes decide: each coil reads the kernels again, from the L2 cache where they fit.

extern "C" __global__ void mix(const REAL* kernels, REAL* spectra, long long points) {
    const long long point = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (point >= points) return;
    REAL* own = spectra + 2 * (static_cast<long long>(blockIdx.y) * CHANNELS * points + point);
    REAL real[CHANNELS], imag[CHANNELS], to_real[CHANNELS], to_imag[CHANNELS];
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) {
        real[j] = own[2 * j * points];
        imag[j] = own[2 * j * points + 1];
        to_real[j] = to_imag[j] = 0;
    }
    const REAL* kernel = kernels + PLANES * point;
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) {
#pragma unroll
        for (int m = j; m < CHANNELS; ++m) {
            const REAL a = kernel[0];
            to_real[j] += a * real[m];
            to_imag[j] += a * imag[m];
            if (m != j) {
                to_real[m] += a * real[j];
                to_imag[m] += a * imag[j];
                if (PLANES == 2) {
                    const REAL b = kernel[1];
                    to_real[j] -= b * imag[m];
                    to_imag[j] += b * real[m];
                    to_real[m] += b * imag[j];
                    to_imag[m] -= b * real[j];
                }
            }
            kernel += PLANES * points;
        }
    }
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) {
        own[2 * j * points] = to_real[j];
        own[2 * j * points + 1] = to_imag[j];
    }
}
