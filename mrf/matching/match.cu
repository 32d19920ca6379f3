// Which atom each voxel is most like, on a GPU: the tree of tree.py searched as search.py does, and every atom scored.
//
// Atoms come in groups of 32, one a lane. Single-precision scores and bounds err by at most `error` and `margin`, as
// in search.py; atoms that may be the best are scored again in double precision, in the order of their lanes, so the
// index is the one the CPU finds.
//
// descend: a warp a voxel, a lane a child of a node. Per node 2 RANK PLANES^2 DIRECTIONS multiply-adds and about 60 other
// instructions, and 128 bytes for each of its rows, mostly from the second-level cache; per leaf 2 RANK PLANES^2.
// tile_maxima: PAIR voxels a thread in registers, atoms broadcast from shared memory: per voxel and atom
// 2 RANK PLANES^2 + 3 instructions, and 1 / (4 PAIR) loads for each of the atom's components. Only the best score of
// 1024 atoms is written: 4 bytes for these and a voxel. settle: a warp a voxel; tiles within the error are looked at again.
//
// Written for nvcc and for NVRTC: no header is included. Macros: RANK, PLANES (1 = atoms are real, 2 = complex), PAIR.

namespace match {

constexpr int WARP = 32;
constexpr int WARPS = 4;          // of a block
constexpr int WIDTH = RANK * PLANES;
constexpr int PADDED = (WIDTH + 3) / 4 * 4;
constexpr int DEEPEST = 8;        // levels of a tree
constexpr int TILE = 32;          // groups whose best score is kept
constexpr int STAGED = WIDTH <= 48 ? 4 : WIDTH <= 96 ? 2 : 1;  // groups in shared memory at a time
constexpr unsigned ALL = 0xffffffffu;
constexpr double TIE = 1e-14;     // scores closer than this (relative) are equal; the lowest index wins

struct alignas(16) Four {
    float x, y, z, w;
};

__device__ __forceinline__ float power_of(float re, float im) { return fmaf(re, re, im * im); }

// Squared score of the lane's atom of a group; x is the voxel's real parts, then its imaginary ones.
__device__ __forceinline__ float lane_power(const float* group, int lane, const float* x) {
    const float* const own = group + lane;
    float re = 0, im = 0;
#pragma unroll
    for (int r = 0; r < RANK; ++r) {
        const float d = own[r * WARP];
        re = fmaf(d, x[r], re);
        im = fmaf(d, x[RANK + r], im);
        if (PLANES == 2) {
            const float e = own[(RANK + r) * WARP];
            re = fmaf(e, x[RANK + r], re);
            im = fmaf(-e, x[r], im);
        }
    }
    return power_of(re, im);
}

__device__ __forceinline__ float highest_of(float value) {
    for (int with = WARP / 2; with > 0; with /= 2) value = fmaxf(value, __shfl_xor_sync(ALL, value, with, WARP));
    return value;
}

// Double-precision score of a stored atom, real and imaginary parts in turn.
__device__ __forceinline__ double exact_score(const float* atom, const double* signal) {
    double re = 0, im = 0;
    for (int r = 0; r < RANK; ++r) {
        const double a = atom[2 * r], b = atom[2 * r + 1], x = signal[2 * r], y = signal[2 * r + 1];
        re += a * x + b * y;
        im += a * y - b * x;
    }
    return sqrt(re * re + im * im);
}

// The best of a group's atoms against the best one until now; the same in all lanes. In doubt is what was tied with a
// score that is not the same.
__device__ __forceinline__ void meet(const float* group, const long long* order, const float* atoms, const float* x,
                                     const double* signal, double norm, double error, double& best,
                                     long long& index, bool& doubtful) {
    const int lane = int(threadIdx.x) % WARP;
    const float power = lane_power(group, lane, x);
    const double least = fmax(fmax(best / norm - error, sqrt(double(highest_of(power))) - 2 * error), 0.0);
    const bool worth = power >= float(least * least * (1 - 1e-6));
    const long long own = order[lane];
    const double score = worth ? exact_score(atoms + 2 * RANK * own, signal) : 0.0;
    for (unsigned bits = __ballot_sync(ALL, worth); bits; bits &= bits - 1) {
        const int from = __ffs(int(bits)) - 1;
        const double other = __shfl_sync(ALL, score, from, WARP);
        const long long atom = __shfl_sync(ALL, own, from, WARP);
        if (other > best * (1 + TIE)) {
            best = other;
            index = atom;
            doubtful = false;
        } else if (other >= best * (1 - TIE)) {
            doubtful = doubtful || other != best;
            best = fmax(best, other);
            index = index < atom ? index : atom;
        }
    }
}

// Largest score of a vector of this norm with unit vectors in a cone, whose axis it has the score `inner` with.
__device__ __forceinline__ float cone(float norm, float inner, float cosine, float sine, float slack) {
    const float across = sqrtf(fmaxf(norm * norm - inner * inner, 0.0f) + slack);
    return inner >= norm * cosine ? norm : fmaf(inner, cosine, across * sine);
}

// Squared upper bound of the scores below the lane's child of a node: `_bounds` of search.py.
__device__ __forceinline__ float bound_of(const float* node, int lane, const float* x, int directions, float real,
                                          float imaginary, float slack) {
    float within = 0, box = 0, box_im = 0, reach = 0, reach_im = 0;
    const float* row = node + lane;
    for (int m = 0; m < directions; ++m) {
        float re = 0, im = 0;
#pragma unroll
        for (int r = 0; r < RANK; ++r) {
            const float d = row[(m * WIDTH + r) * WARP];
            re = fmaf(d, x[r], re);
            im = fmaf(d, x[RANK + r], im);
            if (PLANES == 2) {
                const float e = row[(m * WIDTH + RANK + r) * WARP];
                re = fmaf(e, x[RANK + r], re);
                im = fmaf(-e, x[r], im);
            }
        }
        const float middle = row[(directions * WIDTH + 2 * m) * WARP], half = row[(directions * WIDTH + 2 * m + 1) * WARP];
        box = fmaf(re, middle, box);
        box_im = fmaf(im, middle, box_im);
        if (PLANES == 2) {
            within += power_of(re, im);
            reach = fmaf(sqrtf(power_of(re, im)), half, reach);
        } else {
            within = fmaf(re, re, within);
            reach = fmaf(fabsf(re), half, reach);
            reach_im = fmaf(fabsf(im), half, reach_im);
        }
    }
    row += directions * (WIDTH + 2) * WARP;
    box = PLANES == 2 ? sqrtf(power_of(box, box_im)) : fabsf(box);
    const float inner = box * row[0], far = row[7 * WARP];
    const float away = sqrtf(fmaxf(real * real - within, 0.0f) + slack) * far;
    float bound = cone(real, inner, row[WARP], row[2 * WARP], slack) * row[5 * WARP];
    const float near = cone(sqrtf(within), inner, row[3 * WARP], row[4 * WARP], slack);
    bound = fminf(bound, fmaf(near, row[6 * WARP], away));
    bound = fminf(bound, box + reach + away);
    if (PLANES == 2) return bound * bound;
    const float other = fmaf(imaginary, far, fabsf(box_im) + reach_im);
    return power_of(bound, other);
}

}  // namespace match

// Scale each signal to norm 1, turn it so that its real part is as large as it can be (real atoms), and write it in
// single precision; `norms`: its norm, and those of its real and imaginary part after the turn; `keys`: `likeness` of
// search.py.
extern "C" __global__ void prepare(const double* signals, float* single, double* norms, unsigned short* keys, int voxels,
                                   double phase_re, double phase_im) {
    const int v = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (v >= voxels) return;
    const double* const x = signals + 2LL * RANK * v;
    double total = 0, square_re = 0, square_im = 0;
    for (int r = 0; r < RANK; ++r) {
        const double a = x[2 * r], b = x[2 * r + 1];
        total += a * a + b * b;
        square_re += a * a - b * b;
        square_im += 2 * a * b;
    }
    const double norm = sqrt(total);
    const double size = norm * sqrt(x[0] * x[0] + x[1] * x[1]);
    int strip = 64, along = 256;
    if (size > 0 && RANK > 1) strip = int((1 + (x[0] * x[2] + x[1] * x[3]) / size) * 63.99);
    if (size > 0 && RANK > 2) along = int((1 + (x[0] * x[4] + x[1] * x[5]) / size) * 255.99);
    keys[v] = (unsigned short)(512 * strip + along);
    double turn_re = 1, turn_im = 0;
    if (PLANES == 1) {
        const double back_re = phase_re * phase_re - phase_im * phase_im, back_im = -2 * phase_re * phase_im;
        const double twice_re = square_re * back_re - square_im * back_im;
        const double twice_im = square_re * back_im + square_im * back_re;
        const double size = sqrt(twice_re * twice_re + twice_im * twice_im);
        const double cosine = size > 0 ? sqrt(fmax((1 + twice_re / size) / 2, 0.0)) : 1.0;  // half of its angle
        double sine = size > 0 ? sqrt(fmax((1 - twice_re / size) / 2, 0.0)) : 0.0;
        if (twice_im < 0) sine = -sine;
        turn_re = phase_re * cosine - phase_im * sine;
        turn_im = -phase_im * cosine - phase_re * sine;
    }
    double real = 0, imaginary = 0;
    for (int r = 0; r < RANK; ++r) {
        const double a = x[2 * r] / norm, b = x[2 * r + 1] / norm;
        const double re = a * turn_re - b * turn_im, im = a * turn_im + b * turn_re;
        single[2LL * RANK * v + r] = float(re);
        single[2LL * RANK * v + RANK + r] = float(im);
        real += re * re;
        imaginary += im * im;
    }
    norms[3LL * v] = norm;
    norms[3LL * v + 1] = PLANES == 2 ? sqrt(real + imaginary) : sqrt(real);
    norms[3LL * v + 2] = PLANES == 2 ? 0.0 : sqrt(imaginary);
}

// The best atom by the tree, depth first, the most promising child first; `turn`: the voxel of each warp.
extern "C" __global__ void __launch_bounds__(128)
    descend(const double* signals, const float* single, const double* norms, const long long* turn, const float* leaves,
            const float* nodes, const long long* order, const float* atoms, const long long* starts, long long* out,
            int voxels, int levels, int rows, int directions, double error, double margin, long long lowest) {
    using namespace match;
    __shared__ float open[WARPS][DEEPEST][WARP];
    __shared__ float own[WARPS][2 * RANK];
    __shared__ long long path[WARPS][DEEPEST];
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    const long long place = (long long)blockIdx.x * WARPS + warp;
    if (place >= voxels) return;
    const long long v = turn[place];
    const double* const signal = signals + 2 * RANK * v;
    const double norm = norms[3 * v];
    const float real = float(norms[3 * v + 1]), imaginary = float(norms[3 * v + 2]), slack = float(4 * margin);
    for (int r = lane; r < 2 * RANK; r += WARP) own[warp][r] = single[2 * RANK * v + r];
    if (lane < DEEPEST) path[warp][lane] = 0;
    __syncwarp();
    const float* const x = own[warp];
    double best = 0;
    bool doubtful = false;
    float limit = 0;
    long long index = lowest, node = starts[levels - 1];
    for (int level = levels - 1; level < levels;) {
        open[warp][level][lane] = bound_of(nodes + node * rows * WARP, lane, x, directions, real, imaginary, slack);
        long long child = -1;
        while (level < levels) {
            const float mine = open[warp][level][lane], top = highest_of(mine);
            if (top <= limit * limit) {
                ++level;
                continue;
            }
            const int which = __ffs(int(__ballot_sync(ALL, mine == top))) - 1;
            if (lane == which) open[warp][level][lane] = 0;
            child = path[warp][level] * WARP + which;
            if (level > 0) break;
            meet(leaves + child * WIDTH * WARP, order + child * WARP, atoms, x, signal, norm, error, best, index,
                 doubtful);
            limit = float(fmax(best / norm - margin, 0.0));
        }
        if (level == levels) break;
        --level;
        __syncwarp();
        if (lane == 0) path[warp][level] = child;
        __syncwarp();
        node = starts[level] + child;
    }
    if (lane == 0) out[v] = doubtful ? -1 - index : index;
}

// The largest squared score of each tile of 32 groups: (tiles, voxels).
extern "C" __global__ void __launch_bounds__(128)
    tile_maxima(const float* single, const float* groups, float* maxima, int voxels, long long count) {
    using namespace match;
    __shared__ Four staged[STAGED * WARP * PADDED / 4];
    const long long first = (long long)blockIdx.y * TILE;
    const long long last = first + TILE < count ? first + TILE : count;
    const int v = int(blockIdx.x * blockDim.x + threadIdx.x) * PAIR;
    float x[PAIR][2 * RANK], top[PAIR];
#pragma unroll
    for (int k = 0; k < PAIR; ++k) {
        top[k] = 0;
#pragma unroll
        for (int r = 0; r < 2 * RANK; ++r) x[k][r] = v + k < voxels ? single[2LL * RANK * (v + k) + r] : 0.0f;
    }
    for (long long start = first; start < last; start += STAGED) {
        const int some = int(last - start < STAGED ? last - start : STAGED);
        __syncthreads();
        for (int i = int(threadIdx.x); i < some * WIDTH * WARP; i += int(blockDim.x)) {
            const int group = i / (WIDTH * WARP), r = i / WARP % WIDTH, atom = i % WARP;
            reinterpret_cast<float*>(staged)[(group * WARP + atom) * PADDED + r] = groups[start * WIDTH * WARP + i];
        }
        __syncthreads();
        for (int atom = 0; atom < some * WARP; ++atom) {
            float d[PADDED];
#pragma unroll
            for (int r = 0; r < PADDED; r += 4) {
                const Four four = staged[(atom * PADDED + r) / 4];
                d[r] = four.x, d[r + 1] = four.y, d[r + 2] = four.z, d[r + 3] = four.w;
            }
#pragma unroll
            for (int k = 0; k < PAIR; ++k) {
                float re = 0, im = 0;
#pragma unroll
                for (int r = 0; r < RANK; ++r) {
                    re = fmaf(d[r], x[k][r], re);
                    im = fmaf(d[r], x[k][RANK + r], im);
                    if (PLANES == 2) {
                        re = fmaf(d[WIDTH - RANK + r], x[k][RANK + r], re);
                        im = fmaf(-d[WIDTH - RANK + r], x[k][r], im);
                    }
                }
                top[k] = fmaxf(top[k], power_of(re, im));
            }
        }
    }
#pragma unroll
    for (int k = 0; k < PAIR; ++k) {
        if (v + k < voxels) maxima[(long long)blockIdx.y * voxels + v + k] = top[k];
    }
}

// The best atom among the tiles whose best score is within rounding of the best of all.
extern "C" __global__ void __launch_bounds__(128)
    settle(const double* signals, const float* single, const double* norms, const float* maxima, const float* groups,
           const long long* order, const float* atoms, long long* out, int voxels, int tiles, long long count,
           double error, long long lowest) {
    using namespace match;
    const int lane = int(threadIdx.x) % WARP;
    const long long v = (long long)blockIdx.x * WARPS + int(threadIdx.x) / WARP;
    if (v >= voxels) return;
    float top = 0;
    for (int tile = lane; tile < tiles; tile += WARP) top = fmaxf(top, maxima[(long long)tile * voxels + v]);
    const double least = fmax(sqrt(double(highest_of(top))) - 2 * error, 0.0);
    const float limit = float(least * least * (1 - 1e-6));
    double best = 0;
    bool doubtful = false;
    long long index = lowest;
    for (int tile = 0; tile < tiles; ++tile) {
        if (maxima[(long long)tile * voxels + v] < limit) continue;
        const long long first = (long long)tile * TILE, last = first + TILE < count ? first + TILE : count;
        for (long long group = first; group < last; ++group) {
            meet(groups + group * WIDTH * WARP, order + group * WARP, atoms, single + 2 * RANK * v, signals + 2 * RANK * v,
                 norms[3 * v], error, best, index, doubtful);
        }
    }
    if (lane == 0) out[v] = doubtful ? -1 - index : index;
}
