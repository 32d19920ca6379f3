// The GPU kernels of mrf/matching/match.cu as functions of the CPU: see cuda_on_host.h.
#include "cuda_on_host.h"

#undef __shared__
#define __shared__ static  // one for all threads of a block; the blocks come one after the other

#include "../mrf/matching/match.cu"

extern "C" int launch(const char* name, unsigned columns, unsigned rows, unsigned threads, unsigned long shared,
                      int reversed, void** arguments) {
    const auto play = [&](auto kernel) { return host::launch(kernel, columns, rows, threads, shared, reversed, arguments); };
    const std::string wanted(name);
    if (wanted == "prepare") return play(prepare);
    if (wanted == "descend") return play(descend);
    if (wanted == "tile_maxima") return play(tile_maxima);
    if (wanted == "settle") return play(settle);
    return 2;
}
