// Enough of CUDA for g++ to compile an unchanged kernel and play it on the CPU, one block after the other.
//
// Each CUDA thread of a block is a fiber. A fiber runs until it comes to a collective (shuffle, vote, barrier), leaves
// its value there and lets the next one run; when its turn comes again, all others have left theirs. The order of the
// fibers is fixed, and can be reversed: results that differ then show a missing barrier. Fibers that meet in different
// collectives, shared memory that was not written (it starts as NaN) and writes behind its end are found.

#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__
#define __launch_bounds__(...)

struct Index {
    unsigned x = 0, y = 0;
};
inline Index threadIdx, blockIdx, blockDim, gridDim;

namespace epg {
inline constexpr std::size_t doubles = 1 << 14;
alignas(16) inline double memory[doubles];  // all shared memory a kernel may ask for, and a margin
}  // namespace epg

namespace host {

constexpr int WARP = 32;

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(1 << 16);
    long collectives = 0;
    bool done = false;
};

struct Post {
    long number = -1;  // of the collective
    int kind = 0;
    unsigned long long value = 0;
};

inline std::vector<Fiber> fibers;
inline std::vector<Post> posts[2];
inline ucontext_t scheduler;
inline std::function<void()> body;
inline bool failed, alone;  // alone: threads that know nothing of each other need no fibers
inline unsigned waiting, barriers;  // threads at the block's barrier; barriers passed

inline void play() {
    try {
        body();
    } catch (const std::exception& error) {
        if (!failed) std::fprintf(stderr, "block %u, thread %u: %s\n", blockIdx.x, threadIdx.x, error.what());
        failed = true;
    }
}

inline void enter() {
    Fiber& own = fibers[threadIdx.x];
    play();
    own.done = true;
    swapcontext(&own.context, &scheduler);
}

// Leave a value for the others of the warp; returns where all of theirs are.
inline const Post* meet(int kind, unsigned mask, unsigned long long value) {
    const unsigned me = threadIdx.x, first = me / WARP * WARP;
    if (mask != 0xffffffffu) throw std::runtime_error("a collective of some lanes only");
    if (alone) throw std::runtime_error("a collective in a kernel that is said to have none");
    Fiber& own = fibers[me];
    const long number = own.collectives++;
    posts[number % 2][me] = {number, kind, value};
    swapcontext(&own.context, &scheduler);
    for (unsigned lane = first; lane < first + WARP; ++lane) {
        const Post& other = posts[number % 2][lane];
        if (other.number != number || other.kind != kind) throw std::runtime_error("lanes in different collectives");
    }
    return posts[number % 2].data() + first;
}

template <typename T>
T shuffled(int kind, unsigned mask, T value, int source) {
    static_assert(sizeof(T) <= 8);
    unsigned long long bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    const Post* const all = meet(kind, mask, bits);
    std::memcpy(&value, &all[source].value, sizeof(T));
    return value;
}

inline int lane() { return int(threadIdx.x) % WARP; }

// Play a kernel; `arguments` are pointers to its arguments, as for cudaLaunchKernel. Returns 0, or 1 after an error.
template <typename... Arguments, std::size_t... I>
int launch(void (*kernel)(Arguments...), unsigned columns, unsigned rows, unsigned threads, std::size_t shared,
           bool reversed, void** arguments, bool by_itself, std::index_sequence<I...>) {
    alone = by_itself;
    failed = shared > sizeof(epg::memory) / 2 || threads % WARP != 0;
    blockDim.x = threads;
    gridDim.x = columns;
    gridDim.y = rows;
    body = [&] { kernel(*static_cast<std::remove_const_t<Arguments>*>(arguments[I])...); };
    for (unsigned block = 0; block < columns * rows && !failed; ++block) {
        blockIdx.x = block % columns;
        blockIdx.y = block / columns;
        if (alone) {
            for (unsigned i = 0; i < threads; ++i) {
                threadIdx.x = reversed ? threads - 1 - i : i;
                play();
            }
            continue;
        }
        waiting = 0;
        if (shared > 0) std::memset(static_cast<void*>(epg::memory), 0xff, sizeof(epg::memory));
        fibers.resize(threads);
        for (auto& some : posts) some.assign(threads, Post{});
        for (Fiber& fiber : fibers) {
            fiber.collectives = 0;
            fiber.done = false;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.data();
            fiber.context.uc_stack.ss_size = fiber.stack.size();
            fiber.context.uc_link = nullptr;
            makecontext(&fiber.context, enter, 0);
        }
        for (bool running = true; running;) {
            running = false;
            for (unsigned i = 0; i < threads; ++i) {
                threadIdx.x = reversed ? threads - 1 - i : i;
                if (fibers[threadIdx.x].done) continue;
                swapcontext(&scheduler, &fibers[threadIdx.x].context);
                running = true;
            }
        }
        if (shared == 0) continue;
        const unsigned char* const bytes = reinterpret_cast<const unsigned char*>(epg::memory);
        for (std::size_t i = shared; i < sizeof(epg::memory); ++i) failed = failed || bytes[i] != 0xff;
    }
    return failed;
}

template <typename... Arguments>
int launch(void (*kernel)(Arguments...), unsigned columns, unsigned rows, unsigned threads, std::size_t shared,
           bool reversed, void** arguments, bool by_itself = false) {
    return launch(kernel, columns, rows, threads, shared, reversed, arguments, by_itself,
                  std::index_sequence_for<Arguments...>{});
}

}  // namespace host

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width) {
    const int me = host::lane(), inside = me % width;
    return host::shuffled(1, mask, value, inside < int(by) ? me : me - int(by));
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width) {
    const int me = host::lane(), inside = me % width;
    return host::shuffled(2, mask, value, inside + int(by) >= width ? me : me + int(by));
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int with, int width) {
    const int me = host::lane(), other = me ^ with;
    return host::shuffled(3, mask, value, other / width == me / width ? other : me);
}

inline int __all_sync(unsigned mask, int predicate) {
    const host::Post* const all = host::meet(4, mask, predicate != 0);
    for (int lane = 0; lane < host::WARP; ++lane) {
        if (all[lane].value == 0) return 0;
    }
    return 1;
}

inline void __syncwarp() { host::meet(5, 0xffffffffu, 0); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int) {
    return host::shuffled(6, mask, value, source);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const host::Post* const all = host::meet(7, mask, predicate != 0);
    unsigned bits = 0;
    for (int lane = 0; lane < host::WARP; ++lane) bits |= unsigned(all[lane].value) << lane;
    return bits;
}

inline unsigned atomicAdd(unsigned* place, unsigned more) {
    const unsigned before = *place;
    *place += more;
    return before;
}

inline int __ffs(int bits) { return __builtin_ffs(bits); }

// All threads of a block must come here.
inline void __syncthreads() {
    if (host::alone) throw std::runtime_error("a barrier in a kernel that is said to have none");
    const unsigned mine = host::barriers;
    if (++host::waiting == blockDim.x) {
        host::waiting = 0;
        ++host::barriers;
        return;
    }
    for (int rounds = 0; host::barriers == mine; ++rounds) {
        if (rounds > 1 << 20) throw std::runtime_error("a barrier that not all threads come to");
        swapcontext(&host::fibers[threadIdx.x].context, &host::scheduler);
    }
}

inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dmul_rn(double a, double b) { return a * b; }

inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline double __longlong_as_double(long long bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline void sincospi(double x, double* sine, double* cosine) {
    const double quarters = std::nearbyint(2 * x), rest = (x - quarters / 2) * 3.14159265358979323846;
    const double s = std::sin(rest), c = std::cos(rest);
    const int quadrant = int((long long)quarters & 3);
    *sine = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
    *cosine = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
}

inline void sincospif(float x, float* sine, float* cosine) {
    double s, c;
    sincospi(x, &s, &c);
    *sine = float(s);
    *cosine = float(c);
}
