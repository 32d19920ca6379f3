// The GPU kernel of recon/mix.cu as a function of the CPU: see cuda_on_host.h.
#include "cuda_on_host.h"

#include "../recon/mix.cu"

extern "C" int launch(const char* name, unsigned columns, unsigned rows, unsigned threads, unsigned long shared,
                      int reversed, void** arguments) {
    if (std::string(name) != "mix") return 2;
    return host::launch(mix, columns, rows, threads, shared, reversed, arguments);
}
