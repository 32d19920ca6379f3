// The GPU kernel of mrf/texture/window.cu as a function of the CPU: see cuda_on_host.h.
#include "cuda_on_host.h"

#define texture epg  // where the shared memory is

#include "../mrf/texture/window.cu"

extern "C" int launch(const char* name, unsigned columns, unsigned rows, unsigned threads, unsigned long shared,
                      int reversed, void** arguments) {
    if (std::string(name) != "cooccurrence") return 2;
    return host::launch(cooccurrence, columns, rows, threads, shared, reversed, arguments);
}
