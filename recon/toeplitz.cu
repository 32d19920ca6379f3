// The normal operator of toeplitz.py on a GPU, but for its Fourier transforms: `enter` makes the channels of every coil and
// lattice from the images, `mix` multiplies them by the kernels on the Fourier grid, `leave` adds them up again.
//
// Arrays, complex but for kernels of real bases (PLANES 1): images (RANKS, points), weights (coils, SEGMENTS, points),
// ramps (lattices, points), kernels (lattices, pairs of channels, points), channels (coils, lattices, CHANNELS, points)
// with channel = rank * SEGMENTS + segment. blockIdx.y counts coils and lattices, or in `leave` ranks.
//
// A thread takes one point, so that neighbours read and write neighbouring numbers. Bytes decide: per point, coil and
// lattice `enter` writes and `leave` reads 8 CHANNELS (single precision), `mix` does both; weights, ramps and kernels are
// read again by every coil or lattice, from the L2 cache where they fit. Sums are in a fixed order.
//
// Written for nvcc and for NVRTC: no header is included. Macros: REAL, RANKS, SEGMENTS, PLANES (1 = kernels are real).

namespace toeplitz {

constexpr int CHANNELS = RANKS * SEGMENTS;
constexpr int PAIRS = CHANNELS * (CHANNELS + 1) / 2;

struct Complex {
    REAL re, im;
};

__device__ __forceinline__ Complex product(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

__device__ __forceinline__ long long point() {
    return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

}  // namespace toeplitz

extern "C" __global__ void enter(const toeplitz::Complex* images, const toeplitz::Complex* weights,
                                 const toeplitz::Complex* ramps, toeplitz::Complex* channels, long long points,
                                 int lattices) {
    using namespace toeplitz;
    const long long p = point(), pair = blockIdx.y;
    if (p >= points) return;
    const int coil = int(blockIdx.y) / lattices, lattice = int(blockIdx.y) % lattices;
    const Complex ramp = ramps[lattice * points + p];
    Complex* const own = channels + pair * CHANNELS * points + p;
#pragma unroll 1
    for (int segment = 0; segment < SEGMENTS; ++segment) {
        const Complex weight = product(weights[(coil * SEGMENTS + segment) * points + p], ramp);
#pragma unroll
        for (int rank = 0; rank < RANKS; ++rank) {
            own[(rank * SEGMENTS + segment) * points] = product(images[rank * points + p], weight);
        }
    }
}

// A Hermitian matrix per point, of which `kernels` hold the upper triangle row by row, times the channels there.
extern "C" __global__ void mix(const REAL* kernels, toeplitz::Complex* channels, long long points, int lattices) {
    using namespace toeplitz;
    const long long p = point(), pair = blockIdx.y;
    if (p >= points) return;
    const int lattice = int(blockIdx.y) % lattices;
    Complex* const own = channels + pair * CHANNELS * points + p;
    Complex from[CHANNELS], to[CHANNELS];
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) {
        from[j] = own[j * points];
        to[j] = {0, 0};
    }
    const REAL* kernel = kernels + PLANES * (lattice * PAIRS * points + p);
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) {
#pragma unroll
        for (int m = j; m < CHANNELS; ++m) {
            const REAL a = kernel[0];
            to[j].re += a * from[m].re;
            to[j].im += a * from[m].im;
            if (m != j) {
                to[m].re += a * from[j].re;
                to[m].im += a * from[j].im;
                if (PLANES == 2) {
                    const REAL b = kernel[1];
                    to[j].re -= b * from[m].im;
                    to[j].im += b * from[m].re;
                    to[m].re += b * from[j].im;
                    to[m].im -= b * from[j].re;
                }
            }
            kernel += PLANES * points;
        }
    }
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) own[j * points] = to[j];
}

// `scale` times the sum over coils, lattices and segments is added to the images.
extern "C" __global__ void leave(const toeplitz::Complex* channels, const toeplitz::Complex* weights,
                                 const toeplitz::Complex* ramps, toeplitz::Complex* images, long long points, int coils,
                                 int lattices, REAL scale) {
    using namespace toeplitz;
    const long long p = point(), rank = blockIdx.y;
    if (p >= points) return;
    Complex total = {0, 0};
    for (long long coil = 0; coil < coils; ++coil) {
        for (int segment = 0; segment < SEGMENTS; ++segment) {
            const Complex weight = weights[(coil * SEGMENTS + segment) * points + p];
            Complex sum = {0, 0};
            for (int lattice = 0; lattice < lattices; ++lattice) {
                const Complex ramp = ramps[lattice * points + p];
                const long long pair = coil * lattices + lattice;
                const Complex turned = product(channels[(pair * CHANNELS + rank * SEGMENTS + segment) * points + p],
                                               {ramp.re, -ramp.im});
                sum.re += turned.re;
                sum.im += turned.im;
            }
            const Complex weighted = product(sum, {weight.re, -weight.im});
            total.re += weighted.re;
            total.im += weighted.im;
        }
    }
    images[rank * points + p].re += scale * total.re;
    images[rank * points + p].im += scale * total.im;
}
