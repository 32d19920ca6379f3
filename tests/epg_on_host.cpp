// The GPU kernel of simulation/epg.cu as a function of the CPU: see cuda_on_host.h.
#include "cuda_on_host.h"

#include "../simulation/epg.cu"

extern "C" int launch(const char*, unsigned columns, unsigned rows, unsigned threads, unsigned long shared,
                      int reversed, void** arguments) {
    return host::launch(EPG_NAME(REAL, CHANNELS, GROUP, HELD), columns, rows, threads, shared, reversed, arguments);
}
