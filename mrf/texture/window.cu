// Co-occurrence features in the window around every voxel, on a GPU: what window.py counts, by whole windows.
//
// A warp a voxel, one direction after the other. A lane takes every 32nd pair of the window, counts it in the warp's
// table in shared memory, and adds what the sums change by: the atomic returns the count before. What was counted is
// then set to 0 again. All sums are whole numbers, so the order of lanes does not matter and they are the CPU's.
//
// Per voxel and direction: 4 rounds of 80 to 100 pairs at a radius of 2, each with two levels from the first-level cache,
// an atomic and a store in shared memory and about 20 instructions, 40 with moments; 10 instructions for each sum over
// lanes. 1036 pairs a voxel.
//
// Written for nvcc and for NVRTC: no header is included. Macros: BITS of a counter (8, 16 or 32).

namespace texture {

extern __shared__ double memory[];

constexpr int WARP = 32;
constexpr int DIRECTIONS = 13;
constexpr unsigned ALL = 0xffffffffu;
constexpr double SCALE = 4294967296.0;  // of sums that are no whole numbers
constexpr int EACH = 32 / BITS;         // counters of a word
constexpr unsigned MASK = BITS == 32 ? ALL : (1u << BITS % 32) - 1;

// As in window.py.
enum Flag { MOST = 1, MOMENTS = 2, CENTRAL = 4, DIFFERENCES = 8, TOTALS = 16, MARGINS = 32 };
enum Sum {
    PAIRS, APART, LOGS, SQUARES, D1, D2, R1, R1N, R2, R2N, INVERSE, S1, S2, S3, S4, LOGS_D, LOGS_S, LOGS_M, LARGEST, SUMS
};
enum Kind {
    JOINT_MAXIMUM = 0, JOINT_VARIANCE = 2, JOINT_ENTROPY = 3, DIFFERENCE_VARIANCE = 5, ANGULAR_SECOND_MOMENT = 10,
    CORRELATION = 18, AUTOCORRELATION = 19, CLUSTER_SHADE = 21, CLUSTER_PROMINENCE = 22, INFORMATION_1 = 23,
    INFORMATION_2 = 24
};

using Whole = unsigned long long;  // wraps around

__device__ __forceinline__ double nan() { return __longlong_as_double(0x7ff8000000000000LL); }

__device__ __forceinline__ double number(Whole sum) { return double((long long)sum); }

__device__ __forceinline__ Whole total_of(Whole value) {
    for (int with = WARP / 2; with > 0; with /= 2) value += __shfl_xor_sync(ALL, value, with, WARP);
    return value;
}

// Count one more at a place; the count before.
__device__ __forceinline__ unsigned counted(unsigned* table, int place) {
    const int shift = place % EACH * (BITS % 32);
    return (atomicAdd(table + place / EACH, 1u << shift) >> shift) & MASK;
}

struct Tables {
    const long long* rise;
    const double* log2;
    const long long* reciprocal;
    const int* column;
    const double* factor;
    int flags;
    int differences, totals, margins;  // where these counters begin
};

// A lane's part of the sums over a direction's pairs.
__device__ __forceinline__ void count_pairs(const unsigned short* corner, const int* here, const int* there, int first,
                                            int last, const Tables& t, unsigned* table, Whole* own) {
    const int flags = t.flags;
    for (int i = first; i < last; i += WARP) {
        const int a = corner[here[i]], b = corner[there[i]];
        if (a == 0 || b == 0) continue;
        const int low = a < b ? a : b, high = a < b ? b : a, equal = a == b;
        const unsigned old = counted(table, high * (high - 1) / 2 + low - 1);
        own[PAIRS] += 1;
        own[APART] += 1 - equal;
        own[LOGS] += t.rise[old];
        own[SQUARES] += Whole(2 * old + 1) << (1 + equal);
        const Whole now = Whole(old + 1) << equal;
        own[LARGEST] = now > own[LARGEST] ? now : own[LARGEST];
        const Whole d = high - low, s = high + low;
        if (flags & MOMENTS) {
            const long long* const r = t.reciprocal + 5 * d;
            own[D1] += d;
            own[D2] += d * d;
#pragma unroll
            for (int k = 0; k < 5; ++k) own[R1 + k] += r[k];
            own[S1] += s;
            own[S2] += s * s;
            own[S3] += s * s * s;
            own[S4] += s * s * s * s;
        }
        if (flags & DIFFERENCES) own[LOGS_D] += t.rise[counted(table, t.differences + d)];
        if (flags & TOTALS) own[LOGS_S] += t.rise[counted(table, t.totals + s)];
        if (flags & MARGINS) {
            own[LOGS_M] += t.rise[counted(table, t.margins + a)];
            own[LOGS_M] += t.rise[counted(table, t.margins + b)];
        }
    }
}

// Set to 0 what the lane has counted.
__device__ __forceinline__ void forget_pairs(const unsigned short* corner, const int* here, const int* there, int first,
                                             int last, const Tables& t, unsigned* table) {
    for (int i = first; i < last; i += WARP) {
        const int a = corner[here[i]], b = corner[there[i]];
        if (a == 0 || b == 0) continue;
        const int low = a < b ? a : b, high = a < b ? b : a;
        table[(high * (high - 1) / 2 + low - 1) / EACH] = 0;
        if (t.flags & DIFFERENCES) table[(t.differences + high - low) / EACH] = 0;
        if (t.flags & TOTALS) table[(t.totals + high + low) / EACH] = 0;
        if (t.flags & MARGINS) table[(t.margins + a) / EACH] = table[(t.margins + b) / EACH] = 0;
    }
}

struct Central {
    double second, third, fourth;
};

// Of a + b: exactly about a whole number, then about the mean.
__device__ __forceinline__ Central central(const Whole* sums) {
    const long long pairs = (long long)sums[PAIRS];
    const Whole n = sums[PAIRS], m = Whole((2 * (long long)sums[S1] + pairs) / (2 * pairs));
    const Whole one = sums[S1] - n * m, two = sums[S2] - 2 * m * sums[S1] + n * m * m;
    const Whole three = sums[S3] - 3 * m * sums[S2] + 3 * m * m * sums[S1] - n * m * m * m;
    const Whole four = sums[S4] - 4 * m * sums[S3] + 6 * m * m * sums[S2] - 4 * m * m * m * sums[S1] + n * m * m * m * m;
    const double count = double(pairs);
    const double rest = number(one) / count, a = number(two) / count, b = number(three) / count, c = number(four) / count;
    return {a - rest * rest, b - 3 * rest * a + 2 * rest * rest * rest,
            c - 4 * rest * b + 6 * rest * rest * a - 3 * rest * rest * rest * rest};
}

// A feature that is no quotient of a direction's sums; NaN where it is undefined.
__device__ __forceinline__ double value_of(int kind, const Whole* sums, const Tables& t) {
    const long long pairs = (long long)sums[PAIRS];
    const double n = double(pairs);
    if (kind == JOINT_MAXIMUM) return number(sums[LARGEST]) / (2 * n);
    if (kind == ANGULAR_SECOND_MOMENT) return number(sums[SQUARES]) / (2 * n * (2 * n));
    if (kind == DIFFERENCE_VARIANCE) return number(sums[PAIRS] * sums[D2] - sums[D1] * sums[D1]) / (n * n);
    if (kind == AUTOCORRELATION) return number(sums[S2] - sums[D2]) / (4 * n);
    if (kind == INFORMATION_1 || kind == INFORMATION_2) {
        double joint = t.log2[pairs] + (number(sums[APART]) - number(sums[LOGS]) / SCALE) / n;
        joint = joint > 0 ? joint : 0;
        const double alone = t.log2[2 * pairs] - number(sums[LOGS_M]) / SCALE / (2 * n);
        const double shared = 2 * alone - joint > 0 ? 2 * alone - joint : 0;
        if (kind == INFORMATION_2) return sqrt(1 - exp(-2 * shared));
        return alone > 1 / SCALE ? -shared / alone : nan();
    }
    const Central about = central(sums);
    const double contrast = number(sums[D2]) / n;
    if (kind == JOINT_VARIANCE) return (about.second + contrast) / 4;
    if (kind == CORRELATION) {
        const bool known = sums[APART] > 0 || about.second > 1e-9;
        return known ? (about.second - contrast) / (about.second + contrast) : nan();
    }
    if (kind == CLUSTER_SHADE) return about.third;
    return kind == CLUSTER_PROMINENCE ? about.fourth : about.second;
}

// A feature's mean over directions, in their order; lane d has that of direction d.
__device__ __forceinline__ double mean_of(int kind, int lane, const Whole* all, const Tables& t) {
    const int column = t.column[kind];
    const bool mine = lane < DIRECTIONS && all[lane * SUMS + PAIRS] > 0;
    const Whole* const sums = all + (lane < DIRECTIONS ? lane : 0) * SUMS;
    double value = nan();
    if (mine && column < 0) value = value_of(kind, sums, t);
    if (mine && column >= 0) value = number(sums[column]) * (1 / double((long long)sums[PAIRS]));
    double apart = mine ? number(sums[APART]) * (1 / double((long long)sums[PAIRS])) : 0;
    double logs = mine ? t.log2[sums[PAIRS]] : 0;
    double total = 0, offset = 0;
    int many = 0;
    for (int d = 0; d < DIRECTIONS; ++d) {
        const double one = __shfl_sync(ALL, value, d, WARP);
        many += one == one;
        total += one == one ? one : 0;
    }
    if (many == 0) return nan();
    if (column < 0) return total / many;
    const double factor = t.factor[kind];
    if (factor >= 0) return total * factor / many;
    if (kind == JOINT_ENTROPY) {
        for (int d = 0; d < DIRECTIONS; ++d) offset += __shfl_sync(ALL, apart, d, WARP);
    }
    double more = 0;
    for (int d = 0; d < DIRECTIONS; ++d) more += __shfl_sync(ALL, logs, d, WARP);
    const double entropy = (offset + more + total * factor) / many;
    return entropy > 0 ? entropy : 0;
}

}  // namespace texture

extern "C" __global__ void __launch_bounds__(128)
    cooccurrence(const unsigned short* levels, const int* here, const int* there, const int* starts,
                 const long long* rise, const double* log2, const long long* reciprocal, const int* column,
                 const double* factor, const int* kinds, double* out, int depth, int rows, int columns, int padded_rows,
                 int padded_columns, int radius, int count, int flags, int features) {
    using namespace texture;
    const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP, warp = threadIdx.x / WARP;
    const int pairs = count * (count + 1) / 2;
    const Tables t{rise, log2, reciprocal, column, factor, flags, pairs, pairs + count, pairs + 3 * count + 1};
    const int words = ((pairs + 4 * count + 2) * (BITS / 8) + 3) / 4, room = DIRECTIONS * SUMS + (words + 1) / 2;
    Whole* const all = reinterpret_cast<Whole*>(memory) + warp * room;
    unsigned* const table = reinterpret_cast<unsigned*>(all + DIRECTIONS * SUMS);
    for (int i = lane; i < words; i += WARP) table[i] = 0;
    __syncwarp();
    const long long voxels = (long long)depth * rows * columns;
    const long long centre = (long long)radius * ((long long)padded_rows * padded_columns + padded_columns + 1);
    for (long long v = (long long)blockIdx.x * warps + warp; v < voxels; v += (long long)gridDim.x * warps) {
        const long long x = v % columns, y = v / columns % rows, z = v / columns / rows;
        const unsigned short* const corner = levels + (z * padded_rows + y) * padded_columns + x;
        if (corner[centre] == 0) continue;
        for (int d = 0; d < DIRECTIONS; ++d) {
            Whole own[SUMS] = {};
            count_pairs(corner, here, there, starts[d] + lane, starts[d + 1], t, table, own);
            __syncwarp();
            forget_pairs(corner, here, there, starts[d] + lane, starts[d + 1], t, table);
#pragma unroll
            for (int k = 0; k < SUMS; ++k) {
                if (k == LARGEST || (k >= D1 && k <= S4 && !(flags & MOMENTS))) continue;
                if (k >= LOGS_D && k < LARGEST && !(flags & (DIFFERENCES | TOTALS | MARGINS))) continue;
                const Whole total = total_of(own[k]);
                if (lane == k) all[d * SUMS + k] = total;
            }
            if (flags & MOST) {
                Whole largest = own[LARGEST];
                for (int with = WARP / 2; with > 0; with /= 2) {
                    const Whole other = __shfl_xor_sync(ALL, largest, with, WARP);
                    largest = other > largest ? other : largest;
                }
                if (lane == LARGEST) all[d * SUMS + LARGEST] = largest;
            }
            __syncwarp();
        }
        for (int k = 0; k < features; ++k) {
            const double value = mean_of(kinds[k], lane, all, t);
            if (lane == 0) out[k * voxels + v] = value;
        }
        __syncwarp();
    }
}
