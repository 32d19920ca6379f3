// The GPU kernels of recon/toeplitz.cu as functions of the CPU: see cuda_on_host.h.
#include "cuda_on_host.h"

#include "../recon/toeplitz.cu"

extern "C" int launch(const char* name, unsigned columns, unsigned rows, unsigned threads, unsigned long shared,
                      int reversed, void** arguments) {
    const auto play = [&](auto kernel) {
        return host::launch(kernel, columns, rows, threads, shared, reversed, arguments, true);
    };
    const std::string wanted(name);
    if (wanted == "enter") return play(enter);
    if (wanted == "mix") return play(mix);
    if (wanted == "leave") return play(leave);
    return 2;
}
