// Arithmetic of epg.cu: sums of two numbers, turns, exponentials.

#ifndef NUMBERS_CUH
#define NUMBERS_CUH

namespace epg {

template <typename Real>
struct Pair {  // a number as the sum of two
    Real high, low;
};

template <typename Real>
struct Turn {
    Real cosine, sine;
};

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }
__device__ __forceinline__ float product(float a, float b) { return __fmul_rn(a, b); }  // never contracted
__device__ __forceinline__ double product(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float nearest(float a) { return rintf(a); }
__device__ __forceinline__ double nearest(double a) { return rint(a); }
__device__ __forceinline__ float root(float a) { return sqrtf(a); }
__device__ __forceinline__ double root(double a) { return sqrt(a); }
__device__ __forceinline__ float two_to(float n) { return __int_as_float((int(n) + 127) << 23); }
__device__ __forceinline__ double two_to(double n) { return __longlong_as_double((long long)(int(n) + 1023) << 52); }
__device__ __forceinline__ Turn<float> turned(float turns) {
    Turn<float> turn;
    sincospif(2 * turns, &turn.sine, &turn.cosine);
    return turn;
}
__device__ __forceinline__ Turn<double> turned(double turns) {
    Turn<double> turn;
    sincospi(2 * turns, &turn.sine, &turn.cosine);
    return turn;
}

template <typename Real>
__device__ __forceinline__ Turn<Real> after(Turn<Real> a, Turn<Real> b) {
    return {a.cosine * b.cosine - a.sine * b.sine, a.cosine * b.sine + a.sine * b.cosine};
}

template <typename Real>
__device__ __forceinline__ Pair<Real> split(double a) {
    const Real high = Real(a);
    return {high, Real(a - double(high))};
}

// a * b to twice the precision of Real.
template <typename Real>
__device__ __forceinline__ Pair<Real> exact(Pair<Real> a, Real b, Real b_low) {
    const Real high = product(a.high, b);
    return {high, fused(a.low, b, fused(a.high, b_low, fused(a.high, b, -high)))};
}

// a * b + c without whole turns, precise even if a * b is thousands of turns.
template <typename Real>
__device__ __forceinline__ Real reduced(Pair<Real> a, Real b, Real b_low, Real c) {
    const Pair<Real> turns = exact(a, b, b_low);
    return (turns.high - nearest(turns.high)) + (turns.low + c);
}

// (expm1(r) - r) / r^2 for |r| <= ln 2 / 2.
__device__ __forceinline__ float series(float r) {
    float sum = 1.0f / 5040;
    sum = fused(sum, r, 1.0f / 720);
    sum = fused(sum, r, 1.0f / 120);
    sum = fused(sum, r, 1.0f / 24);
    sum = fused(sum, r, 1.0f / 6);
    return fused(sum, r, 0.5f);
}
__device__ __forceinline__ double series(double r) {
    const double terms[] = {1.0 / 2,       1.0 / 6,        1.0 / 24,        1.0 / 120,        1.0 / 720,
                            1.0 / 5040,    1.0 / 40320,    1.0 / 362880,    1.0 / 3628800,    1.0 / 39916800,
                            1.0 / 479001600, 1.0 / 6227020800, 1.0 / 87178291200};
    double sum = terms[12];
#pragma unroll
    for (int n = 11; n >= 0; --n) sum = fused(sum, r, terms[n]);
    return sum;
}

// exp(x) and expm1(x) of x <= 0, each to its own relative precision (as in vectors.py): 1 - E1 does not cancel.
template <typename Real>
struct Exponentials {
    Real whole, less_one;

    __device__ __forceinline__ explicit Exponentials(Real x) {
        constexpr bool single = sizeof(Real) == 4;
        const Real lowest = single ? -87.0 : -708.0;
        const Real high = single ? 0.693359375 : 0.6931471803691238;
        const Real low = single ? -2.12194440e-4 : 1.9082149292705877e-10;
        x = x < lowest ? lowest : x;
        const Real n = nearest(x * Real(1.4426950408889634));
        const Real r = fused(-n, low, fused(-n, high, x));
        const Real y = fused(r * r, series(r), r);
        const Real scale = two_to(n);
        whole = fused(scale, y, scale);
        less_one = fused(scale, y, scale - Real(1));
    }
};

}  // namespace epg

#endif
