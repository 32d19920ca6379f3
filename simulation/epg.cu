// Extended phase graphs on a GPU: the program of program.py, played as kernels.py plays it.
//
// GROUP neighbouring lanes of a warp play one atom. Each lane holds HELD consecutive configuration orders of
// p = i F+, q = -i F- and z in registers: order = lane * HELD + j. All lanes play the same operation at the same
// time, so no branch on an operation diverges. A gradient renames registers inside a lane and moves one number of
// p and of q across lanes; where a pulse follows, shift and rotation are compiled as one and nothing is copied.
//
// Floor per pulse and order: 8 instructions (12 flop) for one channel of real states, 24 (36 flop) for two channels,
// precession included. Beside them about 60 instructions per pulse are the same in all lanes of an atom (exponentials
// where the waiting time changed, cosine and sine, decoding): few lanes with many orders each repeat less, many lanes
// fill the device when atoms are few. device.py weighs both.
// Bytes in device memory: what is written, 8 (float) or 16 (double) per atom and frame; with P > 1 positions in the
// slice these are also read again and come P times. States never leave the registers but for the periodic test, which
// keeps those of the pass before in shared memory. Diffusion keeps its factors there, as long as the b-value stays the
// same.
// Few warps have room for their states, so nothing hides a latency: 32 operations come to shared memory at once, a lane
// each, and factors and rows are read when 16 frames are written.
//
// Written for nvcc and for NVRTC: no header but numbers.cuh is included. Each inclusion of this file defines one entry
// point, for the macros REAL (float or double), CHANNELS (1 = states real, 2 = complex), GROUP and HELD:
// signals_REAL_CHANNELS_GROUP_HELD. A block is one warp.

#ifndef EPG_CU
#define EPG_CU

#include "numbers.cuh"

namespace epg {

enum { ROTATE, SHAPED, INVERT, SATURATE, CRUSH, SETTLE, LOCK, SHIFT, DIFFUSE, READOUT };  // as in program.py
enum { R1, R2, B1, OFF_RESONANCE, DIFFUSION, R1RHO, TISSUE };  // columns of `tissue`, and how many
constexpr int SHIFTED = 16;  // added to ROTATE and SHAPED: p moves one order up and q one down right before
constexpr int WARP = 32;
constexpr int STAGED = 16;  // frames gathered in shared memory, to be written as lines of 128 bytes or more
constexpr unsigned ALL = 0xffffffffu;

alignas(16) extern __shared__ double memory[];

template <typename Real>
struct alignas(2 * sizeof(Real)) Two {
    Real x, y;
};

template <typename Real>
struct alignas(16) Node {  // of a shaped pulse's table: alpha, i beta, relaxation during the pulse (s)
    Real ar, ai, br, bi, across, along, duration, spare;
};

// Waiting time (s) since the states were last relaxed, phase (turns, within +-1/2) to make up for since then, and own
// values: ROTATE flip (turns), its cosine and sine; SHAPED flip (steps of the table); INVERT, SATURATE, CRUSH factor on
// z; LOCK duration (s), amplitude (Hz); SHIFT +-1; DIFFUSE +-1, b-value (s/m^2). `low` is what rounding to Real left.
template <typename Real>
struct alignas(16) Operation {
    Real wait, wait_low, turns, first, first_low, second, third, kind;
};

template <typename Real>
struct Flip {
    Real across, cosine, sine;
};

template <typename Real>
struct Task {
    const Operation<Real>* operation;    // (programs, operations): one for all positions, or one each
    const Two<Real>* factor;             // (frames,): signal = factor * i F+_0
    const double* tissue;                // (atoms, 6): 1/s, 1/s, relative, Hz, m^2/s, 1/s
    const long long* row;                // (atoms,): row of `out`
    const double* scale;                 // (positions, 2): factor on b1, weight in the sum
    const Node<Real>* table;             // (positions, nodes) of a shaped pulse
    Two<Real>* out;                      // (any, frames)
    int operations, programs, frames, atoms, positions, nodes;
    int orders;                          // kept, at most GROUP * HELD; those above stay zero
    int common;                          // all atoms share b1: cosines and sines are in the program
    int only_real;                       // the sum over positions is real
    int passes;                          // at most
    double duration, until;              // of one pass (s); relative distance to the periodic state, 0 = all passes
};

// Reals of shared memory a block needs; device.py knows the same numbers.
template <typename Real, int C, int G, int M>
struct Shared {
    static constexpr int atoms = WARP / G;
    static constexpr int program = 8 * WARP;                // operations
    static constexpr int stage = 2 * atoms * (STAGED + 1);  // one more than STAGED: no bank conflicts
    static constexpr int kept = 3 * C * M * WARP;           // if passes end at the periodic state
    static constexpr int attenuation = (2 * M + 1) * WARP;  // if there is diffusion
};

#define EACH_ORDER \
    _Pragma("unroll") for (int c = 0; c < C; ++c) _Pragma("unroll") for (int j = 0; j < M; ++j)

template <typename Real, int C, int G, int M>
struct Player {
    const Task<Real>& task;
    const int lane, atom, first;  // lane in the group; its first order
    const bool cut;               // fewer orders are kept than fit
    Operation<Real>* const program;  // 32 of the operations
    Two<Real>* const stage;
    Real* const kept;
    Real* const attenuation;

    Real p[C][M], q[C][M], z[C][M];
    Pair<Real> b1, offset;
    Real r1, r2, energy;

    __device__ __forceinline__ explicit Player(const Task<Real>& task)
        : task(task), lane(threadIdx.x % G),
          atom(blockIdx.x * (WARP / G) + threadIdx.x / G),
          first(lane * M),
          cut(task.orders < G * M),
          program(reinterpret_cast<Operation<Real>*>(memory)),
          stage(reinterpret_cast<Two<Real>*>(program + WARP)),
          kept(reinterpret_cast<Real*>(stage) + Shared<Real, C, G, M>::stage),
          attenuation(kept + (task.until > 0 ? Shared<Real, C, G, M>::kept : 0)) {}

    // Lanes without an atom of their own play the last one, and write nothing.
    __device__ __forceinline__ double tissue(int column) const {
        return task.tissue[(long long)(atom < task.atoms ? atom : task.atoms - 1) * TISSUE + column];
    }

    __device__ __forceinline__ void start(int position) {
        EACH_ORDER p[c][j] = q[c][j] = z[c][j] = 0;
        z[0][0] = lane == 0 ? 1 : 0;
        b1 = split<Real>(tissue(B1) * task.scale[2 * position]);
        offset = split<Real>(tissue(OFF_RESONANCE));
        r1 = Real(tissue(R1));
        r2 = Real(tissue(R2));
    }

    // One order up, one order down; F_0 is what was F_-1, the conjugate of F-_1. What leaves the top is lost.
    __device__ __forceinline__ void shift(Real (&up)[C][M], Real (&down)[C][M]) const {
        if (cut) {
            const int top = task.orders - 1 - first;
            EACH_ORDER up[c][j] = j == top ? Real(0) : up[c][j];
        }
#pragma unroll
        for (int c = 0; c < C; ++c) {
            const Real below = G == 1 ? Real(0) : __shfl_up_sync(ALL, up[c][M - 1], 1, G);
            const Real above = G == 1 ? Real(0) : __shfl_down_sync(ALL, down[c][0], 1, G);
#pragma unroll
            for (int j = M - 1; j > 0; --j) up[c][j] = up[c][j - 1];
#pragma unroll
            for (int j = 0; j < M - 1; ++j) down[c][j] = down[c][j + 1];
            down[c][M - 1] = lane == G - 1 ? Real(0) : above;
            up[c][0] = lane > 0 ? below : c == 0 ? down[c][0] : -down[c][0];
        }
    }

    // Relax, then rotate: `half` is half the transverse decay, `recovery` what grows back at order 0.
    // Of the two cosines, `across` turns what is transverse; they differ by relaxation during a shaped pulse.
    __device__ __forceinline__ void rotate(Real half, Real keep, Real recovery, Flip<Real> flip) {
        const Real cp = flip.across * half, sp = flip.sine * half, cz = flip.cosine * keep, sz = flip.sine * keep;
        EACH_ORDER {
            const Real both = p[c][j] + q[c][j], between = p[c][j] - q[c][j], along = z[c][j];
            const Real part = fused(cp, both, sz * along);
            z[c][j] = fused(-sp, both, cz * along);
            p[c][j] = fused(half, between, part);
            q[c][j] = fused(-half, between, part);
        }
        const Real grown = lane == 0 ? recovery : Real(0);
        z[0][0] = fused(flip.cosine, grown, z[0][0]);
        p[0][0] = fused(flip.sine, grown, p[0][0]);
        q[0][0] = fused(flip.sine, grown, q[0][0]);
    }

    // p times exp(i angle), q times exp(-i angle).
    __device__ __forceinline__ void turn(Turn<Real> angle) {
        if constexpr (C == 2) {
#pragma unroll
            for (int j = 0; j < M; ++j) {
                const Real pr = p[0][j], pi = p[1][j], qr = q[0][j], qi = q[1][j];
                p[0][j] = fused(angle.cosine, pr, -(angle.sine * pi));
                p[1][j] = fused(angle.cosine, pi, angle.sine * pr);
                q[0][j] = fused(angle.cosine, qr, angle.sine * qi);
                q[1][j] = fused(angle.cosine, qi, -(angle.sine * qr));
            }
        }
    }

    // p and q times `decay` (if `swapped`, p becomes -q and q -p), z times `keep`, plus recovery.
    __device__ __forceinline__ void scale(Real decay, Real keep, Real recovery, bool swapped) {
        EACH_ORDER {
            const Real a = decay * p[c][j], b = decay * q[c][j];
            p[c][j] = swapped ? -b : a;
            q[c][j] = swapped ? -a : b;
            z[c][j] *= keep;
        }
        z[0][0] += lane == 0 ? recovery : Real(0);
    }

    // Attenuation by diffusion along one gradient: exp(-b D 3 k^2) of z, and of order k - 1 to k and back.
    __device__ __forceinline__ void attenuate(Real b_value) const {
        const Real weight = -b_value * Real(tissue(DIFFUSION));
#pragma unroll 1
        for (int j = 0; j <= M; ++j) {
            const Real k = first + j, square = 3 * k * k;
            if (j < M) attenuation[j * WARP + threadIdx.x] = Exponentials<Real>(weight * square).whole;
            attenuation[(M + j) * WARP + threadIdx.x] = Exponentials<Real>(weight * (square - 3 * k + 1)).whole;
        }
    }

    __device__ __forceinline__ void diffuse(Real (&up)[C][M], Real (&down)[C][M]) {
        EACH_ORDER {
            z[c][j] *= attenuation[j * WARP + threadIdx.x];
            down[c][j] *= attenuation[(M + j) * WARP + threadIdx.x];
            up[c][j] *= attenuation[(M + j + 1) * WARP + threadIdx.x];
        }
    }

    // Decay along the effective field of a spin lock: R1 cos^2 + R1rho sin^2, tangent = amplitude b1 / offset.
    // It is the same everywhere in the slice.
    __device__ __forceinline__ Real locked(Real duration, Real amplitude) const {
        const double lock = tissue(B1) * double(amplitude), off = tissue(OFF_RESONANCE);
        const double across = lock * lock + 1e-300, along = off * off;
        const double rate = (tissue(R1) * along + tissue(R1RHO) * across) / (across + along);
        return Exponentials<Real>(Real(-rate * double(duration))).whole;
    }

    // What is no pulse: inversion, saturation, spoiler, spin lock, or nothing but relaxation.
    __device__ __forceinline__ void act(int kind, const Operation<Real>& own, Real decay, Real keep, Real recovery) {
        if (kind == LOCK) {
            const Exponentials<Real> during(-own.first * r1);
            scale(decay * locked(own.first, own.second), keep * during.whole,
                  recovery * during.whole - during.less_one, false);
        } else if (kind == SETTLE) {
            scale(decay, keep, recovery, false);
        } else {
            scale(kind == INVERT ? decay : Real(0), keep * own.first, recovery * own.first, kind == INVERT);
        }
    }

    // What a shaped pulse does: its flip; the phase before it is added to `angle`, that after it is left in `past`.
    // Four nodes around the flip angle are interpolated by a cubic.
    __device__ __forceinline__ Flip<Real> shaped(const Operation<Real>& own, int position, Turn<Real>& angle,
                                                 Turn<Real>& past) const {
        const Pair<Real> at = exact(b1, own.first, own.first_low);
        int node = int(at.high);
        node = node < 1 ? 1 : node > task.nodes - 3 ? task.nodes - 3 : node;
        const Real x = (at.high - Real(node)) + at.low;
        const Real w0 = -x * (x - 1) * (x - 2) / 6, w1 = (x + 1) * (x - 1) * (x - 2) / 2;
        const Real w2 = -(x + 1) * x * (x - 2) / 2, w3 = (x + 1) * x * (x - 1) / 6;
        const Node<Real>* const table = task.table + (long long)position * task.nodes + node;
        const Node<Real> a = table[-1], b = table[0], c = table[1], d = table[2];
        Real ar = w0 * a.ar + w1 * b.ar + w2 * c.ar + w3 * d.ar, ai = w0 * a.ai + w1 * b.ai + w2 * c.ai + w3 * d.ai;
        Real br = w0 * a.br + w1 * b.br + w2 * c.br + w3 * d.br, bi = w0 * a.bi + w1 * b.bi + w2 * c.bi + w3 * d.bi;
        const Real aa = ar * ar + ai * ai, bb = br * br + bi * bi, least = sizeof(Real) == 4 ? 1e-34 : 1e-300;
        const Real la = root(aa), lb = root(bb), size = aa + bb;
        ar = aa > least ? ar / la : Real(1);  // no phase where nothing or everything is turned over
        ai = aa > least ? ai / la : Real(0);
        br = bb > least ? br / lb : Real(1);
        bi = bb > least ? bi / lb : Real(0);
        angle = after(angle, Turn<Real>{ar * br - ai * bi, -(ar * bi + ai * br)});
        past = {ar * br + ai * bi, ar * bi - ai * br};
        const Real across = w0 * a.across + w1 * b.across + w2 * c.across + w3 * d.across, cosine = (aa - bb) / size;
        const Real along = w0 * a.along + w1 * b.along + w2 * c.along + w3 * d.along;
        const Real excess = -Exponentials<Real>((r1 - r2) * a.duration).less_one / a.duration;  // 1 - exp(-x): below 1
        return {fused(excess, across, cosine), fused(excess, along, cosine), 2 * la * lb / size};
    }

    // One frame, from order 0, into the stage.
    __device__ __forceinline__ void record(Real real, Real imaginary, int frame, Real weight, bool writing) {
        if (lane > 0) return;
        energy = fused(real, real, energy);
        if (C == 2) energy = fused(imaginary, imaginary, energy);
        if (!writing) return;
        const Real b = C == 1 || task.only_real ? Real(0) : weight * imaginary;
        stage[threadIdx.x / G * (STAGED + 1) + frame % STAGED] = {weight * real, b};
    }

    // The `count` frames in the stage, the first being `frame`, times their factors to device memory; neighbouring lanes
    // write neighbours. Every lane has the same frame in all rounds; several rounds at once wait for their rows together.
    __device__ __forceinline__ void flush(int frame, int count, bool adding) const {
        constexpr int atoms = WARP / G, apart = WARP / STAGED;
        const int step = threadIdx.x % STAGED, first = blockIdx.x * atoms;
        __syncwarp();
        if (step < count) {
            const Two<Real> factor = task.factor[frame + step];
#pragma unroll (sizeof(Real) == 4 && M > 8 ? 4 : 1)
            for (int which = threadIdx.x / STAGED; which < atoms; which += apart) {
                const int owner = first + which < task.atoms ? first + which : task.atoms - 1;
                Two<Real>* const place = task.out + task.row[owner] * task.frames + frame + step;
                const Two<Real> own = stage[which * (STAGED + 1) + step];
                Two<Real> value = {own.x * factor.x - own.y * factor.y, own.x * factor.y + own.y * factor.x};
                if (first + which >= task.atoms) continue;
                if (adding) value = {place->x + value.x, place->y + value.y};
                *place = value;
            }
        }
        __syncwarp();
    }

    // The next `count` operations, or 32 of them.
    __device__ __forceinline__ void fetch(const Operation<Real>* from, int count) const {
        __syncwarp();
        if (int(threadIdx.x) < count) program[threadIdx.x] = from[threadIdx.x];
        __syncwarp();
    }

    // Play the program once; `writing`: the frames are written.
    __device__ __forceinline__ void play(int position, bool writing) {
        const Operation<Real>* const all =
            task.operation + (long long)(position < task.programs ? position : 0) * task.operations;
        const Real weight = task.positions > 1 ? Real(task.scale[2 * position + 1]) : Real(1);
        int frame = 0;
        bool posted = false;
        Real known = -1, known_read = -1, known_b = -1, half = 0, keep = 1, recovery = 0, read = 1;
        Turn<Real> past = {1, 0};
        energy = 0;
        constexpr bool early = sizeof(Real) == 4;  // in double precision there are no registers for it
        Operation<Real> next{};
#pragma unroll 1
        for (int op = 0; op < task.operations; ++op) {
            if (op % WARP == 0) {
                fetch(all + op, task.operations - op);
                next = program[0];
            }
            const Operation<Real> own = early ? next : program[op % WARP];
            if (early) next = program[(op + 1) % WARP];  // comes while this one is played
            const int kind = int(own.kind);
            if (kind == SHIFT) {
                own.first > 0 ? shift(p, q) : shift(q, p);
                continue;
            }
            if (kind == DIFFUSE) {
                if (own.second != known_b) attenuate(known_b = own.second);
                own.first > 0 ? diffuse(p, q) : diffuse(q, p);
                continue;
            }
            Turn<Real> angle = {1, 0};
            if (C == 2) {
                angle = turned(reduced(offset, own.wait, own.wait_low, own.turns));
                if (posted) angle = after(angle, past);
            }
            if (kind == READOUT) {
                if (own.wait != known_read) read = Exponentials<Real>(-(known_read = own.wait) * r2).whole;
                const Real real = read * p[0][0], imaginary = C == 2 ? read * p[C - 1][0] : Real(0);
                record(angle.cosine * real - angle.sine * imaginary, angle.cosine * imaginary + angle.sine * real,
                       frame++, weight, writing);
                if (writing && frame % STAGED == 0) flush(frame - STAGED, STAGED, position > 0);
                continue;
            }
            if (own.wait != known) {
                known = own.wait;
                half = Exponentials<Real>(-known * r2).whole / 2;
                const Exponentials<Real> longitudinal(-known * r1);
                keep = longitudinal.whole;
                recovery = -longitudinal.less_one;
            }
            const int bare = kind & ~SHIFTED;
            posted = bare == SHAPED;
            if (bare == ROTATE || (C == 2 && bare == SHAPED)) {
                Flip<Real> flip = {own.second, own.second, own.third};
                if (C == 2 && bare == SHAPED) {
                    flip = shaped(own, position, angle, past);
                } else if (!task.common) {
                    const Turn<Real> both = turned(reduced(b1, own.first, own.first_low, Real(0)));
                    flip = {both.cosine, both.cosine, both.sine};
                }
                if (kind & SHIFTED) {  // written twice, so that the shift only renames registers
                    shift(p, q);
                    turn(angle);
                    rotate(half, keep, recovery, flip);
                } else {
                    turn(angle);
                    rotate(half, keep, recovery, flip);
                }
                continue;
            }
            turn(angle);
            act(bare, own, 2 * half, keep, recovery);
        }
        if (writing && frame % STAGED != 0) flush(frame - frame % STAGED, frame % STAGED, position > 0);
    }

    // Squared distance of the states from those kept before, which they replace.
    __device__ __forceinline__ Real replace() const {
        Real total = 0;
        EACH_ORDER {
            const Real now[] = {p[c][j], q[c][j], z[c][j]};
#pragma unroll
            for (int part = 0; part < 3; ++part) {
                Real& place = kept[((part * C + c) * M + j) * WARP + threadIdx.x];
                const Real change = now[part] - place;
                total = fused(change, part == 2 ? 2 * change : change, total);
                place = now[part];
            }
        }
        return total;
    }

    // Whether what is left to change is below `until` of the signal in every atom of the warp; kernels.py says why.
    __device__ __forceinline__ bool periodic() const {
        Real excess = replace();
#pragma unroll
        for (int step = 1; step < G; step *= 2) excess += __shfl_xor_sync(ALL, excess, step, G);
        double slowest = tissue(R1) < tissue(R2) ? tissue(R1) : tissue(R2);
        slowest = slowest < tissue(R1RHO) ? slowest : tissue(R1RHO);
        const double closing = Exponentials<double>(-slowest * task.duration).less_one * task.until;
        const bool close = double(excess) * task.frames * C <= double(energy) * (closing * closing);
        return __all_sync(ALL, lane > 0 || close);
    }

    // Every position: passes until the last one, or one more after the first that is periodic; its frames are written.
    __device__ __forceinline__ void run() {
#pragma unroll 1
        for (int position = 0; position < task.positions; ++position) {
            start(position);
            if (task.until > 0) replace();
            bool settled = false;
#pragma unroll 1
            for (int number = 1; number <= task.passes; ++number) {
                const bool last = settled || number == task.passes;
                play(position, last);
                if (last) break;
                settled = task.until > 0 && periodic();
            }
        }
    }
};

}  // namespace epg

#define EPG_PASTE(real, channels, group, held) signals_##real##_##channels##_##group##_##held
#define EPG_NAME(real, channels, group, held) EPG_PASTE(real, channels, group, held)

#endif

#ifdef REAL
extern "C" __global__ void __launch_bounds__(epg::WARP) EPG_NAME(REAL, CHANNELS, GROUP, HELD)(
    const epg::Operation<REAL>* __restrict__ operation, const epg::Two<REAL>* __restrict__ factor,
    const double* __restrict__ tissue, const long long* __restrict__ row, const double* __restrict__ scale,
    const epg::Node<REAL>* __restrict__ table, epg::Two<REAL>* __restrict__ out, int operations, int programs, int frames, int atoms, int positions, int nodes, int orders, int common,
    int only_real, int passes, double duration, double until) {
    const epg::Task<REAL> task = {
        operation, factor, tissue, row,    scale,     table,  out,      operations, programs, frames,
        atoms,     positions, nodes,  orders, common, only_real, passes, duration,   until};
    epg::Player<REAL, CHANNELS, GROUP, HELD>(task).run();
}
#endif
