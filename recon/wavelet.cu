// Soft thresholds on Haar wavelets of regularize.py on a GPU: shift, transform, thresholds on the norm over rank, and back,
// in one launch.
//
// A coarsest coefficient and all details under it depend on one tile of 2^depth pixels a side, so a block of threads takes
// a tile from images to images and knows nothing of others. The transform is in place: after a level, the low band lies
// where the even pixels were, one stride further apart, and details where the odd ones were. A thread takes the pixels
// of one coarser pixel, of all ranks; its own tile in `work` (tiles, ranks, pixels of a tile) stays in the L1 cache.
//
// Images (ranks, *matrix) are padded by zeros to whole tiles and turned around by `shift`. Axes are z, y, x; in a plane z
// has one pixel and depth 0. `deviations` (levels, 8) has the threshold of band b of a level for amount 1 in column b;
// bit by bit, the first axis that is split first, b tells low or detail along it.
//
// Written for nvcc and for NVRTC: no header is included. Macro: REAL.

namespace wavelet {

struct Complex {
    REAL re, im;
};

struct Size {
    int z, y, x;
};

__device__ __forceinline__ int least(int a, int b) { return a < b ? a : b; }

// Where a tile's pixel lies in images: -1 = in the padding.
__device__ __forceinline__ long long home(Size tile, Size at, Size depth, Size matrix, Size shift) {
    const int along[3] = {(tile.z << depth.z) + at.z, (tile.y << depth.y) + at.y, (tile.x << depth.x) + at.x};
    const int sides[3] = {matrix.z, matrix.y, matrix.x}, depths[3] = {depth.z, depth.y, depth.x};
    const int shifts[3] = {shift.z, shift.y, shift.x};
    long long place = 0;
#pragma unroll
    for (int axis = 0; axis < 3; ++axis) {
        const int whole = (((sides[axis] - 1) >> depths[axis]) + 1) << depths[axis];
        int from = along[axis] - shifts[axis];
        if (from < 0) from += whole;
        if (from >= sides[axis]) return -1;
        place = place * sides[axis] + from;
    }
    return place;
}

// A step of the Haar transform along the axes of `split` (bits z 4, y 2, x 1): its own inverse.
__device__ __forceinline__ void turn(Complex (&v)[8], int split) {
    const REAL half = REAL(0.70710678118654752440);
#pragma unroll
    for (int bit = 4; bit > 0; bit /= 2) {
        if (!(split & bit)) continue;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (i & bit) continue;
            const Complex even = v[i], odd = v[i | bit];
            v[i] = {(even.re + odd.re) * half, (even.im + odd.im) * half};
            v[i | bit] = {(even.re - odd.re) * half, (even.im - odd.im) * half};
        }
    }
}

// One level of a tile: which axes it splits, and where the pixels of a coarser pixel lie in the tile.
struct Level {
    Size stride, apart, groups;
    int split;

    __device__ __forceinline__ Level(Size depth, int level) {
        split = (depth.z > level ? 4 : 0) | (depth.y > level ? 2 : 0) | (depth.x > level ? 1 : 0);
        stride = {1 << least(level, depth.z), 1 << least(level, depth.y), 1 << least(level, depth.x)};
        apart = {1 << least(level + 1, depth.z), 1 << least(level + 1, depth.y), 1 << least(level + 1, depth.x)};
        groups = {(1 << depth.z) / apart.z, (1 << depth.y) / apart.y, (1 << depth.x) / apart.x};
    }

    __device__ __forceinline__ int first(int group, Size depth) const {
        const int x = group % groups.x, y = group / groups.x % groups.y, z = group / groups.x / groups.y;
        return ((((z * apart.z) << depth.y) + y * apart.y) << depth.x) + x * apart.x;
    }

    __device__ __forceinline__ int offset(int i, Size depth) const {
        const int z = ((i >> 2) & 1) * stride.z, y = ((i >> 1) & 1) * stride.y, x = (i & 1) * stride.x;
        return (((z << depth.y) + y) << depth.x) + x;
    }
};

}  // namespace wavelet

extern "C" __global__ void shrink(const wavelet::Complex* images, wavelet::Complex* work, wavelet::Complex* out,
                                  const double* deviations, double amount, int ranks, int nz, int ny, int nx, int dz,
                                  int dy, int dx, int sz, int sy, int sx) {
    using namespace wavelet;
    const Size matrix = {nz, ny, nx}, depth = {dz, dy, dx}, shift = {sz, sy, sx};
    const int across = ((nx - 1) >> dx) + 1, down = ((ny - 1) >> dy) + 1;
    const int number = int(blockIdx.x), pixels = 1 << (dz + dy + dx), threads = int(blockDim.x);
    const Size tile = {number / across / down, number / across % down, number % across};
    const long long points = static_cast<long long>(nz) * ny * nx;
    Complex* const own = work + static_cast<long long>(number) * ranks * pixels;
    for (int i = int(threadIdx.x); i < pixels; i += threads) {
        const Size at = {i >> (dy + dx), (i >> dx) & ((1 << dy) - 1), i & ((1 << dx) - 1)};
        const long long from = home(tile, at, depth, matrix, shift);
        for (int rank = 0; rank < ranks; ++rank) {
            own[rank * pixels + i] = from < 0 ? Complex{0, 0} : images[rank * points + from];
        }
    }
    __syncthreads();
    const int levels = dz > dy ? (dz > dx ? dz : dx) : (dy > dx ? dy : dx);
#pragma unroll 1
    for (int step = 0; step < 2 * levels; ++step) {  // down, then up
        const bool rising = step >= levels;
        const Level level(depth, rising ? 2 * levels - 1 - step : step);
        const double* const limits = deviations + 8 * (rising ? 0 : step);
#pragma unroll 1
        for (int group = int(threadIdx.x); group < level.groups.z * level.groups.y * level.groups.x; group += threads) {
            Complex* const first = own + level.first(group, depth);
            REAL power[8] = {};
#pragma unroll 1
            for (int rank = 0; rank < ranks; ++rank) {
                Complex v[8] = {};
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    if (!(i & ~level.split)) v[i] = first[rank * pixels + level.offset(i, depth)];
                }
                turn(v, level.split);
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    if (i & ~level.split) continue;
                    first[rank * pixels + level.offset(i, depth)] = v[i];
                    power[i] += v[i].re * v[i].re + v[i].im * v[i].im;
                }
            }
            if (rising) continue;
            int band = 0;
#pragma unroll
            for (int i = 1; i < 8; ++i) {
                if (i & ~level.split) continue;
                const REAL limit = REAL(amount * limits[++band]), norm = sqrt(power[i]);
                const REAL gain = norm > limit ? 1 - limit / norm : 0;
                for (int rank = 0; rank < ranks; ++rank) {
                    Complex& detail = first[rank * pixels + level.offset(i, depth)];
                    detail = {detail.re * gain, detail.im * gain};
                }
            }
        }
        __syncthreads();
    }
    for (int i = int(threadIdx.x); i < pixels; i += threads) {
        const Size at = {i >> (dy + dx), (i >> dx) & ((1 << dy) - 1), i & ((1 << dx) - 1)};
        const long long to = home(tile, at, depth, matrix, shift);
        if (to < 0) continue;
        for (int rank = 0; rank < ranks; ++rank) out[rank * points + to] = own[rank * pixels + i];
    }
}
