// The GPU kernel of recon/wavelet.cu as a function of the CPU: see cuda_on_host.h.
#include "cuda_on_host.h"

using std::sqrt;

#include "../recon/wavelet.cu"

extern "C" int launch(const char* name, unsigned columns, unsigned rows, unsigned threads, unsigned long shared,
                      int reversed, void** arguments) {
    if (std::string(name) != "shrink") return 2;
    return host::launch(shrink, columns, rows, threads, shared, reversed, arguments);
}
